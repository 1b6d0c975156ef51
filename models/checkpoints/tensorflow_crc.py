"""CRC-32C as LevelDB and TensorFlow store it, over whole files of weights: in NumPy, many places at a time.

A checksum that begins with zero is linear over GF(2): that of two parts, one behind the other, is that of the
first moved on by as many zero bytes as the second has, xor that of the second. So a piece is cut into equal
lanes, rows of a matrix that is gone through by columns, and the lanes are joined two by two.
"""

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

_LANE = 512  # bytes
_PIECE = 2**22  # bytes that are taken at a time, which bounds the copies of them
_BITS = np.arange(32, dtype=np.uint32)


def masked_crc(data: bytes | memoryview) -> int:
    """The checksum, rotated and moved as LevelDB stores it; some 200 megabytes a second."""
    content = np.frombuffer(data, np.uint8)
    crc = 0xFFFFFFFF
    for start in range(0, len(content), _PIECE):
        piece = content[start : start + _PIECE]
        crc = _of_few(piece.tobytes(), crc) if len(piece) < 4 * _LANE else _of_many(piece, crc)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _of_few(data: bytes, crc: int) -> int:
    for byte in data:
        crc = crc >> 8 ^ _LIST[(crc ^ byte) & 255]
    return crc


def _of_many(data: NDArray[np.uint8], crc: int) -> int:
    lanes = 1 << ((len(data) - 1) // _LANE).bit_length()
    padded = np.zeros(lanes * _LANE, np.uint8)
    padded[-len(data) :] = data  # zeros in front change nothing where a checksum begins with zero
    sums = np.zeros(lanes, np.uint32)
    for column in np.ascontiguousarray(padded.view("<u4").reshape(lanes, -1).T):
        halves = (sums ^ column).view(np.uint16)
        sums = _LOW.take(halves[::2]) ^ _HIGH.take(halves[1::2])
    columns = _moved_on(_LANE)
    while len(sums) > 1:
        sums = _applied(columns, sums[::2]) ^ sums[1::2]
        columns = _applied(columns, columns)
    before = _applied(_moved_on(len(data)), np.array([crc], np.uint32))
    return int(before[0] ^ sums[0])


def _applied(columns: Words, words: Words) -> Words:
    """The product of a matrix, by its 32 columns, with every word, a vector of 32 bits."""
    bits = words[:, None] >> _BITS & np.uint32(1)
    return np.bitwise_xor.reduce(bits * columns, axis=1)


def _moved_on(zeros: int) -> Words:
    """The matrix that moves a checksum on by so many zero bytes."""
    result, power = np.uint32(1) << _BITS, _ONE_ZERO
    while zeros:
        if zeros & 1:
            result = _applied(power, result)
        zeros >>= 1
        power = _applied(power, power)
    return result


def _bytewise(words: Words) -> Words:
    """Words moved on by one zero byte."""
    for _ in range(8):
        words = words >> np.uint32(1) ^ (words & np.uint32(1)) * np.uint32(0x82F63B78)
    return words


_LIST = _bytewise(np.arange(256, dtype=np.uint32)).tolist()
_ONE_ZERO = _bytewise(np.uint32(1) << _BITS)
# Either half of a word, moved on by the four bytes that a word takes the place of.
_HALVES = np.arange(2**16, dtype=np.uint32)
_LOW = _applied(_moved_on(4), _HALVES)
_HIGH = _applied(_moved_on(4), _HALVES << np.uint32(16))
