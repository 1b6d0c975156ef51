"""FLAC files, read to their last frame whatever number of samples their header declares."""

import os
from collections.abc import Iterator
from typing import BinaryIO

from . import libsndfile
from .blocks import Block
from .errors import COPY_AGAIN, AudioError
from .layout.parts import Bytes
from .sources import window

_MAGIC = b"fLaC\x00\x00\x00\x22"  # with the head of the block that comes first
_TOTAL_FIELD, _TOTAL = (
    18,
    (1 << 36) - 1,
)  # eight bytes of the header, and their bits with the number of samples


def decode(file: BinaryIO, name: str, warnings: list[str]) -> Iterator[Block]:
    """Decode a FLAC file, or several joined end to end.

    Raises:
        libsndfile.UnsupportedError: not FLAC; raised before the first block.
        AudioError: damaged, or fewer samples than declared.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(_TOTAL_FIELD)
    fields = int.from_bytes(file.read(8), "big")
    declared, count = fields & _TOTAL, 0
    # Without a number of samples libFLAC reads all frames.
    endless = ((_TOTAL_FIELD, (fields & ~_TOTAL).to_bytes(8, "big")),)
    try:
        for block in libsndfile.decode(window(file, 0, size, endless), name):
            count += len(block.samples)
            yield block
    except AudioError:
        # Bytes that are no frame follow, or another file; the block before them is lost.
        following = Bytes(file).find(_MAGIC, 1)
        if following == size and count > declared:
            raise
        yield from _skip(libsndfile.decode(window(file, 0, following), name, declared or None), count)
        if following < size:
            yield from decode(window(file, following, size), name, warnings)
        else:
            warnings.append("bytes behind its last frame are not audio, and were left out")
        return
    if count < declared:
        raise AudioError(f"{name}: cut short: {count} of {declared} samples are there; {COPY_AGAIN}")


def _skip(blocks: Iterator[Block], count: int) -> Iterator[Block]:
    """Leave out the first samples."""
    for block in blocks:
        if len(block.samples) > count:
            yield block._replace(samples=block.samples[count:])
        count = max(count - len(block.samples), 0)
