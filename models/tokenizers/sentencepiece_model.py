"""Reader of SentencePiece model files: pieces with scores, and normalization rules."""

import struct
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints import contents
from ..checkpoints.contents import check_file
from ..checkpoints.protobuf import as_bytes, as_int, read_fields
from .charsmap import check_charsmap

# Field numbers in sentencepiece_model.proto.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _KIND = 1, 2, 3
_UNKNOWN_ID = 40
_CHARSMAP = 2
_NORMAL = 1


@dataclass(frozen=True)
class SentencePieceModel:
    """Vocabulary and normalization rules of a SentencePiece model.

    Args:
        pieces: (piece, score) in id order; a unigram model's scores are log-probabilities.
        kinds: kind of each piece: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
        unknown_id: id of the unknown piece.
        charsmap: precompiled normalization rules; None if the file has none.
    """

    pieces: tuple[tuple[str, float], ...]
    kinds: tuple[int, ...]
    unknown_id: int
    charsmap: bytes | None


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a SentencePiece model file (`sentencepiece.bpe.model`, `spiece.model`).

    It parses the protocol buffer itself, as the sentencepiece library returns neither kinds nor rules.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not a SentencePiece model, or larger than `contents.MAX_JSON_BYTES`.
    """
    check_file(path, contents.MAX_JSON_BYTES)
    pieces: list[tuple[str, float]] = []
    kinds: list[int] = []
    unknown_id, charsmap = 0, None
    try:
        for field, value in read_fields(path.read_bytes()):
            if field == _PIECES:
                piece = dict(read_fields(as_bytes(value)))
                (score,) = struct.unpack("<f", as_bytes(piece.get(_SCORE, bytes(4))))
                pieces.append((as_bytes(piece.get(_PIECE, b"")).decode("utf-8"), score))
                kinds.append(as_int(piece.get(_KIND, _NORMAL)))
            elif field == _TRAINER:
                unknown_id = as_int(dict(read_fields(as_bytes(value))).get(_UNKNOWN_ID, 0))
            elif field == _NORMALIZER:
                charsmap = as_bytes(dict(read_fields(as_bytes(value))).get(_CHARSMAP, b"")) or None
        if not pieces:
            raise ValueError("it has no pieces")
        if charsmap is not None:
            check_charsmap(charsmap)
    except (ValueError, struct.error) as error:
        raise ValueError(f"{path} is not a SentencePiece model: {error}") from None
    return SentencePieceModel(tuple(pieces), tuple(kinds), unknown_id, charsmap)
