"""Attention with terms for relative positions and segments, as in XLNet (arXiv 1906.08237).

The terms for positions are Transformer-XL's (arXiv 1901.02860).
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import kernel
from ..runtime.optional_triton import tl
from ..runtime.packing import aligned, spans
from .checks import check_scale_and_window, check_self_attention
from .diagonals import BLOCK, diagonal_products, heads_at_a_time, heads_first
from .flash import weighted_values
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
)


def relative_attention(
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
    dropout: float = 0.0,
) -> Tensor:
    """XLNet's attention of each packed sequence: `softmax(scores * scale) @ value`, summed in float32.

    The score of a query at position i and a key at position j is

        (query[i] + content_bias) . key[j] + (query[i] + position_bias) . position_key[i - j]
        + (query[i] + segment_bias) . segment_key[0 if segments[i] == segments[j] else 1]

    with the last term only if segments are given.

    Args:
        query, key, value: [tokens, heads, head_dim], packed. On a GPU head_dim is at most 128.
        cu_tokens: int32 [n + 1], never changed in place, as for `flash_attention`.
        position_key: [2 * limit + 1, heads, head_dim], for each `i - j` from -limit to limit; greater
            distances have the row of the limit.
        content_bias, position_bias: [heads, head_dim], added to queries before the products.
        segments: int32 [tokens], segment of each token, any integers; None omits the last term.
        segment_bias: [heads, head_dim], required with segments.
        segment_key: [2, heads, head_dim], keys of the same and of another segment, required with segments.
        scale: positive factor of the scores.
        causal: a query sees the keys up to its own position.
        window: with `causal`, a query sees only its last `window` keys.
        dropout: dropout probability of the attention weights, for training.

    Returns:
        [tokens, heads, head_dim].

    Raises:
        ValueError: shapes or offsets that do not match, a scale that is not positive, or a window without
            `causal` or smaller than 1.
    """
    check_self_attention(query, key, value, cu_tokens)
    terms = RelativeTerms(position_key, content_bias, position_bias, segments, segment_bias, segment_key)
    _check_terms(query, terms)
    check_scale_and_window(scale, window, causal)
    options = {"scale": scale, "causal": causal, "window": window, "dropout": dropout}
    return _relative_attention(query, key, value, cu_tokens, *terms, **options)


class RelativeTerms(NamedTuple):
    """Tensor arguments of `relative_attention` that its position and segment terms take."""

    position_key: Tensor
    content_bias: Tensor
    position_bias: Tensor
    segments: Tensor | None = None
    segment_bias: Tensor | None = None
    segment_key: Tensor | None = None


def _check_terms(query: Tensor, terms: RelativeTerms) -> None:
    position_key, content_bias, position_bias, segments, segment_bias, segment_key = terms
    tokens, heads, head_dim = query.shape
    rows = position_key.shape[0] if position_key.dim() else 0
    if position_key.shape[1:] != query.shape[1:] or rows % 2 == 0:
        raise ValueError(
            f"position_key must be [2 * limit + 1, {heads}, {head_dim}], an odd number of rows, "
            f"got {list(position_key.shape)}"
        )
    biases = {"content_bias": content_bias, "position_bias": position_bias}
    if segments is None:
        if segment_bias is not None or segment_key is not None:
            raise ValueError("segment_bias and segment_key are for segments; give all three or none")
    else:
        if segment_bias is None or segment_key is None:
            raise ValueError("segments need segment_bias and segment_key; give all three or none")
        if segments.dtype != torch.int32 or segments.shape != (tokens,):
            raise ValueError(
                f"segments must be int32 [{tokens}], got {segments.dtype} {list(segments.shape)}"
            )
        if segment_key.shape != (2, heads, head_dim):
            raise ValueError(f"segment_key must be [2, {heads}, {head_dim}], got {list(segment_key.shape)}")
        biases["segment_bias"] = segment_bias
    for name, bias in biases.items():
        if bias.shape != (heads, head_dim):
            raise ValueError(f"{name} must be [{heads}, {head_dim}], got {list(bias.shape)}")


def relative_weights(
    query: Tensor,
    key: Tensor,
    cu_tokens: Tensor,
    *terms: Any,
    scale: float,
    causal: bool = False,
    window: int | None = None,
    dropout: float = 0.0,
) -> list[Tensor]:
    """Attention weights [heads, queries, keys] of each sequence, in float32 or wider.

    First step of `relative_attention_reference`. `terms` are those of `RelativeTerms`, here and below.
    """
    position_key, content_bias, position_bias, segments, segment_bias, segment_key = RelativeTerms(*terms)
    wide = torch.promote_types(query.dtype, torch.float32)
    limit = position_key.shape[0] // 2
    weights = []
    for start, end in spans(cu_tokens):
        one, other = aligned(query[start:end]).to(wide), aligned(key[start:end]).to(wide)
        position = torch.arange(end - start, device=query.device)
        distance = position[:, None] - position
        # No more rows than the sequence reads, so that sums do not depend on how many the table has.
        own = min(limit, max(end - start - 1, 0))
        near = position_key[limit - own : limit + own + 1].to(wide)
        rows = (distance.clamp(-own, own) + own).expand(query.shape[1], -1, -1)
        scores = torch.einsum("qhd,khd->hqk", one + content_bias.to(wide), other)
        products = torch.einsum("qhd,phd->hqp", one + position_bias.to(wide), near)
        scores = scores + products.gather(2, rows)
        if segments is not None and segment_bias is not None and segment_key is not None:
            products = torch.einsum("qhd,shd->hqs", one + segment_bias.to(wide), segment_key.to(wide))
            mine = segments[start:end]
            apart = mine[:, None] != mine
            scores = scores + torch.where(apart, products[:, :, 1:], products[:, :, :1])
        if causal:
            scores = scores.masked_fill(_unseen(distance, window), -math.inf)
        weights.append(F.dropout((scores * scale).softmax(-1), dropout, dropout > 0))
    return weights


def _unseen(distance: Tensor, window: int | None) -> Tensor:
    """Mask, true for keys that a causal query does not see, by distance (query position - key position)."""
    later = distance < 0
    return later if window is None else later | (distance >= window)


def relative_attention_reference(
    query: Tensor, key: Tensor, value: Tensor, cu_tokens: Tensor, *terms: Any, **options: Any
) -> Tensor:
    """Reference implementation of `relative_attention` in plain torch; options of `relative_weights`."""
    return weighted_values(relative_weights(query, key, cu_tokens, *terms, **options), value, cu_tokens)


def relative_attention_cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_tokens: Tensor,
    *terms: Any,
    scale: float,
    causal: bool = False,
    window: int | None = None,
) -> Tensor:
    """CPU version of `relative_attention`: matrix products of one sequence at a time.

    The order of a sequence's sums thus depends on its own length alone.
    """
    position_key, content_bias, position_bias, segments, segment_bias, segment_key = RelativeTerms(*terms)
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    table = heads_first(position_key)
    biases = [heads_first(bias[None]) for bias in (content_bias, position_bias)]
    for_segments = None
    if segment_bias is not None and segment_key is not None:
        for_segments = heads_first(segment_bias[None]), heads_first(segment_key)
    for start, end in spans(cu_tokens):
        if start == end:
            continue
        one, other, mixed = (heads_first(aligned(tensor[start:end])) for tensor in (query, key, value))
        position = torch.arange(end - start)
        unseen = _unseen(position[:, None] - position, window) if causal else None
        together = heads_at_a_time(end - start)
        for head in range(0, query.shape[1], together):
            some = slice(head, head + together)
            for_content, for_positions = (one[some] + bias[some] for bias in biases)
            scores = torch.bmm(for_content, other[some].transpose(1, 2))
            _add_positions(scores, for_positions, table[some])
            if segments is not None and for_segments is not None:
                bias, keys = for_segments
                products = torch.bmm(one[some] + bias[some], keys[some].transpose(1, 2))
                mine = segments[start:end]
                scores += torch.where(mine[:, None] != mine, products[:, :, 1:], products[:, :, :1])
            scores *= scale
            if unseen is not None:
                scores.masked_fill_(unseen, -math.inf)
            values = torch.bmm(torch.softmax(scores, -1, out=scores), mixed[some])
            out[start:end, some] = values.transpose(0, 1)
    return out


def _add_positions(scores: Tensor, query: Tensor, table: Tensor) -> None:
    """Add the position term of one sequence to its `scores` [heads, tokens, tokens], in place.

    Args:
        query: [heads, tokens, head_dim], with position_bias added.
        table: [heads, 2 * limit + 1, head_dim], position_key with heads first.
    """
    tokens, limit = query.shape[1], table.shape[1] // 2
    for begin in range(0, tokens, BLOCK):
        end = min(begin + BLOCK, tokens)
        distances = end - 1 - torch.arange(tokens + end - begin - 1)
        near = table[:, distances.clamp(-limit, limit) + limit]
        scores[:, begin:end] += diagonal_products(query[:, begin:end], near)


def relative_attention_triton(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_tokens: Tensor,
    *terms: Any,
    scale: float,
    causal: bool = False,
    window: int | None = None,
) -> Tensor:
    """`relative_attention` by one Triton kernel launch, through `launch_heads`."""
    given = RelativeTerms(*terms)
    limit, seen = given.position_key.shape[0] // 2, NO_WINDOW if window is None else min(window, NO_WINDOW)
    numbers = limit, given.segments is not None, causal, seen, scale * LOG2_E
    operands = key, value, *given
    return launch_heads(relative_attention_kernel, query, cu_tokens, cu_tokens, operands, *numbers)


_relative_attention = Operation(
    relative_attention_reference, cpu=relative_attention_cpu, triton=relative_attention_triton
)


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
    blocks_ptr,  # int32 [blocks, 4], of `query_blocks`
    out_ptr,  # [tokens, heads, head_dim]
    heads: tl.int32,
    head_dim: tl.int32,
    limit: tl.int32,
    has_segments: tl.int32,  # 0 or 1; without segments, their keys are read as zeros
    causal: tl.int32,  # 0 or 1
    window: tl.int32,  # keys that a causal query sees; without a window, more than there are
    scale: tl.float32,  # times log2(e), for exp2, which the hardware has
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
    stride = heads * head_dim
    offsets = m[:, None] * stride + d[None, :]
    mask = (first + m < query_end)[:, None] & (d < head_dim)[None, :]
    row = first_element(first, head, heads, head_dim)
    begin = first_element(key_begin, head, heads, head_dim)
    query = tl.load(query_ptr + row + offsets, mask=mask, other=0.0).to(tl.float32)

    # The segment term of a query has one of two values: the same segment, or another one.
    of_segments = d < head_dim * has_segments
    bias = tl.load(segment_bias_ptr + head * head_dim + d, mask=of_segments, other=0.0).to(tl.float32)
    same = tl.load(segment_key_ptr + head * head_dim + d, mask=of_segments, other=0.0).to(tl.float32)
    other = tl.load(segment_key_ptr + stride + head * head_dim + d, mask=of_segments, other=0.0)
    if_same = tl.sum((query + bias[None, :]) * same[None, :], 1)[:, None]
    if_other = tl.sum((query + bias[None, :]) * other.to(tl.float32)[None, :], 1)[:, None]
    segment_rows = segments_ptr + key_begin
    with_segment = first - key_begin + m < keys * has_segments
    segment = tl.load(segment_rows + (first - key_begin) + m, mask=with_segment, other=0)

    bias = tl.load(position_bias_ptr + head * head_dim + d, mask=d < head_dim, other=0.0).to(tl.float32)
    for_positions = (query + bias[None, :]).to(query_ptr.dtype.element_ty)
    bias = tl.load(content_bias_ptr + head * head_dim + d, mask=d < head_dim, other=0.0).to(tl.float32)
    for_content = (query + bias[None, :]).to(query_ptr.dtype.element_ty)

    # Distances in a tile, ascending from that of its first query and last key, and each pair's index among
    # them. A product with their embeddings, gathered by the index, is read along its diagonals and does not
    # leave the multiprocessor.
    distances = first - key_begin - (BLOCK_N - 1) + tl.arange(0, WINDOW)
    index = m[:, None] - n[None, :] + (BLOCK_N - 1)
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
    """Tile sizes, warps and stages of a case.

    The product with twice as many position embeddings, and its diagonals, take the registers of larger tiles.
    """
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


declare_heads(relative_attention_kernel, _blocks, segments_ptr=torch.int32)
