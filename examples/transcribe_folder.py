"""Transcribe a folder of recordings into JSON lines, whatever becomes of single files.

    python examples/transcribe_folder.py samples/digits/ [CHECKPOINT]

A checkpoint is a folder, a hub id, or a built-in model: `english`, or by default `digits`.
"""

import json
import sys
from pathlib import Path

import tritone

AUDIO = {".flac", ".mp3", ".ogg", ".opus", ".wav"}


def main(folder: str, checkpoint: str = "digits") -> None:
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in AUDIO)
    seconds = 0.0
    with tritone.Engine(checkpoint) as engine:
        for path, result in zip(paths, engine.transcribe(paths), strict=True):  # in the order given
            line = {"path": str(path), "text": result.text, "seconds": round(result.duration, 2)}
            if result.error is not None:  # an unreadable file stops no other
                line["error"] = str(result.error)
            print(json.dumps(line, ensure_ascii=False), flush=True)
            seconds += result.duration
        print(f"{len(paths)} files, {seconds:.1f} s, RTFx {engine.stats().rtfx:.1f}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
