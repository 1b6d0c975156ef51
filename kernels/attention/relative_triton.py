"""The kernel of `relative_attention`: products with distances' keys, read along diagonals tile by tile."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..runtime.launch import kernel, ready
from .flash import declare_heads, query_blocks


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
    """One program for a block of queries and a head, as in `flash_attention_triton`."""
    tokens, heads, head_dim = query.shape
    if head_dim > _WIDEST:
        raise ValueError(f"attention on a GPU takes heads of at most {_WIDEST}, got {head_dim}")
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    if not out.numel():
        return out
    case = relative_attention_kernel.case(
        query.device,
        max(16, triton.next_power_of_2(head_dim)),
        query.dtype,
        "aligned" if head_dim % 16 == 0 else "any",
    )
    blocks = query_blocks(cu_tokens, cu_tokens, tokens, case.constant("BLOCK_M"))
    content_bias = ready(content_bias)
    case.launch(
        (blocks.shape[0] * heads,),
        ready(query),
        ready(key),
        ready(value),
        ready(position_key),
        content_bias,
        ready(position_bias),
        blocks if segments is None else ready(segments),
        content_bias if segment_bias is None else ready(segment_bias),
        content_bias if segment_key is None else ready(segment_key),
        blocks,
        out,
        heads,
        head_dim,
        position_key.shape[0] // 2,
        int(segments is not None),
        int(causal),
        _EVERYTHING if window is None else min(window, _EVERYTHING),
        scale * math.log2(math.e),
    )
    return out


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
    block = blocks_ptr + tl.program_id(0) // heads * 4
    head = tl.program_id(0) % heads
    first, query_end = tl.load(block), tl.load(block + 1)
    begin, keys = tl.load(block + 2), tl.load(block + 3) - tl.load(block + 2)
    if first >= query_end:
        return

    m = tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    stride = heads * head_dim
    far = stride.to(tl.int64)
    places = m[:, None] * stride + d[None, :]
    there = (first + m < query_end)[:, None] & (d < head_dim)[None, :]
    query_rows = (first.to(tl.int64) * heads + head) * head_dim
    key_rows = (begin.to(tl.int64) * heads + head) * head_dim
    query = tl.load(query_ptr + query_rows + places, mask=there, other=0.0).to(tl.float32)

    # The segment's term is one of two numbers a query.
    of_segments = d < head_dim * has_segments
    bias = tl.load(segment_bias_ptr + head * head_dim + d, mask=of_segments, other=0.0).to(tl.float32)
    same = tl.load(segment_key_ptr + head * head_dim + d, mask=of_segments, other=0.0).to(tl.float32)
    other = tl.load(segment_key_ptr + stride + head * head_dim + d, mask=of_segments, other=0.0)
    if_same = tl.sum((query + bias[None, :]) * same[None, :], 1)[:, None]
    if_other = tl.sum((query + bias[None, :]) * other.to(tl.float32)[None, :], 1)[:, None]
    segment_rows = segments_ptr + begin
    with_segment = first - begin + m < keys * has_segments
    segment = tl.load(segment_rows + (first - begin) + m, mask=with_segment, other=0)

    bias = tl.load(position_bias_ptr + head * head_dim + d, mask=d < head_dim, other=0.0).to(tl.float32)
    for_positions = (query + bias[None, :]).to(query_ptr.dtype.element_ty)
    bias = tl.load(content_bias_ptr + head * head_dim + d, mask=d < head_dim, other=0.0).to(tl.float32)
    for_content = (query + bias[None, :]).to(query_ptr.dtype.element_ty)

    # The nearest distance of a tile is that of its first query to its last key. From there on a window holds
    # all that occur in it, and query m and key n are `lag` further: the products with the window's rows are
    # read along their diagonals, and stay in the multiprocessor.
    nearest = first - begin - (BLOCK_N - 1) + tl.arange(0, WINDOW)
    lag = m[:, None] - n[None, :] + (BLOCK_N - 1)

    place = (first - begin + m)[:, None]
    start_at = tl.maximum(first - begin - window + 1, 0) // BLOCK_N * BLOCK_N * causal
    stop_at = tl.where(causal != 0, tl.minimum(first - begin + BLOCK_M, keys), keys)

    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    mixed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for start in range(start_at, stop_at, BLOCK_N):
        row = tl.minimum(tl.maximum(nearest - start, -limit), limit) + limit
        near = (row * heads + head)[:, None] * head_dim + d[None, :]
        position_key = tl.load(position_key_ptr + near, mask=(d < head_dim)[None, :], other=0.0)
        products = tl.dot(for_positions, tl.trans(position_key), input_precision=PRECISION)
        scores = tl.gather(products, lag, 1)
        rows = key_rows + start * far
        inside = (start + n < keys)[:, None] & (d < head_dim)[None, :]
        key = tl.load(key_ptr + rows + (n[:, None] * stride + d[None, :]), mask=inside, other=0.0)
        scores += tl.dot(for_content, tl.trans(key), input_precision=PRECISION)
        its = tl.load(segment_rows + start + n, mask=start + n < keys * has_segments, other=0)
        scores += tl.where(segment[:, None] == its[None, :], if_same, if_other)
        before = place - (start + n)[None, :]
        seen = (start + n < keys)[None, :] & (before >= 0 - (1 - causal) * keys)
        scores = tl.where(seen & (before < window), scores * scale, float("-inf"))
        raised = tl.maximum(highest, tl.max(scores, 1))
        # Where nothing has been seen yet, -inf - -inf would be no number.
        shift = tl.where(raised == float("-inf"), 0.0, raised)
        weights = tl.exp2(scores - shift[:, None])
        decay = tl.exp2(highest - shift)
        total = total * decay + tl.sum(weights, 1)
        mixed = mixed * decay[:, None]
        value = tl.load(value_ptr + rows + (n[:, None] * stride + d[None, :]), mask=inside, other=0.0)
        mixed = tl.dot(weights.to(value.dtype), value, mixed, input_precision=PRECISION)
        highest = raised

    mixed = mixed / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(out_ptr + query_rows + places, mixed.to(out_ptr.dtype.element_ty), mask=there)


_WIDEST = 128  # of heads, as in flash_attention
_EVERYTHING = 2**30  # a window that hides nothing


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
