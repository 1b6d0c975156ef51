"""Stream the text of several recordings that are decoded together.

python examples/stream.py samples/digits/six_digits_16k.flac samples/digits/two_digits_16k.wav
"""

import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import tritone


def show(name: str, handle: Iterable[str]) -> None:
    """Print each piece of text as it is decoded, with the seconds since the start of the request."""
    start = time.perf_counter()
    for piece in handle:
        print(f"{time.perf_counter() - start:6.2f} s  {name}: {piece.strip()}", flush=True)


def main(*paths: str) -> None:
    with tritone.Engine("digits") as engine:
        handles = [engine.submit(path) for path in paths]  # returns at once
        threads = [
            threading.Thread(target=show, args=(Path(path).name, handle))
            for path, handle in zip(paths, handles, strict=True)
        ]
        for thread in threads:
            thread.start()
        for path, handle, thread in zip(paths, handles, threads, strict=True):
            thread.join()
            print(f"{path}: {handle.result().text}")


if __name__ == "__main__":
    main(*sys.argv[1:])
