"""What a SentencePiece model's file holds: its pieces with their scores, and how it normalizes text."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.files import MOST_JSON

# Fields of sentencepiece_model.proto.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _KIND = 1, 2, 3
_UNKNOWN_ID = 40
_CHARSMAP = 2
_NORMAL = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class SentencePieceModel:
    """A model's vocabulary.

    Args:
        pieces: each with its score (a log-probability of a unigram model), in the order of their ids.
        kinds: of each piece: 1 normal, 2 unknown, 3 control, 4 defined by the user, 5 unused, 6 a byte.
        unknown_id: the unknown piece's id.
        charsmap: compiled rules of normalization; None where there are none.
    """

    pieces: tuple[tuple[str, float], ...]
    kinds: tuple[int, ...]
    unknown_id: int
    charsmap: bytes | None


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a SentencePiece model's file (`sentencepiece.bpe.model`, `spiece.model`).

    The sentencepiece library reads it too, but tells neither kinds nor rules; they are protocol buffers.

    Raises:
        OSError: it cannot be read.
        ValueError: not such a file, or larger than `MOST_JSON`.
    """
    if path.stat().st_size > MOST_JSON:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than the {MOST_JSON} that are read")
    pieces: list[tuple[str, float]] = []
    kinds: list[int] = []
    unknown_id, charsmap = 0, None
    try:
        for field, value in _fields(path.read_bytes()):
            if field == _PIECES:
                piece = dict(_fields(_bytes(value)))
                (score,) = struct.unpack("<f", _bytes(piece.get(_SCORE, bytes(4))))
                pieces.append((_bytes(piece.get(_PIECE, b"")).decode("utf-8"), score))
                kinds.append(_number(piece.get(_KIND, _NORMAL)))
            elif field == _TRAINER:
                unknown_id = _number(dict(_fields(_bytes(value))).get(_UNKNOWN_ID, 0))
            elif field == _NORMALIZER:
                charsmap = _bytes(dict(_fields(_bytes(value))).get(_CHARSMAP, b"")) or None
        if not pieces:
            raise ValueError("it has no pieces")
    except (ValueError, struct.error) as error:
        raise ValueError(f"{path} is not a SentencePiece model: {error}") from None
    return SentencePieceModel(tuple(pieces), tuple(kinds), unknown_id, charsmap)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protocol buffer: a number, or the bytes of what else it is."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            number, at = _varint(message, at)
            yield key >> 3, number
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field of the unknown kind {kind} at byte {at}")
        if at + length > end:
            raise ValueError(f"it ends within a field of {length} bytes")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where what follows it begins."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it ends within a number")
        byte = message[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError(f"a number of more than ten bytes before byte {at}")


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"a number, {value}, where text or a message belongs")
    return value


def _number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{len(value)} bytes where a number belongs")
    return value
