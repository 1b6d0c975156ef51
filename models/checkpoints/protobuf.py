"""Parser of protocol buffers without their schema: the fields of a message by number.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a message: unsigned integers, or bytes (text, message, fixed width).

    Raises:
        ValueError: the bytes are no message.
    """
    at, end = 0, len(message)
    while at < end:
        key, at = read_varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            number, at = read_varint(message, at)
            yield key >> 3, number
            continue
        if kind == _BYTES:
            length, at = read_varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a message has a field of kind {kind} at byte {at}")
        if at + length > end:
            raise ValueError(f"a message ends too early, within a field of {length} bytes")
        yield key >> 3, message[at : at + length]
        at += length


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Decode a varint, a 64-bit integer in groups of seven bits, lowest first; also returns its end.

    Raises:
        ValueError: the data ends within it, or it has over ten bytes.
    """
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends too early, within a number")
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number & (1 << 64) - 1, at
    raise ValueError(f"a number has no end within ten bytes, before byte {at}")


def as_bytes(value: int | bytes) -> bytes:
    """Bytes of a text or message field; ValueError if it is an integer."""
    if not isinstance(value, bytes):
        raise ValueError(f"a message has the number {value} where text or a message should be")
    return value


def as_int(value: int | bytes) -> int:
    """Signed 64-bit integer of a field; ValueError if it is text or a message."""
    if not isinstance(value, int):
        raise ValueError(f"a message has {len(value)} bytes where a number should be")
    return value - (1 << 64) if value >> 63 else value
