"""The kernel of `relative_attention`: products with distances' keys, read along diagonals tile by tile."""

import torch
from torch import Tensor

from ..runtime.launch import kernel
from ..runtime.optional_triton import tl
from .tiles import (
    LOG2_E,
    NO_WINDOW,
    declare_heads,
    first_element,
    launch_heads,
    load_keys,
    read_block,
    softmax_begin,
    softmax_step,
    softmax_store,
    tile_distances,
    tile_mask,
    tile_offsets,
)


def relative_attention_triton(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_tokens: Tensor,
    position_key: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    segments: Tensor | None = None,
    segment_bias: Tensor | None = None,
    segment_key: Tensor | None = None,
    *,
    scale: float,
    causal: bool = False,
    window: int | None = None,
) -> Tensor:
    """One launch, see `launch_heads`."""
    operands = (
        key,
        value,
        position_key,
        content_bias,
        position_bias,
        cu_tokens if segments is None else segments,
        segment_bias,
        segment_key,
    )
    seen = NO_WINDOW if window is None else min(window, NO_WINDOW)
    numbers = position_key.shape[0] // 2, int(segments is not None), int(causal), seen, scale * LOG2_E
    return launch_heads(relative_attention_kernel, query, cu_tokens, cu_tokens, operands, *numbers)


@kernel(sizes=("head_dim",))
def relative_attention_kernel(
    query_ptr,  # [tokens, heads, head_dim]
    key_ptr,  # [tokens, heads, head_dim]
    value_ptr,  # [tokens, heads, head_dim]
    position_key_ptr,  # [2 * limit + 1, heads, head_dim]
    content_bias_ptr,  # [heads, head_dim]
    position_bias_ptr,  # [heads, head_dim]
    segments_ptr,  # int32 [tokens]
    segment_bias_ptr,  # [heads, head_dim]
    segment_key_ptr,  # [2, heads, head_dim]
    blocks_ptr,  # int32 [blocks, 4], see `flash_attention.query_blocks`
    out_ptr,  # [tokens, heads, head_dim]
    heads: tl.int32,
    head_dim: tl.int32,
    limit: tl.int32,
    has_segments: tl.int32,  # 0 or 1; without them their keys are read as zeros
    causal: tl.int32,  # 0 or 1
    window: tl.int32,  # where there is none, more than there are keys
    scale: tl.float32,  # times log2(e): powers of 2 are what the hardware has
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    WINDOW: tl.constexpr,  # distances within a tile, BLOCK_M + BLOCK_N - 1, rounded up
):
    head, first, query_end, key_begin, keys = read_block(blocks_ptr, heads)
    if first >= query_end:
        return

    m = tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    offsets = tile_offsets(BLOCK_M, BLOCK_D, heads, head_dim)
    mask = tile_mask(first, query_end, head_dim, BLOCK_M, BLOCK_D)
    row = first_element(first, head, heads, head_dim)
    begin = first_element(key_begin, head, heads, head_dim)
    query = tl.load(query_ptr + row + offsets, mask=mask, other=0.0).to(tl.float32)

    # The segment's term is one of two numbers a query.
    of_segments = d < head_dim * has_segments
    bias = tl.load(segment_bias_ptr + head * head_dim + d, mask=of_segments, other=0.0).to(tl.float32)
    same = tl.load(segment_key_ptr + head * head_dim + d, mask=of_segments, other=0.0).to(tl.float32)
    other = tl.load(segment_key_ptr + heads * head_dim + head * head_dim + d, mask=of_segments, other=0.0)
    if_same = tl.sum((query + bias[None, :]) * same[None, :], 1)[:, None]
    if_other = tl.sum((query + bias[None, :]) * other.to(tl.float32)[None, :], 1)[:, None]
    segment_rows = segments_ptr + key_begin
    with_segment = first - key_begin + m < keys * has_segments
    segment = tl.load(segment_rows + (first - key_begin) + m, mask=with_segment, other=0)

    bias = tl.load(position_bias_ptr + head * head_dim + d, mask=d < head_dim, other=0.0).to(tl.float32)
    for_positions = (query + bias[None, :]).to(query_ptr.dtype.element_ty)
    bias = tl.load(content_bias_ptr + head * head_dim + d, mask=d < head_dim, other=0.0).to(tl.float32)
    for_content = (query + bias[None, :]).to(query_ptr.dtype.element_ty)

    distances, index = tile_distances(first - key_begin, BLOCK_M, BLOCK_N, WINDOW)
    position = (first - key_begin + m)[:, None]
    start_at = tl.maximum(first - key_begin - window + 1, 0) // BLOCK_N * BLOCK_N * causal
    stop_at = tl.where(causal != 0, tl.minimum(first - key_begin + BLOCK_M, keys), keys)

    highest, total, mixed = softmax_begin(BLOCK_M, BLOCK_D)
    for start in range(start_at, stop_at, BLOCK_N):
        table_row = tl.minimum(tl.maximum(distances - start, -limit), limit) + limit
        near = (table_row * heads + head)[:, None] * head_dim + d[None, :]
        position_key = tl.load(position_key_ptr + near, mask=(d < head_dim)[None, :], other=0.0)
        products = tl.dot(for_positions, tl.trans(position_key), input_precision=PRECISION)
        scores = tl.gather(products, index, 1)
        key = load_keys(key_ptr, begin, start, keys, heads, head_dim, BLOCK_N, BLOCK_D)
        scores += tl.dot(for_content, tl.trans(key), input_precision=PRECISION)
        its = tl.load(segment_rows + start + n, mask=start + n < keys * has_segments, other=0)
        scores += tl.where(segment[:, None] == its[None, :], if_same, if_other)
        before = position - (start + n)[None, :]
        seen = (start + n < keys)[None, :] & (before >= 0 - (1 - causal) * keys)
        scores = tl.where(seen & (before < window), scores * scale, float("-inf"))
        weights, highest, total, mixed = softmax_step(scores, 1.0, highest, total, mixed, True)
        value = load_keys(value_ptr, begin, start, keys, heads, head_dim, BLOCK_N, BLOCK_D)
        mixed = tl.dot(weights.to(value.dtype), value, mixed, input_precision=PRECISION)
    softmax_store(out_ptr + row + offsets, mask, total, mixed, True)


def _blocks(architecture: str, width: int, dtype: torch.dtype, alignment: str) -> dict[str, int]:
    """Queries and keys of a step, warps and stages, as in `disentangled_attention`: the product with as many
    rows again and its diagonals take the registers that larger blocks would need."""
    if dtype == torch.float32:
        # Two stages where one needs a stack on sm_90, with Triton 3.9 or 3.6, and the other way round.
        twice = 16 < width <= 64 or (width > 64 and alignment == "any")
        side, warps, stages = 16, 8 if width > 64 else 4, 2 if twice else 1
    else:
        side, warps, stages = 32, 8 if width > 64 or alignment == "any" else 4, 2
        if width > 64 and alignment == "any":
            side, warps = 16, 4
    stages = 1 if architecture == "gfx942" else stages
    return {"BLOCK_M": side, "BLOCK_N": side, "WINDOW": 2 * side, "num_warps": warps, "num_stages": stages}


declare_heads(
    relative_attention_kernel,
    (
        "query_ptr",
        "key_ptr",
        "value_ptr",
        "position_key_ptr",
        "content_bias_ptr",
        "position_bias_ptr",
        "segment_bias_ptr",
        "segment_key_ptr",
        "out_ptr",
    ),
    {"segments_ptr": torch.int32, "blocks_ptr": torch.int32},
    _blocks,
)
