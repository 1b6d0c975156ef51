"""What feature extractors and tokenizers return: rows of differing lengths, padded and stacked on request."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class BatchFeature(dict[str, Any]):
    """What processors return: a dict whose items are attributes as well, so that `model(**batch)` works."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"this batch has no {name!r}; it has: {', '.join(self) or 'nothing'}"
            ) from None

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> "BatchFeature":
        """Move its tensors to `device`, and those of floating point to `dtype`; returns itself."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        for name, value in self.items():
            if isinstance(value, Tensor):
                self[name] = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
        return self


def round_up(length: int, multiple: int | None) -> int:
    """The least multiple of `multiple` that is not below `length`."""
    return length if multiple is None else -(-length // multiple) * multiple


def padded_length(
    lengths: Sequence[int], padding: bool | str, max_length: int | None, multiple: int | None
) -> int:
    """What the rows of a batch are padded to; 0 for not at all."""
    one_of("padding", padding, (True, "longest", "max_length", False, "do_not_pad"))
    if padding == "max_length":
        return round_up(max_length or 0, multiple)
    return round_up(max(lengths, default=0), multiple) if padding in (True, "longest") else 0


def stack(rows: Sequence[Any], kind: str) -> Any:
    """Rows in one array ("np") or tensor ("pt") [batch, length, ...]; ValueError if their lengths differ."""
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1:
        raise ValueError(
            f"rows of lengths {lengths} make no tensor; set padding=True, or truncation=True too"
        )
    array = np.stack([np.asarray(row) for row in rows])
    return torch.from_numpy(array) if kind == "pt" else array


def column(batch: Any, name: str) -> list[Any]:
    """One field of a batch: of a dict of lists, or of a list of dicts.

    Raises:
        ValueError: it does not have the field.
    """
    has = isinstance(batch, dict) and name in batch
    if not has and not (isinstance(batch, list | tuple) and all(name in one for one in batch) and batch):
        raise ValueError(f"give a dict with a list of {name}, or a list of dicts with {name}")
    return list(batch[name]) if isinstance(batch, dict) else [one[name] for one in batch]


def one_of(name: str, value: Any, accepted: tuple[Any, ...]) -> Any:
    """`value`, or a ValueError if it is not among the accepted ones."""
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}; got {value!r}")
    return value
