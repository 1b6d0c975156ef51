"""Flax's msgpack files: the tensors of nested maps, without the msgpack package.

The format: https://github.com/msgpack/msgpack/blob/master/spec.md, with flax.serialization's extension 1, an
array as (shape, name of its dtype, bytes), and its maps of chunks for arrays of over a gigabyte. Nothing else
may be in such a file, which keeps the reader short and its memory bounded: no list is ever made as long as a
file says, and tensors are copied out of the mapped file one by one.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .mapped_file import MOST_DIMENSIONS, MOST_NAME, MappedFile

_MOST_DEPTH = 32  # of maps in maps; models have about ten
_MOST_ENTRIES = 1_000_000  # of all maps together
_MOST_CHUNKS = 10_000
_CHUNKED = "__msgpack_chunked_array__"
_ARRAY, _SCALAR = 1, 3  # extensions
_NOTHING, _FALSE, _TRUE = 0xC0, 0xC2, 0xC3
# First byte: bytes of the length that follows it, big-endian.
_STRINGS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BINARIES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_MAPS = {0xDE: 2, 0xDF: 4}
_LISTS = {0xDC: 2, 0xDD: 4}
_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}  # their sizes
_INTEGERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}


def read_msgpack(path: Path) -> dict[str, Tensor]:
    """Every tensor of a Flax file, by the keys that lead to it with "/" between them.

    Args:
        path: exists.

    Raises:
        ValueError: a file that is damaged, or holds anything but maps of tensors.
    """
    with MappedFile(path) as file:
        reader = _Reader(file)
        reader.read_map("", 0)
        if reader.at != file.size:
            raise file.damaged(f"there are {file.size - reader.at} bytes behind its end")
        return reader.tensors


class _Array(NamedTuple):
    """Where a tensor lies."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True)
class _Other:
    """What is no tensor; `value` of integers and truth values."""

    kind: str
    value: int | None = None


class _Reader:
    """Reads one file from its start to its end."""

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self.at = 0
        self.tensors: dict[str, Tensor] = {}
        self._entries = 0

    def read_map(self, prefix: str, depth: int) -> None:
        """Read a map into `tensors`, its keys behind `prefix`."""
        count = self._map_length(self._byte())
        if count is None:
            raise self.file.damaged(
                f"it holds something else than tensors at {prefix[:100] or 'its start'!r}"
            )
        if depth >= _MOST_DEPTH:
            raise self.file.damaged(f"its maps are nested over {_MOST_DEPTH} deep")
        for number in range(count):
            key = self._key()
            if key == _CHUNKED:
                if count != 3 or number:
                    raise self.file.damaged(f"{prefix[:100]!r} is not in chunks alone")
                self._read_chunked(prefix.removesuffix("/"))
                return
            name = prefix + key
            self.file.check_name(name, len(self.tensors))
            if self._map_length(self.file.data[self.at] if self.at < self.file.size else 0, peek=True):
                self.read_map(f"{name}/", depth + 1)
                continue
            value = self._value()
            if isinstance(value, _Array):
                self._keep(name, self.file.tensor(name, *value))
            elif value.kind != "an empty map":
                raise self.file.damaged(f"{name!r} is no tensor but {value.kind}")

    def _read_chunked(self, name: str) -> None:
        """Read the rest of a map that stands for one large tensor: its shape and its pieces, in order."""
        if self._byte() != _TRUE:
            raise self.file.damaged(f"{name!r} is and is not in chunks")
        shape: tuple[int, ...] = ()
        pieces: list[Tensor] = []
        for part, most in (("shape", MOST_DIMENSIONS), ("chunks", _MOST_CHUNKS)):
            if self._key() != part:
                raise self.file.damaged(f"{name!r} in chunks has no {part} in its place")
            count = self._map_length(self._byte())
            if count is None or count > most:
                raise self.file.damaged(f"{name!r} in chunks has a wrong {part}")
            for number in range(count):
                if self._key() != str(number):
                    raise self.file.damaged(f"the {part} of {name!r} is not in order")
                value = self._value()
                if part == "chunks" and isinstance(value, _Array):
                    pieces.append(self.file.tensor(name, *value).flatten())
                elif part == "shape" and isinstance(value, _Other) and (length := value.value or 0) > 0:
                    shape = (*shape, length)
                else:
                    raise self.file.damaged(f"{name!r} in chunks has a wrong {part}")
        if len({piece.dtype for piece in pieces}) > 1:
            raise self.file.damaged(f"the chunks of {name!r} are of several dtypes")
        try:
            whole = torch.cat(pieces).reshape(shape)
        except (RuntimeError, TypeError, ValueError):
            raise self.file.damaged(f"the chunks of {name!r} do not make up {list(shape)}") from None
        self._keep(name, whole)

    def _keep(self, name: str, tensor: Tensor) -> None:
        if name in self.tensors:
            raise self.file.damaged(f"it has {name!r} twice")
        self.tensors[name] = tensor

    def _value(self) -> _Array | _Other:
        """What is no map, or an empty one."""
        first = self._byte()
        if first in _EXTENSIONS or first in _FIXED_EXTENSIONS:
            size = _FIXED_EXTENSIONS.get(first) or self._number(_EXTENSIONS[first])
            kind = self._byte()
            end = self.at + size
            if end > self.file.size:
                raise self.file.damaged("it ends in the middle of a tensor")
            if kind not in (_ARRAY, _SCALAR):
                raise self.file.damaged(f"it holds an extension of kind {kind}")
            array = self._array()
            if self.at != end:
                raise self.file.damaged("a tensor is longer or shorter than its place")
            return array
        if first in (_FALSE, _TRUE):
            return _Other("a truth value", int(first == _TRUE))
        if (integer := self._integer(first)) is not None:
            return _Other("an integer", integer)
        if first == 0x80:
            return _Other("an empty map")
        if first == _NOTHING:
            return _Other("nothing")
        if first in _LISTS or first & 0xF0 == 0x90:
            return _Other("a list")
        return _Other("text, bytes or a number")

    def _array(self) -> _Array:
        """What an extension holds: a list of shape, dtype and bytes."""
        if self._byte() != 0x93:
            raise self.file.damaged("a tensor is not made of shape, dtype and bytes")
        first = self._byte()
        if first & 0xF0 != 0x90:  # a list of up to 15
            raise self.file.damaged("a tensor's shape is no short list")
        lengths = [self._integer(self._byte()) for _ in range(first & 0x0F)]
        shape = tuple(length for length in lengths if length is not None)
        if len(shape) != len(lengths):
            raise self.file.damaged("a tensor's shape is not made of integers")
        dtype = self._key()
        first = self._byte()
        if first not in _BINARIES:
            raise self.file.damaged("a tensor has no bytes")
        size = self._number(_BINARIES[first])
        offset = self.at
        self.at += size
        return _Array(dtype, shape, offset, size)

    def _key(self) -> str:
        """A short text."""
        self._entries += 1
        if self._entries > _MOST_ENTRIES:
            raise self.file.damaged(f"it has over {_MOST_ENTRIES} entries")
        first = self._byte()
        if first & 0xE0 == 0xA0:
            size = first & 0x1F
        elif first in _STRINGS:
            size = self._number(_STRINGS[first])
        else:
            raise self.file.damaged("a key is no text")
        if size > MOST_NAME:
            raise self.file.damaged(f"a key has {size} bytes, more than {MOST_NAME}")
        raw = self._bytes(size)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.file.damaged("a key is no UTF-8") from None

    def _map_length(self, first: int, peek: bool = False) -> int | None:
        """How many entries a map has that begins with this byte; None where none does. 1 or 0 for `peek`."""
        if first & 0xF0 == 0x80:
            return first & 0x0F
        if first in _MAPS:
            return 1 if peek else self._number(_MAPS[first])
        return None

    def _integer(self, first: int) -> int | None:
        """The integer that begins with this byte; None where none does."""
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first in _INTEGERS:
            form = _INTEGERS[first]
            return int(struct.unpack(form, self._bytes(struct.calcsize(form)))[0])
        return None

    def _number(self, size: int) -> int:
        return int.from_bytes(self._bytes(size), "big")

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, size: int) -> bytes:
        found = self.file.data[self.at : self.at + size]
        if len(found) < size:
            raise self.file.damaged("it ends too early")
        self.at += size
        return found
