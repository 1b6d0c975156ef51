"""One query step over paged keys and values.

A request's hypotheses are consecutive query rows. Cross-attention pages belong to the request and all
its rows read them. Self-attention pages belong to a hypothesis each, and `origin` says whose row stands
for which position of which hypothesis: beams change their history by changing that table, never a page.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

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
            With `origin` [rows, blocks]: each hypothesis' own pages. Like `lengths` and `origin` not to be
            changed in place: what is derived from them is kept while they live, for the layers that follow.
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
    """Pages that a request's rows share are read where they lie; rows with pages of their own are gathered,
    those of one length together."""
    if origin is None:
        return _over_shared_pages(query, keys, values, _spans_of(block_tables, lengths, cu_rows), scale)
    out = torch.empty_like(query)
    heads, head_dim = query.shape[1:]
    for rows, places, length in _gathers_of(block_tables, lengths, cu_rows, origin, heads):
        # In float32 whatever the type: a copy is made anyway, and it stays in the cache.
        key, value = (
            pool.view(-1, head_dim).index_select(0, places).view(len(rows), heads, -1, head_dim).float()
            for pool in (keys, values)
        )
        out[rows] = over_gathered_pages(query[rows].float(), key, value, length, scale).to(out.dtype)
    return out


def over_gathered_pages(query: Tensor, key: Tensor, value: Tensor, length: int, scale: float) -> Tensor:
    """Attention of rows that have keys of their own: `query` [rows, heads, head_dim] to the same.

    Args:
        query: float32, as all.
        key, value: [rows, heads, positions, head_dim], a multiple of 16 positions.
        length: how many of the positions count.
        scale: multiplies the scores.
    """
    rows, heads, head_dim = query.shape
    # Where a head's numbers end inside of 64 bytes, zeros fill them: see `_gathers_of`.
    rest = -head_dim % 16
    if rest:
        key, value, query = F.pad(key, (0, rest)), F.pad(value, (0, rest)), F.pad(query, (0, rest))
    key, value = key.flatten(0, 1), value.flatten(0, 1)
    # Not by torch's fused attention, whose sums depend on the thread that a row falls to.
    scores = torch.bmm(key, query.reshape(rows * heads, -1, 1)).mul_(scale).transpose(1, 2)
    scores[:, :, length:] = -math.inf
    return torch.bmm(scores.softmax(-1), value)[:, 0, :head_dim].reshape(rows, heads, head_dim)


class _Span(NamedTuple):
    """Where a request's keys lie: rows of the batch, length, first page, and all pages if not consecutive."""

    start: int
    end: int
    length: int
    page: int
    pages: Tensor | None


def _over_shared_pages(
    query: Tensor, keys: Tensor, values: Tensor, requests: list[_Span], scale: float
) -> Tensor:
    if query.dtype == torch.bfloat16:
        return _by_all_heads(query, keys, values, requests, scale)
    out = []
    for span in requests:
        key, value = (_rows_of(pool, span).transpose(0, 1)[None] for pool in (keys, values))
        rows = aligned(query[span.start : span.end]).transpose(0, 1)[None]
        out.append(F.scaled_dot_product_attention(rows, key, value, scale=scale)[0].transpose(0, 1))
    return torch.cat(out) if out else torch.empty_like(query)


def _by_all_heads(query: Tensor, keys: Tensor, values: Tensor, requests: list[_Span], scale: float) -> Tensor:
    """All heads in one product, each with zeros in place of the others' numbers.

    It reads keys and values as they lie, which takes 2 to 4 times less than torch's fused attention in
    bfloat16: that one copies them. Scores are rounded to bfloat16, as transformers rounds them.
    """
    rows, heads, head_dim = query.shape
    alone = query.new_zeros(rows, heads, heads, head_dim)
    alone.diagonal(dim1=1, dim2=2).copy_((query.float() * scale).transpose(1, 2))
    alone = alone.view(rows * heads, heads * head_dim)
    out = torch.empty_like(alone)
    for span in requests:
        key, value = (_rows_of(pool, span).flatten(1) for pool in (keys, values))
        ours = slice(span.start * heads, span.end * heads)
        torch.mm(torch.mm(alone[ours], key.T).softmax(-1), value, out=out[ours])
    # Of each head's row its own numbers: [rows, head_dim, heads].
    return out.view(rows, heads, heads, head_dim).diagonal(dim1=1, dim2=2).transpose(1, 2).contiguous()


def _rows_of(pool: Tensor, span: _Span) -> Tensor:
    """A request's rows end to end [length, heads, head_dim]; a view where its pages are consecutive."""
    if span.pages is not None:
        return pool[span.pages].flatten(0, 1)[: span.length]
    first = span.page * PAGE_SIZE
    return aligned(pool.flatten(0, 1)[first : first + span.length])


# By lengths, then by table: all layers of a step, and the steps between arrivals, ask for the same.
_made: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _spans_of(block_tables: Tensor, lengths: Tensor, cu_rows: Tensor) -> list[_Span]:
    of_lengths = _made.setdefault(lengths, WeakTensorKeyDictionary())
    found = of_lengths.get(block_tables)
    if found is None:
        found = []
        ends = spans(cu_rows)
        for (start, end), length, pages in zip(ends, lengths.tolist(), block_tables.tolist(), strict=True):
            pages = pages[: -(-length // PAGE_SIZE)]
            together = pages == list(range(pages[0], pages[0] + len(pages)))
            found.append(_Span(start, end, length, pages[0], None if together else torch.tensor(pages)))
        of_lengths[block_tables] = found
    return found


# Rows whose keys and values are gathered at a time: in a small model 2 MB of each, in float32.
_GATHERED = 2048


def _gathers_of(
    block_tables: Tensor, lengths: Tensor, cu_rows: Tensor, origin: Tensor, heads: int
) -> list[tuple[Tensor, Tensor, int]]:
    """Rows of the batch that have one length, where their heads' keys lie, and the length.

    A head's keys take whole pages, the last of them over and over, so that all begin at a multiple of 64
    bytes: MKL chooses the order of some sums by the address.
    """
    of_lengths = _made.setdefault(lengths, WeakTensorKeyDictionary())
    found = of_lengths.get(origin)
    if found is None:
        by_length: dict[int, list[tuple[int, int]]] = {}
        for (start, end), length in zip(spans(cu_rows), lengths.tolist(), strict=True):
            by_length.setdefault(length, []).extend((row, start) for row in range(start, end))
        found = []
        for length, members in by_length.items():
            positions = torch.arange(-(-length // PAGE_SIZE) * PAGE_SIZE).clamp(max=length - 1)
            size = max(1, _GATHERED // length)
            for begin in range(0, len(members), size):
                part = members[begin : begin + size]
                # A product of a single row and head goes by other code than one of several.
                rows, first = torch.tensor(part * 2 if len(part) * heads == 1 else part).T
                owners = first[:, None] + origin[rows[:, None], positions]
                pages = block_tables[owners, positions // PAGE_SIZE].long()
                slots = pages * PAGE_SIZE + positions % PAGE_SIZE
                places = slots[:, None] * heads + torch.arange(heads)[:, None]  # [rows, heads, positions]
                found.append((rows, places.flatten(), length))
        of_lengths[origin] = found
    return found
