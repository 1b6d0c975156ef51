"""Attention weights of a few named heads, such as those that tell when Whisper's words occur."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import alignment, kernel
from ..runtime.optional_triton import tl
from ..runtime.packing import spans
from ..runtime.upload import upload_all
from .checks import check_packed, check_scale_and_window
from .flash import attention_weights
from .tiles import (
    LOG2_E,
    TILE_WIDTHS,
    block_table,
    check_head_dim,
    declare_heads,
    first_element,
    load_keys,
    read_block,
    tile_mask,
    tile_offsets,
)


def head_weights(
    query: Tensor,
    key: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    heads: Sequence[int],
    max_keys: int,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attention weights of named heads, `softmax(query @ key.T * scale)`, over packed sequences.

    Args:
        query: [query tokens, heads, head_dim], packed. On a GPU head_dim is at most 128.
        key: [key tokens, heads, head_dim], packed.
        cu_query, cu_key: int32 [n + 1] each, of the same n sequences; never changed in place.
        heads: numbers of the heads, from 0.
        max_keys: number of keys of the longest sequence.
        scale: positive factor of the scores; head_dim ** -0.5 by default.

    Returns:
        float32 [named heads, query tokens, max_keys]; zeros behind the last key of a query's sequence.

    Raises:
        ValueError: shapes or offsets that do not match, a head that there is not, or a scale that is not
            positive.
    """
    check_packed(query, key, key, cu_query, cu_key)
    if scale is not None:
        check_scale_and_window(scale, None, False)
    unknown = [head for head in heads if not 0 <= head < query.shape[1]]
    if unknown:
        raise ValueError(f"heads {unknown} are not among the {query.shape[1]} of a layer, counted from 0")
    return _head_weights(query, key, cu_query, cu_key, heads, max_keys, scale=scale)


def head_weights_reference(
    query: Tensor,
    key: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    heads: Sequence[int],
    max_keys: int,
    *,
    scale: float | None = None,
) -> Tensor:
    """Reference implementation of `head_weights` in plain torch, one sequence at a time; the CPU's too."""
    named = list(heads)
    weights = attention_weights(query[:, named], key[:, named], cu_query, cu_key, scale=scale)
    out = query.new_zeros(len(named), query.shape[0], max_keys, dtype=torch.float32)
    for weight, (begin, end) in zip(weights, spans(cu_query), strict=True):
        out[:, begin:end, : weight.shape[2]] = weight
    return out


def head_weights_triton(
    query: Tensor,
    key: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    heads: Sequence[int],
    max_keys: int,
    *,
    scale: float | None = None,
) -> Tensor:
    """`head_weights` by one Triton kernel launch: a program for each block of queries and each named head."""
    tokens, all_heads, head_dim = query.shape
    check_head_dim(head_dim)
    out = query.new_empty(len(heads), tokens, max_keys, dtype=torch.float32)
    if not out.numel():
        return out
    scale = head_dim**-0.5 if scale is None else scale
    case = head_weights_kernel.case(query.device, TILE_WIDTHS[head_dim], query.dtype, alignment(head_dim))
    blocks = block_table(cu_query, cu_key, tokens=tokens, block=case.constant("BLOCK_M"))
    (numbers,) = upload_all([torch.tensor(heads, dtype=torch.int32)], query.device)
    sizes = tokens, max_keys, len(heads), all_heads, head_dim
    case.launch((blocks.shape[0] * len(heads),), query, key, numbers, blocks, out, *sizes, scale * LOG2_E)
    return out


_head_weights = Operation(head_weights_reference, triton=head_weights_triton)


@kernel(sizes=("head_dim",))
def head_weights_kernel(
    query_ptr,  # [query tokens, heads, head_dim]
    key_ptr,  # [key tokens, heads, head_dim]
    numbers_ptr,  # int32 [named], the heads' numbers
    blocks_ptr,  # int32 [blocks, 4], of `query_blocks`
    out_ptr,  # float32 [named, query tokens, max_keys]
    tokens: tl.int32,  # query tokens
    max_keys: tl.int32,
    named: tl.int32,
    heads: tl.int32,
    head_dim: tl.int32,
    scale: tl.float32,  # times log2(e), for exp2, which the hardware has
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    place, first, query_end, key_begin, keys = read_block(blocks_ptr, named)
    if first >= query_end:
        return
    head = tl.load(numbers_ptr + place)

    m = first + tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    mask = tile_mask(first, query_end, head_dim, BLOCK_M, BLOCK_D)
    row = first_element(first, head, heads, head_dim)
    begin = first_element(key_begin, head, heads, head_dim)
    offsets = tile_offsets(BLOCK_M, BLOCK_D, heads, head_dim)
    query = tl.load(query_ptr + row + offsets, mask=mask, other=0.0)

    # The scores are computed twice: once for the largest and the sum, and once, against these, for the
    # weights. Writing them down in between would move four times the bytes.
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, keys, BLOCK_N):
        key = load_keys(key_ptr, begin, start, keys, heads, head_dim, BLOCK_N, BLOCK_D)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
        scores = tl.where((start + n < keys)[None, :], scores, float("-inf"))
        raised = tl.maximum(highest, tl.max(scores, 1))
        total = total * tl.exp2(highest - raised) + tl.sum(tl.exp2(scores - raised[:, None]), 1)
        highest = raised

    rows = (place.to(tl.int64) * tokens + m)[:, None] * max_keys
    for start in range(0, max_keys, BLOCK_N):
        key = load_keys(key_ptr, begin, start, keys, heads, head_dim, BLOCK_N, BLOCK_D)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
        position = (start + n)[None, :]
        weights = tl.where(position < keys, tl.exp2(scores - highest[:, None]) / total[:, None], 0.0)
        inside = (m < query_end)[:, None] & (position < max_keys)
        tl.store(out_ptr + rows + position, weights, mask=inside)


def _blocks(architecture: str, width: int, dtype: torch.dtype, alignment: str) -> dict[str, int]:
    """Tile sizes, warps and stages of a case: 64 queries, since a window has few, by 64 keys.

    float32 takes more registers, and so do the addresses of rows that are not aligned.
    """
    wide = width > 64
    if dtype == torch.float32:
        rows, keys, warps = 32, 16 if wide else 32, 8 if wide else 4
    elif alignment == "any":
        rows, keys, warps = 64, 32, 8
    else:
        rows, keys, warps = 64, 64, 8 if wide and architecture == "sm_80" else 4
    stages = 1 if architecture == "gfx942" else 2
    return {"BLOCK_M": rows, "BLOCK_N": keys, "num_warps": warps, "num_stages": stages}


declare_heads(head_weights_kernel, _blocks, numbers_ptr=torch.int32, out_ptr=torch.float32)
