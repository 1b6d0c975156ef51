"""Pages of keys and values: 16 rows each, written by a prefill or by one decode step."""

from torch import Tensor

from .dispatch import choose

PAGE_SIZE = 16  # rows of a page


def store(keys: Tensor, values: Tensor, new_keys: Tensor, new_values: Tensor, slots: Tensor) -> None:
    """Write rows into pages, in place.

    Args:
        keys, values: [pages, 16, heads, head_dim], contiguous: one layer's pool.
        new_keys, new_values: [rows, heads, head_dim].
        slots: int64 [rows], `page * 16 + row in the page`; no slot twice.

    Raises:
        ValueError: shapes that do not fit.
    """
    if (
        new_keys.shape != new_values.shape
        or new_keys.shape[1:] != keys.shape[2:]
        or keys.shape[1] != PAGE_SIZE
    ):
        raise ValueError(
            f"rows {list(new_keys.shape)} and {list(new_values.shape)} "
            f"do not fit pages of {list(keys.shape[1:])}"
        )
    choose(keys, values, new_keys, new_values, slots, reference=store_reference)(
        keys, values, new_keys, new_values, slots
    )


def store_reference(
    keys: Tensor, values: Tensor, new_keys: Tensor, new_values: Tensor, slots: Tensor
) -> None:
    """The specification, in plain torch."""
    keys.view(-1, *keys.shape[2:])[slots] = new_keys
    values.view(-1, *values.shape[2:])[slots] = new_values
