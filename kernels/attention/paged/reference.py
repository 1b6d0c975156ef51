"""Paged attention: queries of one decode step over the paged key-value cache.

A request's hypotheses are consecutive query rows. Cross-attention pages belong to the request, and all its
rows read them. Self-attention pages belong to one hypothesis each, and `origin` gives the hypothesis whose
page holds a position: beam search changes a hypothesis's history by changing that table, never a page.
"""

from typing import Any

import torch
from torch import Tensor

from ...runtime.dispatch import Operation, runs_on_gpu
from ...runtime.launch import interpreting
from ...runtime.packing import spans
from ..kv_cache import PAGE_SIZE
from .cpu import GatherPlan, paged_attention_cpu
from .triton import LARGEST_HEAD, paged_attention_triton


def paged_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    block_tables: Tensor,
    lengths: Tensor,
    cu_rows: Tensor,
    *,
    scale: float,
    origin: Tensor | None = None,
    plan: GatherPlan | None = None,
) -> Tensor:
    """Attention of queries to their request's pages, `softmax(query @ key.T * scale) @ value`.

    The order of a request's sums depends on its length alone.

    Args:
        query: [rows, heads, head_dim], one row per hypothesis, those of a request next to each other.
        keys, values: [pages, 16, heads, head_dim]: page pool of one layer.
        block_tables: int32. Without `origin` [requests, blocks]: the request's pages, read by all its rows.
            With `origin` [rows, blocks]: each hypothesis's own pages.
        lengths: int32 [requests], positions to attend to, at least 1 and within the table (and `origin`).
        cu_rows: int32 [requests + 1], offsets of the requests' rows.
        scale: factor of the scores.
        origin: int32 [rows, positions]: for each row and position, the hypothesis (0 to k - 1 within the
            request) whose page holds it.
        plan: result of `plan_paged_attention` for the same tables, to share among calls; made anew if None.

    Returns:
        [rows, heads, head_dim].

    Raises:
        ValueError: tables, keys or values that do not match the query.
    """
    shape, pool = query.shape, keys.shape  # made anew at each access
    wanted = PAGE_SIZE, *shape[1:]
    if pool != values.shape or len(shape) != 3 or tuple(pool)[1:] != wanted:
        raise ValueError(
            f"keys {list(keys.shape)} and values {list(values.shape)} do not fit a query of "
            f"{list(query.shape)}; both must be [pages, {', '.join(map(str, wanted))}]"
        )
    if keys.dtype is not query.dtype or values.dtype is not query.dtype:
        raise ValueError(
            f"query, keys and values must have one dtype, got {query.dtype}, {keys.dtype} and {values.dtype}"
        )
    tables = shape[0] if origin is not None else lengths.size(0)
    if block_tables.size(0) != tables:
        raise ValueError(f"block_tables has {block_tables.shape[0]} rows, but there are {tables} to serve")
    given = query, keys, values, block_tables, lengths, cu_rows
    if runs_on_gpu(given) and _paged_attention.triton is not None:  # 2 us less than the search of a call
        return _paged_attention.triton(*given, scale=scale, origin=origin)  # type: ignore[no-any-return]
    return _paged_attention(*given, scale=scale, origin=origin, plan=plan)  # type: ignore[no-any-return]


def plan_paged_attention(
    block_tables: Tensor,
    lengths: Tensor,
    cu_rows: Tensor,
    heads: int,
    origin: Tensor | None = None,
    *,
    by_heads: bool = False,
) -> GatherPlan | None:
    """Plan the row lists of `paged_attention` on the CPU, which all layers of a decode step share.

    The plan holds for the present contents of the tables. None where there is no use for it: on a GPU, in
    Triton's interpreter, and for a batch without rows.

    Args:
        block_tables, lengths, cu_rows, origin: as in `paged_attention`.
        heads: number of heads.
        by_heads: True where keys and values lie as `rows_by_heads` says, and not by positions; only without
            `origin`.
    """
    if cu_rows.device.type != "cpu" or interpreting() or cu_rows.shape[0] == 1:
        return None
    return GatherPlan.of(block_tables, lengths, cu_rows, heads, origin, by_heads=by_heads)


def paged_attention_reference(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    block_tables: Tensor,
    lengths: Tensor,
    cu_rows: Tensor,
    *,
    scale: float,
    origin: Tensor | None = None,
    plan: GatherPlan | None = None,
) -> Tensor:
    """Reference implementation of `paged_attention` in plain torch: gather keys and values of each row."""
    out = torch.empty_like(query)
    for request, (start, end) in enumerate(spans(cu_rows)):
        positions = torch.arange(int(lengths[request]), device=query.device)
        for row in range(start, end):
            if origin is None:
                pages = block_tables[request, positions // PAGE_SIZE]
            else:
                pages = block_tables[start + origin[row, positions].long(), positions // PAGE_SIZE]
            key = keys[pages.long(), positions % PAGE_SIZE].float()
            value = values[pages.long(), positions % PAGE_SIZE].float()
            weights = (torch.einsum("hd,thd->ht", query[row].float(), key) * scale).softmax(-1)
            out[row] = torch.einsum("ht,thd->hd", weights, value).to(out.dtype)
    return out


def _by_kernels_triton(
    query: Tensor, *others: Tensor, plan: GatherPlan | None = None, **options: Any
) -> Tensor:
    """`paged_attention` by kernels, or by the reference where heads are wider than their tiles."""
    run = paged_attention_triton if query.shape[2] <= LARGEST_HEAD else paged_attention_reference
    return run(query, *others, **options)


_paged_attention = Operation(paged_attention_reference, cpu=paged_attention_cpu, triton=_by_kernels_triton)
