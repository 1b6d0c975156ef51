"""Beginning of a decode step: each sequence's newest token, its position and its place in the cache."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..attention.kv_cache import PAGE_SIZE
from ..runtime.dispatch import Operation
from ..runtime.launch import kernel
from ..runtime.optional_triton import tl


class StepInputs(NamedTuple):
    """Inputs of a decode step, one of each for every row."""

    tokens: Tensor  # int64 [rows], newest tokens
    positions: Tensor  # int64 [rows], their positions, from 0
    cache_positions: Tensor  # int64 [rows], `page * 16 + position in the page`
    lengths: Tensor  # int32 [rows], number of tokens
    # Where requests search with beams:
    request_lengths: Tensor | None = None  # int32 [requests], number of tokens of each one's hypotheses
    origins: Tensor | None = None  # int32 [rows, longest], the rows' own of the table of origins


def step_inputs(
    tokens: Tensor,
    length: Tensor,
    origin: Tensor,
    slots: Tensor,
    capacity: Tensor,
    sequence_index: Tensor,
    tables: Tensor,
    cu_rows: Tensor | None = None,
    longest: int = 0,
) -> StepInputs:
    """Inputs of a decode step; each sequence is entered in `origin` as the owner of its newest position.

    Args:
        tokens: int32 [slots, longest], the tokens of each sequence.
        length: int32 [slots], number of tokens, at least 1.
        origin: int32 [slots, longest], written in place: the hypothesis whose page holds a position.
        slots: int64 [rows].
        capacity: int32 [rows], positions that a row has pages for; its length is cut to that.
        sequence_index: int32 [rows], a row's index among its request's hypotheses.
        tables: int32 [rows, blocks], pages of each row.
        cu_rows: int32 [requests + 1], offsets of the rows of each request, where requests search with beams.
        longest: upper bound of the lengths, with `cu_rows`.
    """
    rows = slots, capacity, sequence_index, tables, cu_rows, longest
    return StepInputs(*_step_inputs(tokens, length, origin, *rows))


def step_inputs_reference(
    tokens: Tensor,
    length: Tensor,
    origin: Tensor,
    slots: Tensor,
    capacity: Tensor,
    sequence_index: Tensor,
    tables: Tensor,
    cu_rows: Tensor | None = None,
    longest: int = 0,
) -> tuple[Tensor | None, ...]:
    """Reference implementation of `step_inputs` in plain torch."""
    lengths = torch.minimum(length[slots], capacity)
    positions = lengths.long() - 1
    origin[slots, positions] = sequence_index
    pages = tables.gather(1, (positions // PAGE_SIZE)[:, None])[:, 0].long()
    cache_positions = pages * PAGE_SIZE + positions % PAGE_SIZE
    request_lengths = origins = None
    if cu_rows is not None:
        request_lengths, origins = lengths[cu_rows[:-1].long()], origin[slots, :longest]
    newest = tokens[slots, positions].long()
    return newest, positions, cache_positions, lengths, request_lengths, origins


def step_inputs_triton(
    tokens: Tensor,
    length: Tensor,
    origin: Tensor,
    slots: Tensor,
    capacity: Tensor,
    sequence_index: Tensor,
    tables: Tensor,
    cu_rows: Tensor | None = None,
    longest: int = 0,
) -> tuple[Tensor | None, ...]:
    """`step_inputs` in one launch, which copies origins no further than the lengths."""
    (rows, blocks), width = tables.shape, tokens.shape[1]
    out = [torch.empty_like(slots) for _ in range(3)]
    lengths, requests = torch.empty_like(capacity), 0
    request_lengths = origins = None
    if cu_rows is not None:
        requests = len(cu_rows) - 1
        request_lengths = torch.empty(requests, dtype=torch.int32, device=slots.device)
        origins = torch.empty(rows, longest, dtype=torch.int32, device=slots.device)
    case = step_inputs_kernel.case(slots.device, "plain" if cu_rows is None else "beams")
    given = tokens, length, origin, slots, capacity, sequence_index, tables, cu_rows
    numbers = rows, width, blocks, requests, longest
    grid = case.block_count("BLOCK", rows), 1 if origins is None else case.block_count("BLOCK_N", longest)
    case.launch(grid, *given, *out, lengths, request_lengths, origins, *numbers)
    return *out, lengths, request_lengths, origins


_step_inputs = Operation(step_inputs_reference, triton=step_inputs_triton)


@kernel(
    outputs=(
        *("origin_ptr", "newest_ptr", "positions_ptr", "cache_positions_ptr", "lengths_ptr"),
        *("request_lengths_ptr", "origins_ptr"),
    )
)
def step_inputs_kernel(
    tokens_ptr,  # [slots, width]
    length_ptr,  # [slots]
    origin_ptr,  # [slots, width]
    slots_ptr,  # [rows]
    capacity_ptr,  # [rows]
    sequence_index_ptr,  # [rows]
    tables_ptr,  # [rows, blocks]
    cu_rows_ptr,  # [requests + 1]
    newest_ptr,  # [rows]
    positions_ptr,  # [rows]
    cache_positions_ptr,  # [rows]
    lengths_ptr,  # [rows]
    request_lengths_ptr,  # [requests]
    origins_ptr,  # [rows, longest]
    rows: tl.int32,
    width: tl.int32,
    blocks: tl.int32,
    requests: tl.int32,
    longest: tl.int32,
    PAGE: tl.constexpr,
    BEAMS: tl.constexpr,  # 1 with the lengths of requests, and origins
    BLOCK: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < rows
    slot = tl.load(slots_ptr + row, mask=inside, other=0)
    capacity = tl.load(capacity_ptr + row, mask=inside, other=1)
    length = tl.minimum(tl.load(length_ptr + slot, mask=inside, other=1), capacity)
    position = length - 1
    index = tl.load(sequence_index_ptr + row, mask=inside, other=0)
    if tl.program_id(1) == 0:
        newest = slot * width + position
        tl.store(origin_ptr + newest, index, mask=inside)
        token = tl.load(tokens_ptr + newest, mask=inside, other=0)
        page = tl.load(tables_ptr + row.to(tl.int64) * blocks + position // PAGE, mask=inside, other=0)
        tl.store(newest_ptr + row, token.to(tl.int64), mask=inside)
        tl.store(positions_ptr + row, position.to(tl.int64), mask=inside)
        tl.store(cache_positions_ptr + row, page.to(tl.int64) * PAGE + position % PAGE, mask=inside)
        tl.store(lengths_ptr + row, length, mask=inside)
        if BEAMS:
            # As there are no more requests than rows, the numbers of rows serve as those of requests.
            first = tl.load(cu_rows_ptr + row, mask=row < requests, other=0)
            first_slot = tl.load(slots_ptr + first, mask=row < requests, other=0)
            capacity = tl.load(capacity_ptr + first, mask=row < requests, other=1)
            length = tl.load(length_ptr + first_slot, mask=row < requests, other=1)
            tl.store(request_lengths_ptr + row, tl.minimum(length, capacity), mask=row < requests)
    if BEAMS:
        n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
        # The newest origin may not have been written yet.
        earlier = inside[:, None] & (n[None, :] < position[:, None])
        origins = tl.load(origin_ptr + slot[:, None] * width + n[None, :], mask=earlier, other=0)
        origins = tl.where(earlier, origins, index[:, None])
        written = inside[:, None] & (n[None, :] <= tl.minimum(position, longest - 1)[:, None])
        tl.store(origins_ptr + row.to(tl.int64)[:, None] * longest + n[None, :], origins, mask=written)


def _blocks(architecture: str, kind: str) -> dict[str, Any]:
    beams = kind == "beams"
    return {"BEAMS": int(beams), "BLOCK": 16 if beams else 32, "num_warps": 4 if beams else 1}


_types = dict.fromkeys(
    (
        *("tokens_ptr", "length_ptr", "origin_ptr", "capacity_ptr", "sequence_index_ptr", "tables_ptr"),
        *("cu_rows_ptr", "lengths_ptr", "request_lengths_ptr", "origins_ptr"),
    ),
    torch.int32,
) | dict.fromkeys(("slots_ptr", "newest_ptr", "positions_ptr", "cache_positions_ptr"), torch.int64)
step_inputs_kernel.declare_all(
    ("plain", "beams"), pointers=_types, blocks=_blocks, num_stages=1, PAGE=PAGE_SIZE, BLOCK_N=64
)
