"""Check of precompiled normalization rules, on whose damage the libraries that apply them crash."""

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import numpy as np

MAX_DEPTH = 512  # bytes of the longest text that a rule replaces; real ones have about twenty
_LABEL = 0x800000FF
_BLOCK = 255  # a node's children differ from its place in these bits


def check_charsmap(charsmap: bytes) -> None:
    """Check that every text leads inside the rules: a double-array trie and the texts that its leaves name.

    The trie is as in https://github.com/s-yata/darts-clone; neither SentencePiece nor `tokenizers` checks it,
    and a step or leaf outside ends the process or the thread.

    Raises:
        ValueError: damaged rules.
    """
    size = int.from_bytes(charsmap[:4], "little")
    if len(charsmap) < 4 or size % 4 or size > len(charsmap) - 4:
        raise ValueError(f"its normalization rules are damaged: a trie of {size} bytes in {len(charsmap)}")
    units = np.frombuffer(charsmap, "<u4", size // 4, 4).astype(np.int64)
    texts = charsmap[4 + size :]
    places = np.arange(len(units))
    labels, parents = units & _LABEL, places ^ (units & 255)
    targets = places ^ ((units >> 10) << ((units & 512) >> 6))
    has_label = (labels < 256) & (labels > 0)
    reached = np.zeros(len(units), bool)  # nodes, by the place from which their children's differ
    new = targets[:1]
    for _ in range(MAX_DEPTH):
        if len(new) == 0 or (new | _BLOCK).max() >= len(units):
            break
        reached[new] = True
        steps = np.flatnonzero(has_label & reached[np.minimum(parents, len(units) - 1)])
        leaves = targets[steps[(units[steps] >> 8 & 1).astype(bool)]]
        if (leaves >= len(units)).any() or not _are_starts(units[leaves] & 0x7FFFFFFF, texts):
            break
        new = np.unique(targets[steps])
        new = new[(new >= len(units)) | ~reached[np.minimum(new, len(units) - 1)]]
    if len(new) or not reached.any():
        raise ValueError("its normalization rules are damaged: they lead outside their tables")


def check_normalizer(normalizer: Any) -> None:
    """Check all precompiled rules in the "normalizer" of a tokenizer.json; ValueError if any are damaged."""
    for written in _precompiled(normalizer):
        try:
            check_charsmap(base64.b64decode(written))
        except (TypeError, binascii.Error) as error:
            raise ValueError(f"its normalization rules are no base64: {error}") from None


def _precompiled(normalizer: Any) -> Iterator[Any]:
    if not isinstance(normalizer, dict):
        return
    if normalizer.get("type") == "Precompiled" and normalizer.get("precompiled_charsmap"):
        yield normalizer["precompiled_charsmap"]
    inner = normalizer.get("normalizers")
    for step in inner if isinstance(inner, list) else ():
        yield from _precompiled(step)


def _are_starts(indices: np.ndarray, texts: bytes) -> bool:
    """True where all indices lie inside the texts, or at their end, and between characters of UTF-8."""
    if (indices > len(texts)).any():
        return False
    padded = np.frombuffer(texts + b"\0", np.uint8)
    return bool(((padded[indices] & 0xC0) != 0x80).all())
