"""Triton kernels of `paged_attention`: splits of long contexts, which a second kernel adds up in order."""

from typing import Any

import torch
from torch import Tensor

from ...runtime.launch import ALIGNMENTS, DTYPES, kernel
from ...runtime.optional_triton import tl
from ..kv_cache import PAGE_SIZE, check_pools
from ..tiles import LOG2_E

# Positions that one program reads: 40 s of audio, at 40 ms a position, are one split. A longer recording in a
# batch costs a step another launch in every layer.
SPLIT = 1024
_HEAD_DIMS = (64, 128)  # head_dim of the kernels' tiles; what exceeds a smaller head is masked
LARGEST_HEAD = _HEAD_DIMS[-1]


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
    """`paged_attention` by Triton kernels, with a program for each request, head and split.

    A second launch adds up the splits where the block tables have room for more than one.
    """
    (rows, heads, head_dim), requests = query.shape, lengths.shape[0]
    check_pools(keys, values)
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    blocks = block_tables.shape[1]
    # Room for every split that the table allows: reading the lengths would wait for the device.
    splits = -(-blocks * PAGE_SIZE // SPLIT)
    partial = statistics = None
    if splits > 1:
        partial = query.new_empty((splits, rows, heads, head_dim), dtype=torch.float32)
        statistics = query.new_empty((splits, rows, heads, 2), dtype=torch.float32)
    width = _HEAD_DIMS[0] if head_dim <= _HEAD_DIMS[0] else _HEAD_DIMS[1]
    case = paged_attention_kernel.case(
        query.device, width, query.dtype, "aligned" if head_dim % 8 == 0 else "any"
    )
    inputs = query, keys, values, block_tables, lengths, cu_rows, origin
    sizes = rows, heads, head_dim // case.constant("UNIT"), blocks
    own = (0, False) if origin is None else (origin.shape[1], True)
    numbers = *sizes, *own, SPLIT, scale * LOG2_E
    case.launch((requests * heads, splits), *inputs, out, partial, statistics, *numbers)
    if splits > 1:
        combine = combine_splits_kernel.case(query.device, query.dtype)
        grid = requests * heads, combine.block_count("BLOCK_D", head_dim)
        combine.launch(grid, partial, statistics, lengths, cu_rows, out, rows, heads, head_dim, SPLIT)
    return out


@kernel(outputs=("out_ptr", "partial_ptr", "statistics_ptr"))
def paged_attention_kernel(
    query_ptr,  # [rows, heads, head_dim]
    keys_ptr,  # [pages, 16, heads, head_dim]
    values_ptr,  # [pages, 16, heads, head_dim]
    tables_ptr,  # int32 [requests, blocks], or [rows, blocks] where rows have their own pages
    lengths_ptr,  # int32 [requests]
    cu_rows_ptr,  # int32 [requests + 1]
    origin_ptr,  # int32 [rows, positions], read where rows have their own pages only
    out_ptr,  # [rows, heads, head_dim]
    partial_ptr,  # float32 [splits, rows, heads, head_dim]; this and the next for several splits only
    statistics_ptr,  # float32 [splits, rows, heads, 2]: largest score and sum of weights
    rows: tl.int32,
    heads: tl.int32,
    units: tl.int32,  # head_dim / UNIT
    blocks: tl.int32,
    positions: tl.int32,
    own: tl.int32,  # 1 where each row has its own pages
    split: tl.int32,
    scale: tl.float32,  # times log2(e), for exp2
    UNIT: tl.constexpr,  # 8 lets halves be read 16 bytes at a time
    PRECISION: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # Programs of one request's heads run side by side, as the heads lie within a page.
    request, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    length = tl.load(lengths_ptr + request)
    first, last = tl.load(cu_rows_ptr + request), tl.load(cu_rows_ptr + request + 1)
    begin = tl.program_id(1) * split
    if begin >= length:
        return
    end = tl.minimum(begin + split, length)
    pages_of_block, table = 1, request
    if own != 0:
        pages_of_block, table = last - first, first
    tables = tables_ptr + table * blocks.to(tl.int64)

    head_dim = units * UNIT
    width = heads * head_dim
    page_size = width.to(tl.int64) * PAGE
    d = tl.arange(0, BLOCK_D)
    inside = (d < head_dim)[None, :]
    in_page = tl.arange(0, PAGE)[:, None] * width + head * head_dim + d[None, :]
    steps = tl.cdiv(end - begin, PAGE) * pages_of_block
    for row in range(first, last, BLOCK_M):
        m = tl.arange(0, BLOCK_M)
        rows_left = last - row
        mask = (m < rows_left)[:, None] & inside
        before = row * width.to(tl.int64) + head * head_dim
        offsets = m[:, None] * width + d[None, :]
        query = tl.load(query_ptr + before + offsets, mask=mask, other=0.0)
        origins = origin_ptr + row * positions.to(tl.int64)
        largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_M, PAGE), tl.float32)  # by position in a page; summed at the end
        summed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        # The next step's page is looked up a step ahead: the compiler keeps several pages in flight only
        # where no address waits for another load of the same step.
        start, page_index = begin, 0
        page = tl.load(tables + start // PAGE)
        # Each block of positions is visited once for each page of it: one, or one per hypothesis.
        for _ in range(0, steps):
            n = start + tl.arange(0, PAGE)
            # Memory behind the length is not read: it may hold anything, NaN too.
            written = n < end
            before_page = page.to(tl.int64) * page_size
            wraps = page_index + 1 == pages_of_block
            next_index = tl.where(wraps, 0, page_index + 1)
            next_start = start + tl.where(wraps, PAGE, 0)
            next_table = tables + next_index * blocks.to(tl.int64)
            page = tl.load(next_table + next_start // PAGE, mask=next_start < end, other=0)
            read = written[:, None] & inside
            key = tl.load(keys_ptr + before_page + in_page, mask=read, other=0.0)
            value = tl.load(values_ptr + before_page + in_page, mask=read, other=0.0)
            scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
            named = tl.zeros((BLOCK_M, PAGE), tl.int32) + page_index
            if pages_of_block > 1:
                named = tl.load(
                    origins + (m[:, None] * positions + n[None, :]),
                    mask=(m < rows_left)[:, None] & written[None, :],
                    other=0,
                )
            scores = tl.where(written[None, :] & (named == page_index), scores, float("-inf"))
            new_largest = tl.maximum(largest, tl.max(scores, 1))
            # -inf - -inf would be NaN, for a row that has seen no key yet.
            base = tl.where(new_largest == float("-inf"), 0.0, new_largest)
            weights = tl.exp2(scores - base[:, None])
            decay = tl.exp2(largest - base)[:, None]
            total = total * decay + weights
            summed = tl.dot(weights.to(value.dtype), value, summed * decay, input_precision=PRECISION)
            largest, start, page_index = new_largest, next_start, next_index
        sums = tl.sum(total, 1)
        # By the request's own length, never by the table's width: its bits would depend on other requests.
        if length <= split:
            result = (summed / sums[:, None]).to(out_ptr.dtype.element_ty)
            tl.store(out_ptr + before + offsets, result, mask=mask)
        else:
            rows_before = tl.program_id(1).to(tl.int64) * rows
            tl.store(partial_ptr + rows_before * width + before + offsets, summed, mask=mask)
            statistics = statistics_ptr + ((rows_before + row + m) * heads + head) * 2
            tl.store(statistics, largest, mask=m < rows_left)
            tl.store(statistics + 1, sums, mask=m < rows_left)


@kernel()
def combine_splits_kernel(
    partial_ptr,  # float32 [splits, rows, heads, head_dim]: weighted sums of values
    statistics_ptr,  # float32 [splits, rows, heads, 2]: largest score, and sum of weights relative to it
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
        mask = (m < last)[:, None] & (d < head_dim)[None, :]
        largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        summed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        for index in range(0, tl.cdiv(length, split)):
            offsets = (index * rows.to(tl.int64) + m) * heads + head
            split_largest = tl.load(statistics_ptr + offsets * 2, mask=m < last, other=0.0)
            split_total = tl.load(statistics_ptr + offsets * 2 + 1, mask=m < last, other=1.0)
            part = tl.load(partial_ptr + offsets[:, None] * head_dim + d[None, :], mask=mask, other=0.0)
            new_largest = tl.maximum(largest, split_largest)
            base = tl.where(new_largest == float("-inf"), 0.0, new_largest)
            decay, factor = tl.exp2(largest - base), tl.exp2(split_largest - base)
            total = total * decay + split_total * factor
            summed = summed * decay[:, None] + part * factor[:, None]
            largest = new_largest
        offsets = (m.to(tl.int64)[:, None] * heads + head) * head_dim + d[None, :]
        tl.store(out_ptr + offsets, (summed / total[:, None]).to(out_ptr.dtype.element_ty), mask=mask)


def _blocks(architecture: str, head_dim: int, dtype: torch.dtype, alignment: str) -> dict[str, Any]:
    """Tile sizes, warps and stages of a case.

    With heads of 64 one warp takes about 250 instructions for a page, a quarter of what a multiprocessor of
    an H200 issues until its next page arrives, at 4.3 TB/s in all. Five stages keep 12 to 16 KiB in flight in
    each of the eight programs that it holds; 26 KiB in all would do at a latency of 0.8 microseconds.
    float32, which has no matrix unit, and unaligned rows, with a register for each address, take more warps.
    """
    plain, half = alignment == "any", dtype != torch.float32
    num_warps = (2 if plain else 1) * (head_dim // 64) if half else 8 if plain else 4
    num_stages = 1 if plain else 2 if architecture == "gfx942" else 5 if half and head_dim == 64 else 4
    sizes = {"UNIT": 1 if plain else 8, "BLOCK_D": head_dim}
    return sizes | {"num_warps": num_warps, "num_stages": num_stages}


_types = dict.fromkeys(
    ("tables_ptr", "lengths_ptr", "cu_rows_ptr", "origin_ptr"), torch.int32
) | dict.fromkeys(("partial_ptr", "statistics_ptr"), torch.float32)
paged_attention_kernel.declare_all(
    _HEAD_DIMS, DTYPES, ALIGNMENTS, pointers=_types, blocks=_blocks, PAGE=PAGE_SIZE, BLOCK_M=16
)
combine_splits_kernel.declare_all(DTYPES, pointers=_types, num_stages=1, BLOCK_M=16, BLOCK_D=64)
