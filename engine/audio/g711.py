"""G.711 without a header: a byte a sample, expanded by a table (ITU-T G.711)."""

from collections.abc import Iterator
from functools import cache
from typing import BinaryIO

import numpy as np

from .blocks import BLOCK, Block


def decode(file: BinaryIO, encoding: str, rate: int) -> Iterator[Block]:
    """Decode "mulaw" or "alaw", one channel, from the file's start to its end."""
    table = _table(encoding)
    file.seek(0)
    while content := file.read(BLOCK):
        yield Block(table[np.frombuffer(content, np.uint8)][:, None], rate)


@cache
def _table(encoding: str) -> np.ndarray:
    """Sample of each byte, float32 [256]."""
    code = np.arange(256)
    code = ~code & 0xFF if encoding == "mulaw" else code ^ 0x55
    exponent, mantissa = code >> 4 & 7, code & 15
    if encoding == "mulaw":
        size = (2 * mantissa + 33 << exponent + 2) - 132
        sign = np.where(code & 0x80, -1, 1)
    else:
        size = np.where(exponent == 0, 16 * mantissa + 8, 16 * mantissa + 264 << np.maximum(exponent - 1, 0))
        sign = np.where(code & 0x80, 1, -1)
    return (sign * size / 32768).astype(np.float32)
