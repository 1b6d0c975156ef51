"""Paged key-value cache, 16 positions a page, written by prefill and decode steps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import ALIGNMENTS, DTYPES, alignment, kernel
from ..runtime.optional_triton import tl

PAGE_SIZE = 16  # positions in a page


def store(keys: Tensor, values: Tensor, new_keys: Tensor, new_values: Tensor, slots: Tensor) -> None:
    """Write new keys and values of one layer into the pages of the key-value cache, in place.

    Args:
        keys, values: [pages, 16, heads, head_dim], contiguous: page pool of one layer.
        new_keys, new_values: [tokens, heads, head_dim].
        slots: int64 [tokens], distinct cache positions, `page * 16 + position in the page`. A slot past the
            pool is an error on the CPU; a kernel cannot raise, and does not write that token.

    Raises:
        ValueError: shapes or dtypes that do not match, or pools that cannot be written in place.
    """
    _check(keys, values, new_keys, new_values, slots)
    _store(keys, values, new_keys, new_values, slots)


def store_layers(keys: Tensor, values: Tensor, rows: Sequence[tuple[Tensor, Tensor]], slots: Tensor) -> None:
    """Write new keys and values of all layers as `store` does, on a GPU in one launch where they allow it.

    Args:
        keys, values: [layers, pages, 16, heads, head_dim], contiguous.
        rows: new keys and values of each layer. For one launch they lie one after the other in memory, keys
            and values in turn, as the parts of `joined_linear` do.
        slots: as in `store`.

    Raises:
        ValueError: as `store`.
    """
    for layer, (new_keys, new_values) in enumerate(rows):
        _check(keys[layer], values[layer], new_keys, new_values, slots)
    if rows:
        _store_layers(keys, values, slots, *[part for pair in rows for part in pair])


def _check(keys: Tensor, values: Tensor, new_keys: Tensor, new_values: Tensor, slots: Tensor) -> None:
    if (
        keys.shape != values.shape
        or new_keys.shape != new_values.shape
        or new_keys.shape[1:] != keys.shape[2:]
        or keys.shape[1] != PAGE_SIZE
    ):
        raise ValueError(
            f"rows {list(new_keys.shape)} and {list(new_values.shape)} "
            f"do not fit pages of {list(keys.shape[1:])}"
        )
    if slots.shape != new_keys.shape[:1]:
        raise ValueError(f"{new_keys.shape[0]} rows need as many slots, got {list(slots.shape)}")
    if len({tensor.dtype for tensor in (keys, values, new_keys, new_values)}) > 1:
        raise ValueError(
            f"rows of {new_keys.dtype} and {new_values.dtype} do not fit pages of {keys.dtype} and "
            f"{values.dtype}; convert them with .to(dtype)"
        )
    check_pools(keys, values)


def check_pools(*pools: Tensor) -> None:
    """Validate page pools that a kernel reads or writes in place.

    A page takes a multiple of 32 bytes, so all pages, and layers of a cache, begin at a multiple of 16 bytes
    if the first does, as torch allocates it.

    Raises:
        ValueError: a pool that is not contiguous, or not at a multiple of 16 bytes.
    """
    for pool in pools:
        if not pool.is_contiguous() or pool.data_ptr() & 15:
            raise ValueError(
                f"a pool must be contiguous and begin at a multiple of 16 bytes; this one, "
                f"{list(pool.shape)}, has strides {pool.stride()} and begins {pool.data_ptr() % 16} bytes "
                "past one: take a layer of a whole cache"
            )


def store_reference(
    keys: Tensor, values: Tensor, new_keys: Tensor, new_values: Tensor, slots: Tensor
) -> None:
    """Reference implementation of `store` in plain torch."""
    keys.view(-1, *keys.shape[2:])[slots] = new_keys
    values.view(-1, *values.shape[2:])[slots] = new_values


def store_triton(keys: Tensor, values: Tensor, new_keys: Tensor, new_values: Tensor, slots: Tensor) -> None:
    """`store` by one Triton kernel launch for keys and values."""
    _launch(keys[None], values[None], new_keys, new_values, slots, 1)


def store_layers_reference(keys: Tensor, values: Tensor, slots: Tensor, *parts: Tensor) -> None:
    """Reference implementation of `store_layers`, with new keys and values of all layers in turn."""
    for layer, (new_keys, new_values) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        store_reference(keys[layer], values[layer], new_keys, new_values, slots)


def store_layers_triton(keys: Tensor, values: Tensor, slots: Tensor, *parts: Tensor) -> None:
    """`store_layers` by one launch where the parts lie one after the other, else by one for each layer."""
    joined = _joined(parts)
    if joined is not None:
        # A layer's keys are followed by its values, these by the next layer's keys.
        _launch(keys[: len(parts) // 2], values, joined, joined[1:], slots, 2)
        return
    for layer, (new_keys, new_values) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        store_triton(keys[layer], values[layer], new_keys, new_values, slots)


def _joined(parts: Sequence[Tensor]) -> Tensor | None:
    """Tensor [parts, ...] over parts of one shape that lie one after the other in memory; None otherwise."""
    first, size = parts[0], parts[0].numel() * parts[0].itemsize
    start = first.untyped_storage().data_ptr()
    for index, part in enumerate(parts):
        if part.untyped_storage().data_ptr() != start or part.data_ptr() != first.data_ptr() + index * size:
            return None
        if part.shape != first.shape or not part.is_contiguous():
            return None
    return first.as_strided((len(parts), *first.shape), (first.numel(), *first.stride()))


def _launch(
    keys: Tensor, values: Tensor, new_keys: Tensor, new_values: Tensor, slots: Tensor, step: int
) -> None:
    (layers, pages), width, tokens = keys.shape[:2], keys.shape[3] * keys.shape[4], len(slots)
    case = store_kernel.case(keys.device, keys.dtype, alignment(width))
    grid = case.block_count("BLOCK_M", tokens), case.block_count("BLOCK_N", width), layers
    numbers = tokens, pages * PAGE_SIZE, width, step
    case.launch(grid, keys, values, new_keys, new_values, slots, *numbers)


_store = Operation(store_reference, triton=store_triton)
_store_layers = Operation(store_layers_reference, triton=store_layers_triton)


@kernel(sizes=("width",), outputs=("keys_ptr", "values_ptr"))
def store_kernel(
    keys_ptr,  # [layers, positions, width], like values
    values_ptr,
    new_keys_ptr,  # [tokens, width] of each layer, like new values
    new_values_ptr,
    slots_ptr,  # int64 [tokens]
    tokens: tl.int32,
    positions: tl.int32,  # pages * 16
    width: tl.int32,  # heads * head_dim
    step: tl.int32,  # tables of new rows from a layer to the next one
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    slot = tl.load(slots_ptr + m, mask=m < tokens, other=-1)
    mask = ((slot >= 0) & (slot < positions))[:, None] & (n < width)[None, :]
    layer = tl.program_id(2).to(tl.int64)
    source = (layer * step * tokens + m)[:, None] * width + n[None, :]
    target = (layer * positions + slot)[:, None] * width + n[None, :]
    key = tl.load(new_keys_ptr + source, mask=mask)
    value = tl.load(new_values_ptr + source, mask=mask)
    tl.store(keys_ptr + target, key, mask=mask)
    tl.store(values_ptr + target, value, mask=mask)


# Tile sizes with which each thread moves 16 bytes of keys and as many of values in half precision.
store_kernel.declare_all(
    DTYPES, ALIGNMENTS, pointers={"slots_ptr": torch.int64}, num_stages=1, BLOCK_M=4, BLOCK_N=256
)
