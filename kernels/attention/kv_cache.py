"""Paged key-value cache, 16 positions a page, written by prefill and decode steps."""

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import ALIGNMENTS, DTYPES, alignment, kernel
from ..runtime.optional_triton import tl

PAGE_SIZE = 16  # positions in a page


def store(keys: Tensor, values: Tensor, new_keys: Tensor, new_values: Tensor, slots: Tensor) -> None:
    """Write new keys and values into the pages of the key-value cache, in place.

    Args:
        keys, values: [pages, 16, heads, head_dim], contiguous: page pool of one layer.
        new_keys, new_values: [tokens, heads, head_dim].
        slots: int64 [tokens], distinct cache positions, `page * 16 + position in the page`. A slot past the
            pool is an error on the CPU; a kernel cannot raise, and does not write that token.

    Raises:
        ValueError: shapes or dtypes that do not match, or pools that cannot be written in place.
    """
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
    _store(keys, values, new_keys, new_values, slots)


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
    tokens, width = new_keys.shape[0], keys.shape[2] * keys.shape[3]
    case = store_kernel.case(keys.device, keys.dtype, alignment(width))
    grid = case.block_count("BLOCK_M", tokens), case.block_count("BLOCK_N", width)
    case.launch(grid, keys, values, new_keys, new_values, slots, tokens, keys.shape[0] * PAGE_SIZE, width)


_store = Operation(store_reference, triton=store_triton)


@kernel(sizes=("width",), outputs=("keys_ptr", "values_ptr"))
def store_kernel(
    keys_ptr,  # [positions, width], like values
    values_ptr,
    new_keys_ptr,  # [tokens, width], like new values
    new_values_ptr,
    slots_ptr,  # int64 [tokens]
    tokens: tl.int32,
    positions: tl.int32,  # pages * 16
    width: tl.int32,  # heads * head_dim
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    slot = tl.load(slots_ptr + m, mask=m < tokens, other=-1)
    mask = ((slot >= 0) & (slot < positions))[:, None] & (n < width)[None, :]
    source = m.to(tl.int64)[:, None] * width + n[None, :]
    target = slot[:, None] * width + n[None, :]
    key = tl.load(new_keys_ptr + source, mask=mask)
    value = tl.load(new_values_ptr + source, mask=mask)
    tl.store(keys_ptr + target, key, mask=mask)
    tl.store(values_ptr + target, value, mask=mask)


# Tile sizes with which each thread moves 16 bytes of keys and as many of values in half precision.
store_kernel.declare_all(
    DTYPES, ALIGNMENTS, pointers={"slots_ptr": torch.int64}, num_stages=1, BLOCK_M=4, BLOCK_N=256
)
