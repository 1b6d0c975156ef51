"""One query step over paged keys and values.

A request's hypotheses are consecutive query rows. Cross-attention pages belong to the request and all
its rows read them. Self-attention pages belong to a hypothesis each, and `origin` says whose row stands
for which position of which hypothesis: beams change their history by changing that table, never a page.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import choose
from .kv_cache import PAGE_SIZE
from .packing import aligned, spans
from .paged_splits import LARGEST_HEAD, paged_attention_triton


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
) -> Tensor:
    """`softmax(query @ key.T * scale) @ value` over each request's pages, in an order its length alone fixes.

    Args:
        query: [rows, heads, head_dim], the rows of a request next to each other.
        keys, values: [pages, 16, heads, head_dim]: one layer's pool.
        block_tables: int32. Without `origin` [requests, blocks]: the request's pages, all rows read them.
            With `origin` [rows, blocks]: each hypothesis' own pages.
        lengths: int32 [requests], positions to attend to, at least 1 and within the table (and `origin`).
        cu_rows: int32 [requests + 1], which rows are a request's.
        scale: multiplies the scores.
        origin: int32 [rows, positions]: for each row and position, the hypothesis (0 to k - 1 within the
            request) whose page holds it.

    Returns:
        [rows, heads, head_dim].

    Raises:
        ValueError: tables, keys or values that do not fit the query.
    """
    wanted = (PAGE_SIZE, *query.shape[1:])
    if keys.shape != values.shape or keys.shape[1:] != wanted or query.dim() != 3:
        raise ValueError(
            f"keys {list(keys.shape)} and values {list(values.shape)} do not fit a query of "
            f"{list(query.shape)}; both must be [pages, {', '.join(map(str, wanted))}]"
        )
    if not keys.dtype == values.dtype == query.dtype:
        raise ValueError(
            f"query, keys and values must have one dtype, got {query.dtype}, {keys.dtype} and {values.dtype}"
        )
    tables = query.shape[0] if origin is not None else lengths.shape[0]
    if block_tables.shape[0] != tables:
        raise ValueError(f"block_tables has {block_tables.shape[0]} rows, but there are {tables} to serve")
    run = choose(
        query,
        keys,
        values,
        block_tables,
        lengths,
        cu_rows,
        origin,
        reference=paged_attention_reference,
        cpu=paged_attention_cpu,
        triton=paged_attention_triton if query.shape[2] <= LARGEST_HEAD else None,
    )
    return run(query, keys, values, block_tables, lengths, cu_rows, scale=scale, origin=origin)


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
) -> Tensor:
    """The specification, in plain torch: gather each row's own keys and values, then plain softmax."""
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


def paged_attention_cpu(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    block_tables: Tensor,
    lengths: Tensor,
    cu_rows: Tensor,
    *,
    scale: float,
    origin: Tensor | None = None,
) -> Tensor:
    """torch's fused attention, one call a request: all its rows over all its pages, masked by origin."""
    out = torch.empty_like(query)
    tables = block_tables.tolist()
    for request, ((start, end), length) in enumerate(zip(spans(cu_rows), lengths.tolist(), strict=True)):
        blocks = -(-length // PAGE_SIZE)
        mask = None
        if origin is None:
            key = _rows_of(keys, tables[request][:blocks])[:length]
            value = _rows_of(values, tables[request][:blocks])[:length]
        elif end - start == 1:
            key = _rows_of(keys, tables[start][:blocks])[:length]
            value = _rows_of(values, tables[start][:blocks])[:length]
        else:
            # Rows past the length are cut off, not masked: they may hold what an earlier owner left there.
            key = torch.cat([_rows_of(keys, tables[row][:blocks])[:length] for row in range(start, end)])
            value = torch.cat([_rows_of(values, tables[row][:blocks])[:length] for row in range(start, end)])
            mask = _origin_mask(origin[start:end, :length])
        out[start:end] = F.scaled_dot_product_attention(
            aligned(query[start:end]).transpose(0, 1)[None],
            key.transpose(0, 1)[None],
            value.transpose(0, 1)[None],
            attn_mask=mask,
            scale=scale,
        )[0].transpose(0, 1)
    return out


def _rows_of(pool: Tensor, pages: list[int]) -> Tensor:
    """The rows of these pages end to end [pages * 16, heads, head_dim]; a view where they are consecutive."""
    first, count = pages[0], len(pages)
    if pages == list(range(first, first + count)):
        rows = aligned(pool[first : first + count])
    else:
        rows = pool[torch.tensor(pages)]
    return rows.flatten(0, 1)


def _origin_mask(origin: Tensor) -> Tensor:
    """Which of k hypotheses' rows, end to end, each one reads: bool [k, k * length] from [k, length]."""
    owner = torch.arange(origin.shape[0], device=origin.device)[None, :, None]
    return (origin[:, None, :] == owner).flatten(1)
