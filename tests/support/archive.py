"""Archive of 400 recordings in 20 formats, 30 of them broken, and the session of docs/use.md on it.

`python tests/support/archive.py` makes the archive, runs the commands and writes the session;
`python tests/support/archive.py FOLDER` makes the archive alone.
"""

import itertools
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from audio_files import encode

from tritone.engine.audio.reader import load_audio
from tritone.engine.audio.segments import pieces

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "use.md"
BEGIN, END = "<!-- written by tests/support/archive.py -->\n", "<!-- end of what it has written -->\n"
COUNT = 400
# Suffix, container and codec of FFmpeg's libraries, rate.
ENCODED = (
    ("mp3", "mp3", "libmp3lame", 44_100),
    ("m4a", "ipod", "aac", 44_100),
    ("aac", "adts", "aac", 16_000),
    ("opus", "ogg", "libopus", 48_000),
    ("mp4", "mp4", "aac", 48_000),
    ("mov", "mov", "pcm_s16le", 16_000),
    ("mkv", "matroska", "libopus", 48_000),
    ("webm", "webm", "libopus", 48_000),
    ("avi", "avi", "libmp3lame", 44_100),
    ("wma", "asf", "wmav2", 44_100),
    ("3gp", "3gp", "libopencore_amrnb", 8_000),
    ("ac3", "ac3", "ac3", 48_000),
    ("wv", "wv", "wavpack", 44_100),
    ("tta", "tta", "tta", 44_100),
)
WRITTEN = ("wav", "flac", "ogg", "aiff", "au", "caf")  # by libsndfile
FOLDERS = ("1998-interviews", "2004-lectures", "2011-meetings", "2019-calls", "2024-field")
PAGE_OF_AN_ERROR = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 48213\n"
BROKEN: tuple[tuple[int, Callable[[bytes, random.Random], bytes]], ...] = (
    (8, lambda data, draw: data[: len(data) * 2 // 3]),  # a copy that stopped
    (7, lambda data, draw: b""),
    (5, lambda data, draw: PAGE_OF_AN_ERROR),
    (4, lambda data, draw: POINTER),
    (3, lambda data, draw: bytes(len(data))),  # a disk that was full or failed
    (3, lambda data, draw: draw.randbytes(len(data))),
)
OTHERS = ("README.txt", "cover.jpg", "2019-calls/list.xlsx", "2024-field/.DS_Store", "2024-field/map.pdf")


def make_archive(folder: Path, count: int = COUNT) -> None:
    """Write the archive, 30 of its `count` files broken: every twentieth is in the same format."""
    draw = random.Random(17)
    clips = itertools.cycle(_clips())
    formats = itertools.cycle([*((suffix, None) for suffix in WRITTEN), *((one[0], one) for one in ENCODED)])
    kinds = [damage for number, damage in BROKEN for _ in range(number)]
    places = sorted(draw.sample(range(count), len(kinds)))
    broken = dict(zip(places, draw.sample(kinds, len(kinds)), strict=True))
    for index, clip, (suffix, encoded) in zip(range(count), clips, formats, strict=False):
        path = folder / FOLDERS[index * len(FOLDERS) // count] / f"{index:03}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if encoded is None:
            soundfile.write(path, clip, 16_000)
        else:
            _, container, codec, rate = encoded
            path.write_bytes(encode(_at_rate(clip, rate), rate, container, codec))
        if index in broken:
            path.write_bytes(broken[index](path.read_bytes(), draw))
    for name in OTHERS:
        (folder / name).write_bytes(b"no recording")


def _clips() -> list[np.ndarray]:
    """Sentences of the samples and pieces of the longest one, float32 at 16 kHz."""
    names = ("bakery_16k.wav", "weather_22k.flac", "library_8k.wav", "garden_44k.mp3")
    samples = ROOT / "samples" / "english"
    clips = [load_audio(samples / name, 16_000).samples for name in names]
    story = load_audio(samples / "three_minutes.m4a", 16_000).samples
    return clips + [piece.samples for piece in pieces([story], 16_000, 8.0)]


def _at_rate(samples: np.ndarray, rate: int) -> np.ndarray:
    return load_audio(samples, rate, source_rate=16_000).samples


def record(folder: Path) -> str:
    """Run the session in a folder that has the archive, and return it as a block of Markdown."""
    commands = (
        "find archive -type f | wc -l",
        "tritone archive --output archive.jsonl",
        "echo $?",
        "tritone archive --output archive.jsonl 2>&1 | tail -n 8",
        "tritone archive/2019-calls -o subtitles -f srt,txt --quiet 2>/dev/null; ls subtitles | head -n 4; "
        "cat subtitles/240.srt",
        "tritone archive --shard 3/8 --num-beam 5",
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "COLUMNS": "100", "NO_COLOR": "1"}
    shown = []
    for command in commands:
        print(command, file=sys.stderr)
        script = f"(exit ${{LAST:-0}}); {command}"
        run = subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        environment["LAST"] = str(run.returncode)
        shown.append(f"$ {command}\n{run.stdout.decode()}")
    return f"```console\n{''.join(shown)}```\n"


def _processor() -> str:
    """Name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    """Make the archive, and without an argument the session too."""
    if len(sys.argv) > 1:
        make_archive(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_archive(Path(folder) / "archive")
        session = record(Path(folder))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    where = f"On {threads} of {os.cpu_count()} cores of an {_processor()}, a model of tiny size:\n\n"
    PAGE.write_text(before + BEGIN + where + session + END + after)


if __name__ == "__main__":
    main()
