"""Parts of a file, each a recording of its own, and random access to a file's bytes."""

import os
from dataclasses import dataclass, field
from typing import BinaryIO

_BLOCK = 1 << 18  # bytes read at a time


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` to `stop` of a file; patches replace bytes at offsets from `start`."""

    start: int
    stop: int
    patches: tuple[tuple[int, bytes], ...] = ()


@dataclass(slots=True)
class Layout:
    """Parts of a file in their order, and warnings about what lies between them."""

    parts: list[Part]
    warnings: list[str] = field(default_factory=list)


class Bytes:
    """Random access to a file's bytes, of which one block is held."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        self._start, self._block = 0, b""

    def at(self, offset: int, count: int) -> bytes:
        """Bytes from an offset on, fewer at the file's end."""
        begin = offset - self._start
        if begin < 0 or begin + count > len(self._block):
            self._file.seek(offset)
            self._start, begin = offset, 0
            self._block = self._file.read(max(_BLOCK, count))
        return self._block[begin : begin + count]

    def find(self, pattern: bytes, start: int) -> int:
        """Offset of the first occurrence from `start` on; the file's size where there is none."""
        while len(self.at(start, len(pattern))) == len(pattern):
            if (index := self._block.find(pattern, start - self._start)) >= 0:
                return self._start + index
            start = self._start + len(self._block) - len(pattern) + 1
        return self.size

    def is_zero(self, start: int) -> bool:
        """Check whether all bytes from an offset on are 0."""
        while block := self.at(start, _BLOCK):
            if block.count(0) != len(block):
                return False
            start += len(block)
        return True


def is_tag(content: bytes) -> bool:
    """Check whether bytes begin a tag that programs append to files of any format."""
    return content.startswith((b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN"))
