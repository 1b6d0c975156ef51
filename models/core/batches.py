"""Padded batches, the outputs of feature extractors and tokenizers, and checks of their inputs."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .field_types import shown


class BatchFeature(dict[str, Any]):
    """Output of a processor: a dict for `model(**batch)` whose items are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"this batch has no {name!r}; it has: {', '.join(self) or 'nothing'}"
            ) from None

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> "BatchFeature":
        """Move the batch's tensors to `device`, and floating-point ones to `dtype`; returns the batch."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        for name, value in self.items():
            if isinstance(value, Tensor):
                self[name] = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
        return self


def round_up(length: int, multiple: int | None) -> int:
    """Length rounded up to a multiple of `multiple`; unchanged for None."""
    return length if multiple is None else -(-length // multiple) * multiple


def padded_length(
    lengths: Sequence[int], padding: bool | str, max_length: int | None, multiple: int | None
) -> int:
    """Length to which a batch is padded, a multiple of `multiple`; 0 without padding.

    Raises:
        ValueError: an unknown `padding`.
    """
    one_of("padding", padding, (True, "longest", "max_length", False, "do_not_pad"))
    if padding == "max_length":
        return round_up(max_length or 0, multiple)
    return round_up(max(lengths, default=0), multiple) if padding in (True, "longest") else 0


def stack(rows: Sequence[Any], kind: str) -> Any:
    """Stack rows to an array ("np") or tensor ("pt") [batch, length, ...]; ValueError if lengths differ."""
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1:
        raise ValueError(
            f"rows of lengths {lengths} make no tensor; set padding=True, or truncation=True too"
        )
    array = np.stack([np.asarray(row) for row in rows])
    return torch.from_numpy(array) if kind == "pt" else array


def column(batch: Any, name: str) -> list[Any]:
    """Values of one field of a batch, which is a dict of lists or a list of dicts.

    Raises:
        ValueError: a batch without the field.
    """
    has = isinstance(batch, dict) and name in batch
    if not has and not (isinstance(batch, list | tuple) and all(name in one for one in batch) and batch):
        raise ValueError(f"give a dict with a list of {name}, or a list of dicts with {name}")
    return list(batch[name]) if isinstance(batch, dict) else [one[name] for one in batch]


def one_of(name: str, value: Any, accepted: tuple[Any, ...]) -> Any:
    """Check that the argument `name` has an accepted value, and return it; ValueError otherwise."""
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}; got {shown(value)}")
    return value


def as_list(token_ids: Any) -> Any:
    """Convert token ids of an array or tensor to Python integers; others are returned unchanged."""
    return token_ids.tolist() if isinstance(token_ids, (torch.Tensor, np.ndarray)) else token_ids


def is_batch(token_ids: Any) -> bool:
    """True for a non-empty batch of token id sequences; False for one sequence or a single id."""
    if isinstance(token_ids, int) or not len(token_ids) or isinstance(token_ids[0], int):
        return False
    return np.ndim(token_ids[0]) > 0


def pairs(text: Any, text_pair: Any) -> Iterator[tuple[str, str | None]]:
    """Iterate over the texts of a batch as pairs (text, second text or None).

    Raises:
        ValueError: an entry that is not a string, or numbers of texts and second texts that differ.
    """
    texts = text if isinstance(text, Sequence) and not isinstance(text, str) else [text]
    if text_pair is None:
        seconds: Sequence[Any] = [None] * len(texts)
    else:
        seconds = [text_pair] if isinstance(text_pair, str) else text_pair
    if len(seconds) != len(texts):
        raise ValueError(f"{len(texts)} texts and {len(seconds)} second ones; give as many of each")
    for first, second in zip(texts, seconds, strict=True):
        if isinstance(first, (tuple, list)) and len(first) == 2 and second is None:
            first, second = first
        for one in (first, second):
            if not isinstance(one, str) and (one is not None or one is first):
                raise ValueError(f"text must be a string, got {type(one).__name__}")
        yield first, second
