"""Byte-pair vocabulary of a CTranslate2 folder: the list of its tokens, from which the merges follow."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ..checkpoints import contents
from ..checkpoints.contents import check_file
from ..checkpoints.files import Checkpoint
from ..core.field_types import shown
from ..tokenizers.options import AddedToken, is_text

VOCABULARY_FILES = ("vocabulary.json", "vocabulary.txt")
END_OF_TEXT = "<|endoftext|>"

_MAX_TOKENS = 200_000
_MAX_TOKEN_LENGTH = 256  # twice that of the longest one, of 128 spaces


def find_vocabulary_list(checkpoint: Checkpoint) -> Path | None:
    """Path of a checkpoint's vocabulary.json or vocabulary.txt; None where it has neither."""
    found = (checkpoint.find(name) for name in VOCABULARY_FILES)
    return next((path for path in found if path is not None), None)


def read_vocabulary_list(path: Path) -> list[str]:
    """Read the tokens of a vocabulary in the order of their ids.

    Args:
        path: path of a JSON list of tokens, or of a text file with a token in each line.

    Raises:
        ValueError: another file, one without <|endoftext|>, or with a token twice.
    """
    check_file(path, contents.MAX_JSON_BYTES)
    try:
        written = path.read_text(encoding="utf-8")
        tokens = json.loads(written) if path.suffix == ".json" else written.removesuffix("\n").split("\n")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as a list of tokens: {shown(str(error))}") from None
    if isinstance(tokens, list) and len(tokens) > _MAX_TOKENS:
        raise ValueError(f"{path} has {len(tokens)} tokens, and {_MAX_TOKENS} are the most")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ValueError(f"{path} must be a list of tokens, it has {shown(tokens)}")
    ids = {token: index for index, token in enumerate(tokens)}
    for index, token in enumerate(tokens):
        if ids[token] != index or len(token) > _MAX_TOKEN_LENGTH or not is_text(token):
            raise ValueError(
                f"{path} has {shown(token)} as token {index}, which is there twice, is over "
                f"{_MAX_TOKEN_LENGTH} characters long or is no text; convert the model again"
            )
    if END_OF_TEXT not in ids:
        raise ValueError(f"{path} has no {END_OF_TEXT}, so it is not of Whisper; put a tokenizer.json there")
    return tokens


def byte_pairs(tokens: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE model whose tokens are numbered in the order of the merges.

    Args:
        tokens: all tokens by id; those from <|endoftext|> on are special.

    Raises:
        ValueError: a token that is no merge of two earlier ones.
    """
    count = list(tokens).index(END_OF_TEXT)
    ids = {token: index for index, token in enumerate(tokens[:count])}
    merges = [_last_merge(token, index, ids) for index, token in enumerate(tokens[:count]) if len(token) > 1]
    return ids | {END_OF_TEXT: count}, merges


def special_tokens(tokens: Sequence[str]) -> dict[int, AddedToken]:
    """Special tokens and times of a vocabulary by id: those from <|endoftext|> on."""
    first = list(tokens).index(END_OF_TEXT)
    return {
        index: AddedToken(token, normalized=_is_time(token), special=not _is_time(token))
        for index, token in enumerate(tokens[first:], first)
    }


def _is_time(token: str) -> bool:
    return token[2:3].isdigit()


def _last_merge(token: str, index: int, ids: dict[str, int]) -> tuple[str, str]:
    """Two parts that earlier merges leave of a token, which its own merge joins."""
    parts = list(token)
    while len(parts) > 2:
        joined = [ids.get(first + second, index) for first, second in pairwise(parts)]
        best = min(joined)
        if best >= index:
            break
        at = joined.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    if len(parts) != 2 or not all(ids.get(part, index) < index for part in parts):
        raise ValueError(
            f"token {index}, {shown(token)}, is no merge of two tokens before it; put a tokenizer.json there"
        )
    return parts[0], parts[1]
