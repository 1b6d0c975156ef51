"""Snappy's raw format, which TensorFlow may compress the blocks of an index with.

Source: https://github.com/google/snappy/blob/main/format_description.txt
"""

# Bytes out for a byte in, at most: a copy of 64 takes three bytes.
_MOST_RATIO = 22


def decompress(data: bytes, most: int) -> bytes:
    """The bytes that were compressed.

    Args:
        data: one block.
        most: bytes that they may be.

    Raises:
        ValueError: damaged, or larger than `most`.
    """
    length, at = _length(data)
    if length > most or length > _MOST_RATIO * len(data):
        raise ValueError(f"{len(data)} compressed bytes say that they are {length}")
    out = bytearray()
    while at < len(data):
        tag, kind = data[at] >> 2, data[at] & 3
        at += 1
        if kind == 0:  # the bytes themselves
            extra = max(tag - 59, 0)  # bytes that the length takes
            size = 1 + (int.from_bytes(data[at : at + extra], "little") if extra else tag)
            at += extra
            if at + size > len(data):
                raise ValueError("compressed bytes end too early")
            out += data[at : at + size]
            at += size
        else:  # a copy of what came before
            extra = (1, 2, 4)[kind - 1]
            distance = int.from_bytes(data[at : at + extra], "little")
            size = tag + 1
            if kind == 1:
                distance |= tag >> 3 << 8
                size = (tag & 7) + 4
            at += extra
            if at > len(data) or not 0 < distance <= len(out):
                raise ValueError("compressed bytes refer to what is not there")
            start = len(out) - distance
            piece = bytes(out[start : start + size])
            out += (piece * (size // len(piece) + 1))[:size]  # a copy may run into itself
        if len(out) > length:
            raise ValueError("compressed bytes are more than they say")
    if len(out) != length:
        raise ValueError("compressed bytes are fewer than they say")
    return bytes(out)


def _length(data: bytes) -> tuple[int, int]:
    """The length that a block begins with, and where that ends."""
    number = 0
    for at, byte in enumerate(data[:5]):
        number |= (byte & 127) << 7 * at
        if byte < 128:
            return number, at + 1
    raise ValueError("compressed bytes begin without their length")
