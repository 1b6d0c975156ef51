"""Disentangled attention with relative-position embeddings (DeBERTa, arXiv 2006.03654), for SEW-D."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import kernel
from ..runtime.optional_triton import tl
from ..runtime.packing import aligned, spans
from .checks import check_self_attention
from .diagonals import BLOCK, diagonal_products, heads_at_a_time, heads_first
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


def disentangled_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_tokens: Tensor,
    position_query: Tensor | None,
    position_key: Tensor | None,
    rows: Tensor,
    *,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Disentangled attention of each packed sequence: `softmax(scores * scale) @ value`, summed in float32.

    The score of a query at position i and a key at position j has up to three terms, where `r` is the row of
    the relative-position tables for the distance `i - j`:

        query[i] . key[j] + query[i] . position_key[r] + position_query[r] . key[j]

    Args:
        query, key, value: [tokens, heads, head_dim], packed. On a GPU head_dim is at most 128.
        cu_tokens: int32 [n + 1], never changed in place, as for `flash_attention`.
        position_query: [positions, heads, head_dim]; None omits the third term.
        position_key: [positions, heads, head_dim]; None omits the second term.
        rows: int32 [2 * limit + 1], the tables' row for each `i - j` from -limit to limit, as
            `relative_rows` makes them; greater distances have the row of the limit.
        scale: factor of the scores.
        dropout: dropout probability of the attention weights, for training.

    Returns:
        [tokens, heads, head_dim].

    Raises:
        ValueError: shapes or offsets that do not match, or (on the CPU) rows past the tables.
    """
    check_self_attention(query, key, value, cu_tokens)
    _check_positions(query, position_query, position_key, rows)
    given = (query, key, value, cu_tokens, position_query, position_key, rows)
    return _disentangled_attention(*given, scale=scale, dropout=dropout)


def _check_positions(
    query: Tensor, position_query: Tensor | None, position_key: Tensor | None, rows: Tensor
) -> None:
    if rows.dtype != torch.int32 or rows.dim() != 1 or rows.numel() % 2 == 0:
        raise ValueError(
            f"rows must be int32 [2 * limit + 1], an odd number, got {rows.dtype} {list(rows.shape)}"
        )
    for name, table in (("position_query", position_query), ("position_key", position_key)):
        if table is None:
            continue
        if table.dim() != 3 or table.shape[1:] != query.shape[1:]:
            raise ValueError(
                f"{name} must be [positions, {query.shape[1]}, {query.shape[2]}], got {list(table.shape)}"
            )
        if rows.device.type == "cpu" and (int(rows.min()) < 0 or int(rows.max()) >= len(table)):
            raise ValueError(
                f"rows are from {int(rows.min())} to {int(rows.max())}, and {name} has {len(table)}; "
                "make them of the same span"
            )


def disentangled_weights(
    query: Tensor,
    key: Tensor,
    cu_tokens: Tensor,
    position_query: Tensor | None,
    position_key: Tensor | None,
    rows: Tensor,
    *,
    scale: float,
    dropout: float = 0.0,
) -> list[Tensor]:
    """Attention weights [heads, queries, keys] of each sequence, in float32 or wider.

    First step of `disentangled_attention_reference`.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    limit = rows.shape[0] // 2
    weights = []
    for start, end in spans(cu_tokens):
        one, other = aligned(query[start:end]).to(wide), aligned(key[start:end]).to(wide)
        position = torch.arange(end - start, device=query.device)
        near = rows[(position[:, None] - position).clamp(-limit, limit) + limit].long()
        near = near.expand(query.shape[1], -1, -1)
        scores = torch.einsum("qhd,khd->hqk", one, other)
        if position_key is not None:
            scores = scores + torch.einsum("qhd,phd->hqp", one, position_key.to(wide)).gather(2, near)
        if position_query is not None:
            scores = scores + torch.einsum("phd,khd->hpk", position_query.to(wide), other).gather(1, near)
        weights.append(F.dropout((scores * scale).softmax(-1), dropout, dropout > 0))
    return weights


def disentangled_attention_reference(
    query: Tensor, key: Tensor, value: Tensor, cu_tokens: Tensor, *positions: Any, **options: Any
) -> Tensor:
    """Reference implementation of `disentangled_attention` in plain torch, one sequence at a time.

    `positions` and `options` as in `disentangled_weights`.
    """
    weights = disentangled_weights(query, key, cu_tokens, *positions, **options)
    return weighted_values(weights, value, cu_tokens)


def disentangled_attention_cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_tokens: Tensor,
    position_query: Tensor | None,
    position_key: Tensor | None,
    rows: Tensor,
    *,
    scale: float,
) -> Tensor:
    """CPU version of `disentangled_attention`: matrix products of one sequence at a time.

    The order of a sequence's sums thus depends on its own length alone.
    """
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    tables = [
        None if table is None else heads_first(table) * scale if by_key else heads_first(table)
        for table, by_key in ((position_query, True), (position_key, False))
    ]
    for start, end in spans(cu_tokens):
        if start == end:
            continue
        parts = [heads_first(aligned(tensor[start:end])) for tensor in (query, key, value)]
        together = heads_at_a_time(end - start)
        for head in range(0, query.shape[1], together):
            some = slice(head, head + together)
            one, other, mixed = (part[some] for part in parts)
            of_query, of_key = (None if table is None else table[some] for table in tables)
            scores = _scores(one * scale, other, of_query, of_key, rows)
            values = torch.bmm(torch.softmax(scores, -1, out=scores), mixed)
            out[start:end, some] = values.transpose(0, 1)
    return out


def _scores(
    query: Tensor, key: Tensor, position_query: Tensor | None, position_key: Tensor | None, rows: Tensor
) -> Tensor:
    """Attention scores [heads, tokens, tokens] of one sequence, from scaled query and position_query."""
    scores = torch.bmm(query, key.transpose(1, 2))
    tokens = query.shape[1]
    for begin in range(0, tokens, BLOCK):
        end = min(begin + BLOCK, tokens)
        window = torch.arange(tokens + end - begin - 1)
        if position_key is not None:
            scores[:, begin:end] += _diagonals(query[:, begin:end], position_key, rows, end - 1 - window)
        if position_query is not None:
            term = _diagonals(key[:, begin:end], position_query, rows, window - (end - 1))
            scores[:, :, begin:end] += term.transpose(1, 2)
    return scores


def _diagonals(content: Tensor, table: Tensor, rows: Tensor, distances: Tensor) -> Tensor:
    limit = rows.shape[0] // 2
    near = table[:, rows[distances.clamp(-limit, limit) + limit].long()]
    return diagonal_products(content, near)


def disentangled_attention_triton(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_tokens: Tensor,
    position_query: Tensor | None,
    position_key: Tensor | None,
    rows: Tensor,
    *,
    scale: float,
) -> Tensor:
    """`disentangled_attention` by one Triton kernel launch, through `launch_heads`."""
    operands = key, value, position_query, position_key, rows
    has_terms = position_query is not None, position_key is not None
    numbers = rows.shape[0] // 2, *has_terms, scale * LOG2_E
    return launch_heads(disentangled_attention_kernel, query, cu_tokens, cu_tokens, operands, *numbers)


_disentangled_attention = Operation(
    disentangled_attention_reference, cpu=disentangled_attention_cpu, triton=disentangled_attention_triton
)


@kernel(sizes=("head_dim",))
def disentangled_attention_kernel(
    query_ptr,  # [tokens, heads, head_dim]
    key_ptr,  # [tokens, heads, head_dim]
    value_ptr,  # [tokens, heads, head_dim]
    position_query_ptr,  # [positions, heads, head_dim]
    position_key_ptr,  # [positions, heads, head_dim]
    rows_ptr,  # int32 [2 * limit + 1]
    blocks_ptr,  # int32 [blocks, 4], of `query_blocks`
    out_ptr,  # [tokens, heads, head_dim]
    heads: tl.int32,
    head_dim: tl.int32,
    limit: tl.int32,
    has_position_query: tl.int32,  # 0 or 1; without it the term is a product with zeros
    has_position_key: tl.int32,  # 0 or 1
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
    offsets = tile_offsets(BLOCK_M, BLOCK_D, heads, head_dim)
    mask = tile_mask(first, query_end, head_dim, BLOCK_M, BLOCK_D)
    row = first_element(first, head, heads, head_dim)
    begin = first_element(key_begin, head, heads, head_dim)
    query = tl.load(query_ptr + row + offsets, mask=mask, other=0.0)

    # Distances in a tile, ascending from that of its first query and last key, and each pair's index among
    # them. A product with their embeddings, gathered by the index, is read along its diagonals and does not
    # leave the multiprocessor.
    distances = first - key_begin - (BLOCK_N - 1) + tl.arange(0, WINDOW)
    index = m[:, None] - n[None, :] + (BLOCK_N - 1)
    by_query = (d < head_dim * has_position_key)[None, :]
    by_key = (d < head_dim * has_position_query)[None, :]

    highest, total, mixed = softmax_begin(BLOCK_M, BLOCK_D)
    for start in range(0, keys, BLOCK_N):
        table_row = tl.load(rows_ptr + (tl.minimum(tl.maximum(distances - start, -limit), limit) + limit))
        near = (table_row * heads + head)[:, None] * head_dim + d[None, :]
        position_key = tl.load(position_key_ptr + near, mask=by_query, other=0.0)
        products = tl.dot(query, tl.trans(position_key), input_precision=PRECISION)
        scores = tl.gather(products, index, 1)
        key = load_keys(key_ptr, begin, start, keys, heads, head_dim, BLOCK_N, BLOCK_D)
        position_query = tl.load(position_query_ptr + near, mask=by_key, other=0.0)
        products = tl.dot(position_query, tl.trans(key), input_precision=PRECISION)
        scores += tl.gather(products, index, 0)
        scores += tl.dot(query, tl.trans(key), input_precision=PRECISION)
        scores = tl.where((start + n < keys)[None, :], scores * scale, float("-inf"))
        weights, highest, total, mixed = softmax_step(scores, 1.0, highest, total, mixed, False)
        value = load_keys(value_ptr, begin, start, keys, heads, head_dim, BLOCK_N, BLOCK_D)
        mixed = tl.dot(weights.to(value.dtype), value, mixed, input_precision=PRECISION)
    softmax_store(out_ptr + row + offsets, mask, total, mixed, False)


def _blocks(architecture: str, width: int, dtype: torch.dtype, alignment: str) -> dict[str, Any]:
    """Tile sizes, warps and stages of a case.

    Products with twice as many position embeddings, and their diagonals, take the registers of larger tiles.
    """
    if dtype == torch.float32:
        # One stage for the narrowest too: with two, Triton 3.6 needs a stack on sm_90.
        side, warps, stages = 16, 8 if width > 64 else 4, 2 if 16 < width <= 64 else 1
    else:
        side, warps, stages = 32, 8 if width > 64 or alignment == "any" else 4, 2
        if width > 64 and alignment == "any":
            side, warps = 16, 4
    stages = 1 if architecture == "gfx942" else stages
    blocks = {"BLOCK_M": side, "BLOCK_N": side, "WINDOW": 2 * side, "num_warps": warps, "num_stages": stages}
    # Three products of tf32 would need 4,616 bytes of stack for a width of 128.
    return blocks | ({"PRECISION": "ieee"} if dtype == torch.float32 else {})


declare_heads(disentangled_attention_kernel, _blocks, rows_ptr=torch.int32)
