"""Parts shared by the attention kernels over packed sequences: tile schedule, cases, launch and tile code.

A program takes one block of a sequence's queries and one head, and goes through the keys block by block in
FlashAttention-2's order (Dao, arXiv 2307.08691).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..runtime.launch import ALIGNMENTS, DTYPES, Kernel, alignment
from ..runtime.optional_triton import tl, triton
from ..runtime.packing import index_table
from ..runtime.weight_cache import cached

MAX_HEAD_DIM = 128  # the accumulators of wider heads leave no room for blocks this large
NO_WINDOW = 2**30  # a window of more keys than there are
# Width of the tiles by head_dim, a power of two.
_WIDTHS = tuple(max(16, 1 << max(width - 1, 0).bit_length()) for width in range(MAX_HEAD_DIM + 1))
LOG2_E = math.log2(math.e)  # scales scores for exp2, which the hardware has


def launch_heads(
    kernel: Kernel,
    query: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    operands: tuple[Tensor | None, ...],
    *numbers: float,
) -> Tensor:
    """Attention of packed queries by one kernel launch, a program for each block of queries and each head.

    Args:
        kernel: kernel declared by `declare_heads`; its parameters are query, `operands`, the table of query
            blocks, the output, heads, head_dim and `numbers`, in this order.
        query: [query tokens, heads, head_dim], packed.
        cu_query, cu_key: int32 [n + 1] each, offsets of queries and of keys.
        operands: tensors for the other pointers; None where the kernel reads nothing.
        numbers: values of the remaining parameters.

    Returns:
        [query tokens, heads, head_dim].

    Raises:
        ValueError: heads wider than `MAX_HEAD_DIM`.
    """
    tokens, heads, head_dim = query.shape
    if head_dim > MAX_HEAD_DIM:
        raise ValueError(f"attention on a GPU takes heads of at most {MAX_HEAD_DIM}, got {head_dim}")
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    if not out.numel():
        return out
    case = kernel.case(query.device, _WIDTHS[head_dim], query.dtype, alignment(head_dim))
    # All layers of a model share a few tables of blocks, one for self-attention and one for cross-attention,
    # and making one takes about 15 small launches.
    offsets = (cu_query,) if cu_key is cu_query else (cu_query, cu_key)
    blocks = cached(_query_blocks, *offsets, tokens=tokens, block=case.constant("BLOCK_M"))
    grid = (blocks.shape[0] * heads,)
    case.launch(grid, query, *operands, blocks, out, heads, head_dim, *numbers)
    return out


def _query_blocks(cu_query: Tensor, cu_key: Tensor | None = None, **options: int) -> Tensor:
    return index_table(query_blocks, cu_query, cu_query if cu_key is None else cu_key, **options)


def query_blocks(cu_query: Tensor, cu_key: Tensor, *, tokens: int, block: int) -> Tensor:
    """Tile schedule of an attention launch: table of query blocks, made without waiting for the device.

    A program that looked for its sequence itself, among 1,024, would begin with ten loads that wait for one
    another: as long as its work on 300 keys. Blocks with the most keys come first, and within a sequence the
    last block, which sees the most keys when causal, so that a launch ends with its shortest programs.

    Args:
        cu_query, cu_key: int32 [n + 1], offsets of queries and of keys, n at least 1.
        tokens: number of queries.
        block: number of queries in a block.

    Returns:
        int32 [bound, 4]: first query, end of the sequence's queries, first and end of its keys. The bound
        is the most blocks that `tokens` queries of n sequences can need; unused blocks are all 0.
    """
    sequences = cu_query.numel() - 1
    bound = (tokens + sequences * (block - 1)) // block
    order = cu_key.diff().argsort(descending=True, stable=True)
    counts = (cu_query.diff()[order] + block - 1) // block
    ends = counts.cumsum(0)
    number = torch.arange(bound, device=ends.device)
    rank = torch.searchsorted(ends, number, right=True)
    needed = (rank < sequences)[:, None]
    rank = rank.clamp(max=sequences - 1)
    sequence = order[rank]
    columns = [
        cu_query[sequence] + (ends[rank] - 1 - number) * block,
        cu_query[sequence + 1],
        cu_key[sequence],
        cu_key[sequence + 1],
    ]
    return torch.where(needed, torch.stack(columns, 1), 0).int()


def declare_heads(
    kernel: Kernel,
    blocks: Callable[[str, int, torch.dtype, str], dict[str, int]],
    **others: torch.dtype,
) -> None:
    """Declare an attention kernel's cases, one for each head width, dtype and alignment.

    Optional terms need no cases of their own: they are run-time flags, read once a block.

    Args:
        kernel: kernel with the constants PRECISION and BLOCK_D.
        blocks: function from architecture, width, dtype and alignment to the other constants.
        others: element types of pointers, besides the table of blocks, that differ from the inputs' dtype.
    """
    pointers = others | {"blocks_ptr": torch.int32}
    for width in (16, 32, 64, MAX_HEAD_DIM):
        kernel.declare_all((width,), DTYPES, ALIGNMENTS, pointers=pointers, blocks=blocks, BLOCK_D=width)


@triton.jit
def read_block(blocks_ptr, heads):
    """Head and query block of this program: head, first query, end of queries, first key, number of keys."""
    block = blocks_ptr + tl.program_id(0) // heads * 4
    head = tl.program_id(0) % heads
    first, query_end = tl.load(block), tl.load(block + 1)
    key_begin, key_end = tl.load(block + 2), tl.load(block + 3)
    return head, first, query_end, key_begin, key_end - key_begin


@triton.jit
def tile_offsets(BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, heads, head_dim):
    """Offsets [BLOCK, BLOCK_D] of a tile's elements from its first, in a tensor [tokens, heads, head_dim]."""
    return tl.arange(0, BLOCK)[:, None] * (heads * head_dim) + tl.arange(0, BLOCK_D)[None, :]


@triton.jit
def tile_mask(first, end, head_dim, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr):
    """Mask [BLOCK, BLOCK_D] of a tile from row `first` on: rows before `end`, columns below head_dim."""
    return (first + tl.arange(0, BLOCK) < end)[:, None] & (tl.arange(0, BLOCK_D) < head_dim)[None, :]


@triton.jit
def first_element(row, head, heads, head_dim):
    """Offset, int64, of the first element of one row and head in a tensor [tokens, heads, head_dim]."""
    return (row.to(tl.int64) * heads + head) * head_dim


@triton.jit
def load_keys(pointer, begin, start, keys, heads, head_dim, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """Load a tile [BLOCK_N, BLOCK_D] of a sequence's keys or values from row `start`; zeros past the last.

    `keys` is the number of the sequence's rows, `begin` the offset of its first element.
    """
    rows = begin + start * (heads * head_dim).to(tl.int64)
    mask = tile_mask(start, keys, head_dim, BLOCK_N, BLOCK_D)
    return tl.load(pointer + rows + tile_offsets(BLOCK_N, BLOCK_D, heads, head_dim), mask=mask, other=0.0)


@triton.jit
def softmax_begin(BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr):
    """Initial state of the online softmax: largest score, sum of weights, sum of weighted values."""
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    return highest, tl.zeros((BLOCK_M,), tl.float32), tl.zeros((BLOCK_M, BLOCK_D), tl.float32)


@triton.jit
def softmax_step(scores, scale, highest, total, mixed, MAY_SEE_NONE: tl.constexpr):
    """Update the online softmax (Milakov and Gimelshein, arXiv 1805.02867) by one block of keys.

    Args:
        scores: [BLOCK_M, BLOCK_N], -inf where hidden; times `scale`, they are exponents of 2.
        highest, total, mixed: state so far: largest exponent, sum of weights, sum of weighted values.
        MAY_SEE_NONE: true if a query may have seen no key yet.

    Returns:
        Weights of these keys, and the new state, to whose `mixed` their weighted values remain to be added.
    """
    raised = tl.maximum(highest, tl.max(scores, 1) * scale)
    shift = raised
    if MAY_SEE_NONE:  # -inf - -inf would be NaN
        shift = tl.where(raised == float("-inf"), 0.0, raised)
    weights = tl.exp2(scores * scale - shift[:, None])
    decay = tl.exp2(highest - shift)
    return weights, raised, total * decay + tl.sum(weights, 1), mixed * decay[:, None]


@triton.jit
def softmax_store(pointers, mask, total, mixed, MAY_SEE_NONE: tl.constexpr):
    """Store the attention output, `mixed / total`; zeros for a query that sees no key."""
    if MAY_SEE_NONE:
        total = tl.where(total == 0.0, 1.0, total)
    tl.store(pointers, (mixed / total[:, None]).to(pointers.dtype.element_ty), mask=mask)
