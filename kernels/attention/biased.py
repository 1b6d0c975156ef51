"""Attention with a learned bias for the distance of query and key, as in T5 (arXiv 1910.10683)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import kernel
from ..runtime.optional_triton import tl
from ..runtime.packing import aligned, spans
from ..runtime.weight_cache import cached
from .checks import check_packed
from .distance_buckets import Buckets
from .flash import weighted_values
from .tiles import (
    LOG2_E,
    declare_heads,
    first_element,
    launch_heads,
    load_keys,
    read_block,
    softmax_begin,
    softmax_step,
    softmax_store,
    tile_mask,
    tile_offsets,
)


def biased_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    bias_table: Tensor,
    buckets: Buckets,
    *,
    causal: bool = False,
    scale: float = 1.0,
    dropout: float = 0.0,
) -> Tensor:
    """Attention with T5's bias, `softmax(query @ key.T * scale + bias) @ value`, of each packed sequence.

    The bias of a query and a key is, for each head, the value in `bias_table` for the bucket of their
    distance. A sequence's last query has the position of its last key. A query that sees no key gets zeros.
    Sums are accumulated in float32.

    Args:
        query: [query tokens, heads, head_dim], packed. On a GPU head_dim is at most 128.
        key, value: [key tokens, heads, head_dim], packed.
        cu_query, cu_key: int32 [n + 1] each, of the same n sequences; never changed in place, as for
            `flash_attention`.
        bias_table: [buckets, heads]. Biases expanded by distance are cached.
        buckets: assignment of distances to the table's rows.
        causal: a query sees the keys up to its own position.
        scale: factor of the products of query and key, 1 in T5.
        dropout: dropout probability of the attention weights, for training.

    Returns:
        [query tokens, heads, head_dim].

    Raises:
        ValueError: shapes or offsets that do not match.
    """
    check_packed(query, key, value, cu_query, cu_key)
    if list(bias_table.shape) != [buckets.count, query.shape[1]]:
        raise ValueError(
            f"bias_table must be {[buckets.count, query.shape[1]]}, a number a bucket and head, "
            f"got {list(bias_table.shape)}"
        )
    given = (query, key, value, cu_query, cu_key, bias_table, buckets)
    return _biased_attention(*given, causal=causal, scale=scale, dropout=dropout)


def biased_weights(
    query: Tensor,
    key: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    bias_table: Tensor,
    buckets: Buckets,
    *,
    causal: bool = False,
    scale: float = 1.0,
    dropout: float = 0.0,
) -> list[Tensor]:
    """Attention weights [heads, queries, keys] of each sequence, in float32 or wider.

    First step of `biased_attention_reference`.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    rows, limit = buckets.rows(query.device), buckets.farthest
    weights = []
    for (q0, q1), (k0, k1) in zip(spans(cu_query), spans(cu_key), strict=True):
        one, other = aligned(query[q0:q1]).to(wide), aligned(key[k0:k1]).to(wide)
        position = torch.arange(q1 - q0, device=query.device) + (k1 - k0) - (q1 - q0)
        distance = position[:, None] - torch.arange(k1 - k0, device=query.device)
        bias = bias_table[rows[distance.clamp(-limit, limit) + limit]].permute(2, 0, 1).to(wide)
        scores = torch.einsum("qhd,khd->hqk", one, other) * scale + bias
        if causal:
            # Finite, so that a query that sees no key has weights and gradients of 0, not NaN.
            scores = scores.masked_fill(distance < 0, torch.finfo(wide).min)
            weight = scores.softmax(-1).masked_fill(distance < 0, 0.0)
        else:
            weight = scores.softmax(-1)
        weights.append(F.dropout(weight, dropout, dropout > 0))
    return weights


def biased_attention_reference(
    query: Tensor, key: Tensor, value: Tensor, cu_query: Tensor, cu_key: Tensor, *bias: Any, **options: Any
) -> Tensor:
    """Reference implementation of `biased_attention` in plain torch; arguments of `biased_weights`."""
    return weighted_values(biased_weights(query, key, cu_query, cu_key, *bias, **options), value, cu_key)


def biased_attention_cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    bias_table: Tensor,
    buckets: Buckets,
    *,
    causal: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """CPU version of `biased_attention`: torch's fused attention of one sequence at a time.

    The order of a sequence's sums thus depends on its own length alone.
    """
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    by_distance = cached(_by_distance, bias_table, buckets=buckets, factor=1.0)
    for (q0, q1), (k0, k1) in zip(spans(cu_query), spans(cu_key), strict=True):
        blind = max(q1 - q0 - (k1 - k0), 0) if causal else q1 - q0 if k0 == k1 else 0
        out[q0 : q0 + blind] = 0
        q0 += blind
        if q0 == q1:
            continue
        # With the last query first, a query's biases are those of the one before it, shifted by one: all are
        # views of one vector of biases by distance, and no [queries, keys] tensor is made.
        mixed = F.scaled_dot_product_attention(
            query[q0:q1].flip(0).transpose(0, 1)[None],
            aligned(key[k0:k1]).transpose(0, 1)[None],
            aligned(value[k0:k1]).transpose(0, 1)[None],
            attn_mask=_line(by_distance, q1 - q0, k1 - k0, causal).unfold(1, k1 - k0, 1)[None],
            scale=scale,
        )
        out[q0:q1] = mixed[0].transpose(0, 1).flip(0)
    return out


def _line(by_distance: Tensor, queries: int, keys: int, causal: bool) -> Tensor:
    """Biases of one sequence by descending distance, [heads, queries + keys - 1].

    The first is that of the last query and first key, the last that of the first query and last key.
    """
    limit = by_distance.shape[1] // 2
    distance = keys - 1 - torch.arange(queries + keys - 1)
    line = by_distance[:, distance.clamp(-limit, limit) + limit]
    if causal:
        line[:, keys:] = -math.inf
    return line


def _by_distance(table: Tensor, *, buckets: Buckets, factor: float) -> Tensor:
    """Biases by distance, [heads, 2 * farthest + 1], of a table [buckets, heads], times `factor`."""
    wide = table.detach().to(torch.promote_types(table.dtype, torch.float32)) * factor
    return wide[buckets.rows(table.device)].t().contiguous()


def biased_attention_triton(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    bias_table: Tensor,
    buckets: Buckets,
    *,
    causal: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """`biased_attention` by one Triton kernel launch, through `launch_heads`."""
    bias = cached(_by_distance, bias_table, buckets=buckets, factor=LOG2_E)
    numbers = buckets.farthest, causal, scale * LOG2_E
    return launch_heads(biased_attention_kernel, query, cu_query, cu_key, (key, value, bias), *numbers)


_biased_attention = Operation(
    biased_attention_reference, cpu=biased_attention_cpu, triton=biased_attention_triton
)


@kernel(sizes=("head_dim",))
def biased_attention_kernel(
    query_ptr,  # [query tokens, heads, head_dim]
    key_ptr,  # [key tokens, heads, head_dim]
    value_ptr,  # [key tokens, heads, head_dim]
    bias_ptr,  # float32 [heads, 2 * limit + 1], by distance, times log2(e)
    blocks_ptr,  # int32 [blocks, 4], of `query_blocks`
    out_ptr,  # [query tokens, heads, head_dim]
    heads: tl.int32,
    head_dim: tl.int32,
    limit: tl.int32,  # distance from which on biases are equal, in either direction
    causal: tl.int32,  # 0 or 1
    scale: tl.float32,  # times log2(e), for exp2, which the hardware has
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    head, first, query_end, key_begin, keys = read_block(blocks_ptr, heads)
    if first >= query_end:
        return

    m = tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    offsets = tile_offsets(BLOCK_M, BLOCK_D, heads, head_dim)
    mask = tile_mask(first, query_end, head_dim, BLOCK_M, BLOCK_D)
    row = first_element(first, head, heads, head_dim)
    begin = first_element(key_begin, head, heads, head_dim)
    query = tl.load(query_ptr + row + offsets, mask=mask, other=0.0)

    # Keys are counted from the sequence's first, and the block's first query stands at `diagonal`.
    diagonal = first - query_end + keys
    lag = m[:, None] - n[None, :]
    middle = bias_ptr + head * (2 * limit + 1) + limit
    nearest = (causal - 1) * 1073741824  # least visible distance: 0 if causal, else below any
    stop_at = keys - causal * tl.maximum(query_end - first - BLOCK_M, 0)

    highest, total, mixed = softmax_begin(BLOCK_M, BLOCK_D)
    for start in range(0, stop_at, BLOCK_N):
        key = load_keys(key_ptr, begin, start, keys, heads, head_dim, BLOCK_N, BLOCK_D)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
        step = diagonal - start
        # The tile's distances go from step - (BLOCK_N - 1) to step + BLOCK_M - 1; their biases are read from
        # the cache. Where all distances are beyond the limit, the tile has one bias.
        if (step - (BLOCK_N - 1) < limit) & (step + (BLOCK_M - 1) > -limit):
            scores += tl.load(middle + tl.minimum(tl.maximum(step + lag, -limit), limit))
        else:
            scores += tl.load(middle + tl.where(step > 0, limit, -limit))
        if start + BLOCK_N > keys - causal * (query_end - first - 1):
            seen = (start + n < keys)[None, :] & (lag + step >= nearest)
            scores = tl.where(seen, scores, float("-inf"))
        weights, highest, total, mixed = softmax_step(scores, 1.0, highest, total, mixed, True)
        value = load_keys(value_ptr, begin, start, keys, heads, head_dim, BLOCK_N, BLOCK_D)
        mixed = tl.dot(weights.to(value.dtype), value, mixed, input_precision=PRECISION)
    softmax_store(out_ptr + row + offsets, mask, total, mixed, True)


def _blocks(architecture: str, width: int, dtype: torch.dtype, alignment: str) -> dict[str, int]:
    """Tile sizes, warps and stages of a case.

    Half of flash_attention's queries: each bias is read by its own address, two registers per score.
    """
    if dtype == torch.float32:
        rows, keys, stages = 32, 16, 2
    elif alignment == "any":
        rows, keys, stages = 64, 32, 2
    else:
        rows, keys, stages = 64, 32 if width > 64 else 64, 3
    stages = 1 if architecture == "gfx942" else stages
    return {"BLOCK_M": rows, "BLOCK_N": keys, "num_warps": 8, "num_stages": stages}


declare_heads(biased_attention_kernel, _blocks, bias_ptr=torch.float32)
