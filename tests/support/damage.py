"""Damage to files: bytes and JSON values that are wrong in one to three places."""

import json
import random
import struct
from typing import Any

EXTREMES = [0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0xFFFFFF]
EXTREMES += [2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
ODD_VALUES: list[Any] = [*EXTREMES, -1, -(2**63), 10**30, 0.5, -0.5, 1e308, float("nan"), float("inf")]
ODD_VALUES += [None, True, False, "", "x", "F64", "I8", "../x", "ä\0", "9" * 5_000, "\ud800"]
ODD_VALUES += [[], {}, [[]], [0], [2**62, 2**62], {"x": 0}]


def damaged(content: bytes, header: int, other: bytes, draw: random.Random) -> bytes:
    """A file with one to three things wrong, half of the time within its first `header` bytes."""
    data = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        most = min(header, len(data)) if draw.random() < 0.5 else len(data)
        at = draw.randrange(max(most, 1))
        match draw.randrange(8):
            case 0 | 1:
                for _ in range(draw.choice([1, 1, 2, 8])):
                    if data:
                        data[min(at, len(data) - 1)] ^= 1 << draw.randrange(8)
                    at = draw.randrange(max(most, 1))
            case 2 | 3:
                size = draw.choice([1, 2, 4, 8])
                number = draw.choice(EXTREMES) % (1 << 8 * size)
                data[at : at + size] = number.to_bytes(size, draw.choice(["little", "big"]))
            case 4:
                del data[at:]
            case 5:
                del data[at : at + draw.choice([1, 2, 16, 400])]
            case 6:
                start = draw.randrange(len(data) + 1)
                data[at:at] = data[start : start + draw.choice([1, 4, 64, 2000])] * draw.choice([1, 1, 50])
            case 7:
                start = draw.randrange(max(len(other), 1))
                piece = other[start : start + draw.choice([4, 64, 2000])]
                data[at : at + len(piece)] = piece
    return bytes(data)


def with_odd_values(value: Any, draw: random.Random) -> Any:
    """A JSON value in which one part, at any depth, is another one, is gone, or is there twice."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.1:
        return draw.choice(ODD_VALUES)
    if isinstance(value, list):
        at = draw.randrange(len(value))
        return [*value[:at], with_odd_values(value[at], draw), *value[at + 1 :]]
    value = dict(value)
    name = draw.choice(list(value))
    match draw.randrange(6):
        case 0:
            value[name + "x"] = value.pop(name)
        case 1:
            del value[name]
        case _:
            value[name] = with_odd_values(value[name], draw)
    return value


def damaged_json(content: bytes, draw: random.Random) -> bytes:
    """A JSON file with one odd value."""
    return json.dumps(with_odd_values(json.loads(content), draw)).encode()


def damaged_safetensors(content: bytes, draw: random.Random) -> bytes:
    """A safetensors file with one odd value in its header."""
    size = struct.unpack("<Q", content[:8])[0]
    header = damaged_json(content[8 : 8 + size], draw)
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


def damaged_weights(content: bytes, draw: random.Random) -> bytes:
    """A safetensors file whose header is whole, with some bytes of its tensors changed."""
    start = struct.unpack("<Q", content[:8])[0] + 8
    data = bytearray(content)
    for _ in range(draw.choice([1, 1, 4, 16])):
        at = draw.randrange(start, len(data))
        size = draw.choice([1, 1, 1, 4])
        data[at : at + size] = draw.choice([b"\xff", b"\x7f", b"\0", draw.randbytes(1)]) * size
    return bytes(data[: len(content)])
