"""Copies of tensors from a memory-mapped file, at offsets that its untrusted tables give."""

import math
import mmap
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from .contents import check_file

# Bounds on the tables in a file, far beyond any model.
MAX_TENSORS = 100_000
MAX_NAME_LENGTH = 512  # characters
MAX_DIMENSIONS = 8

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "bool": torch.bool,
}


class MappedFile:
    """Context manager of a memory-mapped file of weights, from which tensors are copied.

    The copies together are never larger than the file: tables that claim more, or the same bytes for several
    tensors, are refused before memory is allocated.
    """

    def __init__(self, path: Path) -> None:
        check_file(path)
        self.path = path
        self.size = path.stat().st_size
        self._left = self.size
        self.data: mmap.mmap | bytes = b""

    def __enter__(self) -> Self:
        if self.size:
            with self.path.open("rb") as file:
                self.data = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_COPY)
        return self

    def __exit__(self, *error: object) -> None:
        self.data = b""  # the mapping is closed with the last view of it

    def damaged(self, how: str) -> ValueError:
        """Error to raise for a damaged file."""
        return ValueError(f"{self.path} is damaged ({how}); fetch it again")

    def check_name(self, name: str, already: int) -> None:
        """Raise a ValueError for a name over `MAX_NAME_LENGTH`, or a tensor beyond `MAX_TENSORS`."""
        if len(name) > MAX_NAME_LENGTH:
            raise self.damaged(f"a tensor's name has over {MAX_NAME_LENGTH} characters: {name[:40]!r}...")
        if already >= MAX_TENSORS:
            raise self.damaged(f"it has over {MAX_TENSORS} tensors")

    def tensor(
        self, name: str, dtype: str, shape: tuple[int, ...], offset: int, size: int | None = None
    ) -> Tensor:
        """Copy of one tensor, which is row-major and little-endian in the file.

        Args:
            name: name of the tensor, for errors.
            dtype: a name of `DTYPES`.
            shape: shape that the file gives.
            offset: offset in bytes from the start of the file.
            size: size in bytes that the file gives; None if it gives none.

        Raises:
            ValueError: an unknown dtype, a shape that is bad or does not fit `size`, bytes outside the file,
                or tensors that together have more bytes than the file.
        """
        needed = self._checked_size(name, dtype, shape, size)
        if offset < 0 or offset + needed > self.size:
            raise self.damaged(
                f"{name[:MAX_NAME_LENGTH]!r} of shape {list(shape)} takes bytes {offset} to "
                f"{offset + needed} of {self.size}"
            )
        self._reserve(name, needed)
        if not needed:
            return self._empty(name, dtype, shape)
        raw = torch.frombuffer(self.data, dtype=torch.uint8, count=needed, offset=offset)
        return _typed(raw.clone(), dtype, shape)  # the copy is aligned, unlike offsets in these files

    def tensor_of_bytes(self, name: str, dtype: str, shape: tuple[int, ...], data: bytes) -> Tensor:
        """Copy of one tensor whose bytes a parser has read from the file; otherwise as `tensor`."""
        self._reserve(name, self._checked_size(name, dtype, shape, len(data)))
        if not data:
            return self._empty(name, dtype, shape)
        return _typed(torch.from_numpy(np.frombuffer(data, np.uint8).copy()), dtype, shape)

    def _checked_size(self, name: str, dtype: str, shape: tuple[int, ...], size: int | None) -> int:
        """Size of a tensor in bytes; ValueError for an unknown dtype, a bad shape or another `size`."""
        name = repr(name[:MAX_NAME_LENGTH])
        if dtype not in DTYPES:
            raise ValueError(
                f"{self.path}: {name} has dtype {dtype[:40]!r}; tensors may be {', '.join(DTYPES)}"
            )
        if len(shape) > MAX_DIMENSIONS:
            raise self.damaged(f"{name} has over {MAX_DIMENSIONS} dimensions")
        if any(length < 0 or length >= 1 << 63 for length in shape):
            raise self.damaged(f"{name} has the shape {list(shape)}")
        needed = math.prod(shape) * DTYPES[dtype].itemsize
        if size is not None and size != needed:
            raise self.damaged(f"{name} of shape {list(shape)} in {dtype} has {needed} bytes, not {size}")
        return needed

    def _reserve(self, name: str, needed: int) -> None:
        """Subtract a tensor's bytes from those left of the file; ValueError where too few are left."""
        self._left -= needed
        if self._left < 0:
            raise self.damaged(f"its tensors overlap, at {name[:MAX_NAME_LENGTH]!r}")

    def _empty(self, name: str, dtype: str, shape: tuple[int, ...]) -> Tensor:
        try:
            return torch.empty(shape, dtype=DTYPES[dtype])
        except RuntimeError:  # the other lengths overflow the strides
            raise self.damaged(f"{name!r} has the shape {list(shape)}") from None


def _typed(raw: Tensor, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """Tensor of a dtype and shape from its aligned bytes, uint8 [n]."""
    return raw.ne(0).reshape(shape) if dtype == "bool" else raw.view(DTYPES[dtype]).reshape(shape)
