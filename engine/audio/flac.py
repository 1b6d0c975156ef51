"""FLAC files, read to their last frame whatever number of samples their header declares."""

import os
from collections.abc import Iterator
from typing import BinaryIO

from . import libsndfile
from .blocks import Block
from .errors import COPY_AGAIN, AudioError
from .sources import Window

_TOTAL_FIELD, _TOTAL = (
    18,
    (1 << 36) - 1,
)  # eight bytes of the header, and their bits with the number of samples


def decode(file: BinaryIO, name: str, warnings: list[str]) -> Iterator[Block]:
    """Decode a FLAC file from its start to its end.

    Raises:
        libsndfile.UnsupportedError: not FLAC; raised before the first block.
        AudioError: damaged, or fewer samples than declared.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(_TOTAL_FIELD)
    fields = int.from_bytes(file.read(8), "big")
    declared = fields & _TOTAL
    # Without a number of samples libFLAC reads all frames.
    endless = ((_TOTAL_FIELD, (fields & ~_TOTAL).to_bytes(8, "big")),)
    count = 0
    try:
        for block in libsndfile.decode(Window(file, 0, size, endless), name):
            count += len(block.samples)
            yield block
    except AudioError:
        # The last block is lost where bytes behind the last frame are no frame.
        if not count <= declared or not declared:
            raise
        skipped = 0
        for block in libsndfile.decode(Window(file, 0, size), name):
            samples = block.samples[max(count - skipped, 0) :]
            skipped += len(block.samples)
            if len(samples):
                yield block._replace(samples=samples)
        warnings.append("bytes behind its last frame are not audio, and were left out")
        return
    if count < declared:
        raise AudioError(f"{name}: cut short: {count} of {declared} samples are there; {COPY_AGAIN}")
