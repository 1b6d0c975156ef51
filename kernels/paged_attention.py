"""One query step over paged keys and values.

A request's hypotheses are consecutive query rows. Cross-attention pages belong to the request and all
its rows read them. Self-attention pages belong to a hypothesis each, and `origin` says whose row stands
for which position of which hypothesis: beams change their history by changing that table, never a page.
"""

import math

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .dispatch import choose
from .kv_cache import PAGE_SIZE, check_pools
from .launch import ARCHITECTURES, DTYPES, kernel, precision, ready
from .packing import aligned, spans

# Positions that one program of the kernel goes through. A longer context is split into so many programs,
# whose results a second kernel adds up in their order: 20 s of audio at 40 ms a position need only the first.
SPLIT = 512
_HEAD_DIMS = (64, 128, 256)  # what the kernels' tiles hold of a head; smaller heads are masked, not read


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
        triton=paged_attention_triton,
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


def paged_attention_triton(
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
    """A program for each request, head and split; a second launch where the table has room for two splits."""
    (rows, heads, head_dim), requests = query.shape, lengths.shape[0]
    if head_dim > _HEAD_DIMS[-1]:  # no speech model has such heads
        return paged_attention_reference(
            query, keys, values, block_tables, lengths, cu_rows, scale=scale, origin=origin
        )
    check_pools(keys, values)
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    lengths, cu_rows, block_tables = ready(lengths), ready(cu_rows), ready(block_tables)
    blocks = block_tables.shape[1]
    # Room for every split that the table allows: the lengths are on the device, and nobody waits for them.
    splits = -(-blocks * PAGE_SIZE // SPLIT)
    partial = query.new_empty(
        (splits if splits > 1 else 0, rows, heads, head_dim), dtype=torch.float32
    )
    statistics = query.new_empty((2, *partial.shape[:3]), dtype=torch.float32)
    case = paged_attention_kernel.case(
        query.device,
        next(size for size in _HEAD_DIMS if head_dim <= size),
        query.dtype,
        "aligned" if head_dim % 8 == 0 else "any",
    )
    case.launch(
        (requests * heads, splits),
        ready(query),
        keys,
        values,
        block_tables,
        lengths,
        cu_rows,
        block_tables if origin is None else ready(origin),
        out,
        partial,
        statistics[0],
        statistics[1],
        rows,
        heads,
        head_dim // case.constant("UNIT"),
        blocks,
        0 if origin is None else origin.shape[1],
        int(origin is not None),
        SPLIT,
        scale * math.log2(math.e),
    )
    if splits > 1:
        combine = combine_splits_kernel.case(query.device, query.dtype)
        combine.launch(
            (requests * heads, triton.cdiv(head_dim, combine.constant("BLOCK_D"))),
            partial,
            statistics[0],
            statistics[1],
            lengths,
            cu_rows,
            out,
            rows,
            heads,
            head_dim,
            SPLIT,
        )
    return out


@kernel()
def paged_attention_kernel(
    query_ptr,  # [rows, heads, head_dim]
    keys_ptr,  # [pages, 16, heads, head_dim]
    values_ptr,  # [pages, 16, heads, head_dim]
    tables_ptr,  # int32 [requests, blocks], with own pages [rows, blocks]
    lengths_ptr,  # int32 [requests]
    cu_rows_ptr,  # int32 [requests + 1]
    origin_ptr,  # int32 [rows, positions], with own pages only
    out_ptr,  # [rows, heads, head_dim]
    partial_ptr,  # float32 [splits, rows, heads, head_dim], as the next two for requests of several splits
    largest_ptr,  # float32 [splits, rows, heads]
    total_ptr,  # float32 [splits, rows, heads]
    rows: tl.int32,
    heads: tl.int32,
    units: tl.int32,  # head_dim / UNIT
    blocks: tl.int32,
    positions: tl.int32,
    own: tl.int32,  # 1 where each row has pages of its own
    split: tl.int32,
    scale: tl.float32,  # times log2(e), for exp2
    UNIT: tl.constexpr,  # 8 lets halves be read 16 bytes at a time
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # Heads side by side: their parts of a page are, too.
    request, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    length = tl.load(lengths_ptr + request)
    begin = tl.program_id(1) * split
    if begin >= length:
        return
    end = tl.minimum(begin + split, length)
    first, last = tl.load(cu_rows_ptr + request), tl.load(cu_rows_ptr + request + 1)
    holders, table = 1, request
    if own != 0:
        holders, table = last - first, first
    tables = tables_ptr + table.to(tl.int64) * blocks

    head_dim = units * UNIT
    width = (heads * head_dim).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    keys = keys_ptr + head * head_dim + d[None, :]
    values = values_ptr + head * head_dim + d[None, :]
    inside = (d < head_dim)[None, :]
    steps = tl.cdiv(end - begin, BLOCK_N) * holders
    for row in range(first, last, BLOCK_M):
        m = row + tl.arange(0, BLOCK_M)
        there = (m < last)[:, None] & inside
        places = m.to(tl.int64)[:, None] * width + head * head_dim + d[None, :]
        query = tl.load(query_ptr + places, mask=there, other=0.0)
        largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        summed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        # Each block of positions as often as there are holders of it, in one loop that can run ahead.
        for step in range(0, steps):
            n = begin + step // holders * BLOCK_N + tl.arange(0, BLOCK_N)
            holder = step % holders
            # What lies behind the length may be anything, so it is not even read.
            written = n < end
            page = tl.load(tables + holder.to(tl.int64) * blocks + n // 16, mask=written, other=0)
            offsets = (page.to(tl.int64) * 16 + n % 16)[:, None] * width
            key = tl.load(keys + offsets, mask=written[:, None] & inside, other=0.0)
            value = tl.load(values + offsets, mask=written[:, None] & inside, other=0.0)
            scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
            seen = tl.broadcast_to(written[None, :], (BLOCK_M, BLOCK_N))
            if holders > 1:
                named = tl.load(
                    origin_ptr + m.to(tl.int64)[:, None] * positions + n[None, :],
                    mask=(m < last)[:, None] & seen,
                    other=0,
                )
                seen = seen & (named == holder)
            scores = tl.where(seen, scores, float("-inf"))
            new_largest = tl.maximum(largest, tl.max(scores, 1))
            # A row that has seen nothing yet subtracts 0 from -inf, not -inf.
            base = tl.where(new_largest == float("-inf"), 0.0, new_largest)
            weights = tl.exp2(scores - base[:, None])
            decay = tl.exp2(largest - base)
            total = total * decay + tl.sum(weights, 1)
            summed = tl.dot(
                weights.to(value.dtype), value, summed * decay[:, None], input_precision=PRECISION
            )
            largest = new_largest
        # A request's own length decides, never the table's width, or its bits would depend on the others.
        if length <= split:
            tl.store(out_ptr + places, (summed / total[:, None]).to(out_ptr.dtype.element_ty), mask=there)
        else:
            before = tl.program_id(1).to(tl.int64) * rows
            tl.store(partial_ptr + before * width + places, summed, mask=there)
            statistics = (before + m) * heads + head
            tl.store(largest_ptr + statistics, largest, mask=m < last)
            tl.store(total_ptr + statistics, total, mask=m < last)


@kernel()
def combine_splits_kernel(
    partial_ptr,  # float32 [splits, rows, heads, head_dim]: weighted sums of values
    largest_ptr,  # float32 [splits, rows, heads]: largest scores, which weights are relative to
    total_ptr,  # float32 [splits, rows, heads]: sums of weights
    lengths_ptr,  # int32 [requests]
    cu_rows_ptr,  # int32 [requests + 1]
    out_ptr,  # [rows, heads, head_dim]
    rows: tl.int32,
    heads: tl.int32,
    head_dim: tl.int32,
    split: tl.int32,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    request, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    length = tl.load(lengths_ptr + request)
    if length <= split:  # its one split has written the result
        return
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    last = tl.load(cu_rows_ptr + request + 1)
    for row in range(tl.load(cu_rows_ptr + request), last, BLOCK_M):
        m = row + tl.arange(0, BLOCK_M)
        there = (m < last)[:, None] & (d < head_dim)[None, :]
        largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        summed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        for index in range(0, tl.cdiv(length, split)):
            places = (index.to(tl.int64) * rows + m) * heads + head
            split_largest = tl.load(largest_ptr + places, mask=m < last, other=0.0)
            split_total = tl.load(total_ptr + places, mask=m < last, other=1.0)
            part = tl.load(partial_ptr + places[:, None] * head_dim + d[None, :], mask=there, other=0.0)
            new_largest = tl.maximum(largest, split_largest)
            base = tl.where(new_largest == float("-inf"), 0.0, new_largest)
            decay, factor = tl.exp2(largest - base), tl.exp2(split_largest - base)
            total = total * decay + split_total * factor
            summed = summed * decay[:, None] + part * factor[:, None]
            largest = new_largest
        places = (m.to(tl.int64)[:, None] * heads + head) * head_dim + d[None, :]
        tl.store(out_ptr + places, (summed / total[:, None]).to(out_ptr.dtype.element_ty), mask=there)


def _declare() -> None:
    """Keys and values of a tile are 8 KiB each where products allow it; three stages of both leave room for
    four programs on an H200's multiprocessor, 128 KiB on their way."""
    for architecture in ARCHITECTURES:
        for dtype in DTYPES:
            for head_dim in _HEAD_DIMS:
                for alignment in ("aligned", "any"):
                    paged_attention_kernel.declare(
                        head_dim,
                        dtype,
                        alignment,
                        architecture=architecture,
                        pointers={
                            **dict.fromkeys(("query_ptr", "keys_ptr", "values_ptr", "out_ptr"), dtype),
                            **dict.fromkeys(
                                ("tables_ptr", "lengths_ptr", "cu_rows_ptr", "origin_ptr"), torch.int32
                            ),
                            **dict.fromkeys(("partial_ptr", "largest_ptr", "total_ptr"), torch.float32),
                        },
                        UNIT=8 if alignment == "aligned" else 1,
                        PRECISION=precision(dtype),
                        BLOCK_M=16,
                        BLOCK_N=max(16, 8192 // (head_dim * dtype.itemsize)),
                        BLOCK_D=head_dim,
                        num_warps=4,
                        num_stages=2 if architecture == "gfx942" else 3,
                    )
            combine_splits_kernel.declare(
                dtype,
                architecture=architecture,
                pointers={
                    **dict.fromkeys(("partial_ptr", "largest_ptr", "total_ptr"), torch.float32),
                    **dict.fromkeys(("lengths_ptr", "cu_rows_ptr"), torch.int32),
                    "out_ptr": dtype,
                },
                BLOCK_M=16,
                BLOCK_D=64,
                num_warps=4,
                num_stages=1,
            )


_declare()
