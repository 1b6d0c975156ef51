"""Beginning of a decode step: each sequence's newest token, its position and its place in the cache."""

from typing import NamedTuple

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


def step_inputs(
    tokens: Tensor,
    length: Tensor,
    origin: Tensor,
    slots: Tensor,
    capacity: Tensor,
    sequence_index: Tensor,
    tables: Tensor,
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
    """
    return StepInputs(*_step_inputs(tokens, length, origin, slots, capacity, sequence_index, tables))


def step_inputs_reference(
    tokens: Tensor,
    length: Tensor,
    origin: Tensor,
    slots: Tensor,
    capacity: Tensor,
    sequence_index: Tensor,
    tables: Tensor,
) -> tuple[Tensor, ...]:
    """Reference implementation of `step_inputs` in plain torch."""
    lengths = torch.minimum(length[slots], capacity)
    positions = lengths.long() - 1
    origin[slots, positions] = sequence_index
    pages = tables.gather(1, (positions // PAGE_SIZE)[:, None])[:, 0].long()
    return tokens[slots, positions].long(), positions, pages * PAGE_SIZE + positions % PAGE_SIZE, lengths


def step_inputs_triton(
    tokens: Tensor,
    length: Tensor,
    origin: Tensor,
    slots: Tensor,
    capacity: Tensor,
    sequence_index: Tensor,
    tables: Tensor,
) -> tuple[Tensor, ...]:
    """`step_inputs` in one launch."""
    (rows, blocks), longest = tables.shape, tokens.shape[1]
    out = [torch.empty_like(slots) for _ in range(3)]
    lengths = torch.empty_like(capacity)
    case = step_inputs_kernel.case(slots.device)
    given = tokens, length, origin, slots, capacity, sequence_index, tables
    case.launch((case.block_count("BLOCK", rows),), *given, *out, lengths, rows, longest, blocks)
    return *out, lengths


_step_inputs = Operation(step_inputs_reference, triton=step_inputs_triton)


@kernel(outputs=("origin_ptr", "newest_ptr", "positions_ptr", "cache_positions_ptr", "lengths_ptr"))
def step_inputs_kernel(
    tokens_ptr,  # [slots, longest]
    length_ptr,  # [slots]
    origin_ptr,  # [slots, longest]
    slots_ptr,  # [rows]
    capacity_ptr,  # [rows]
    sequence_index_ptr,  # [rows]
    tables_ptr,  # [rows, blocks]
    newest_ptr,  # [rows]
    positions_ptr,  # [rows]
    cache_positions_ptr,  # [rows]
    lengths_ptr,  # [rows]
    rows: tl.int32,
    longest: tl.int32,
    blocks: tl.int32,
    PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < rows
    slot = tl.load(slots_ptr + row, mask=inside, other=0)
    capacity = tl.load(capacity_ptr + row, mask=inside, other=1)
    length = tl.minimum(tl.load(length_ptr + slot, mask=inside, other=1), capacity)
    position = length - 1
    newest = slot * longest + position
    tl.store(origin_ptr + newest, tl.load(sequence_index_ptr + row, mask=inside, other=0), mask=inside)
    token = tl.load(tokens_ptr + newest, mask=inside, other=0)
    page = tl.load(tables_ptr + row.to(tl.int64) * blocks + position // PAGE, mask=inside, other=0)
    tl.store(newest_ptr + row, token.to(tl.int64), mask=inside)
    tl.store(positions_ptr + row, position.to(tl.int64), mask=inside)
    tl.store(cache_positions_ptr + row, page.to(tl.int64) * PAGE + position % PAGE, mask=inside)
    tl.store(lengths_ptr + row, length, mask=inside)


_types = dict.fromkeys(
    (
        "tokens_ptr",
        "length_ptr",
        "origin_ptr",
        "capacity_ptr",
        "sequence_index_ptr",
        "tables_ptr",
        "lengths_ptr",
    ),
    torch.int32,
) | dict.fromkeys(("slots_ptr", "newest_ptr", "positions_ptr", "cache_positions_ptr"), torch.int64)
step_inputs_kernel.declare_all(pointers=_types, num_stages=1, num_warps=1, PAGE=PAGE_SIZE, BLOCK=32)
