"""Rows of a batch: what admissions fixed of its slots, copied side by side in one launch."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import kernel
from ..runtime.optional_triton import tl
from .admit import SlotFields
from .tables import DRAWS, ENCODE_TOKENS, NUMBERS


class SlotRows(NamedTuple):
    """Rows of the tables by slot, for the rows of a batch."""

    # With room for padded rows, so that kernels find each number's values aligned.
    numbers: Tensor  # int32 [NUMBERS, n or more]
    draws: Tensor  # int64 [2, n or more]
    self_tables: Tensor  # int32 [n, blocks]
    cross_tables: Tensor  # int32 [requests, blocks]
    encode_tokens: Tensor  # int32 [requests]


def gather(fields: SlotFields, slots: Tensor, first_slots: Tensor, step: int, rows: SlotRows) -> None:
    """Copy the rows of some slots.

    Args:
        fields: tables by slot.
        slots: int64 [n or more], as many as `rows` has numbers.
        first_slots: int64; every `step`-th is the first slot of a request, for all requests of `rows`.
        step: 1, or the number of hypotheses where `first_slots` is `slots`.
        rows: destination, whose page tables are no wider than those of `fields`.
    """
    _gather(fields, slots, first_slots, step, rows)


def gather_reference(
    fields: SlotFields, slots: Tensor, first_slots: Tensor, step: int, rows: SlotRows
) -> None:
    """Reference implementation of `gather` in plain torch."""
    own_rows, self_blocks = rows.self_tables.shape
    requests, cross_blocks = rows.cross_tables.shape
    first_slots = first_slots[::step][:requests]
    torch.index_select(fields.numbers, 1, slots, out=rows.numbers)
    torch.index_select(fields.draws, 1, slots, out=rows.draws)
    torch.index_select(fields.self_pages[:, :self_blocks], 0, slots[:own_rows], out=rows.self_tables)
    torch.index_select(fields.cross_pages[:, :cross_blocks], 0, first_slots, out=rows.cross_tables)
    torch.index_select(fields.numbers[ENCODE_TOKENS], 0, first_slots, out=rows.encode_tokens)


def gather_triton(fields: SlotFields, slots: Tensor, first_slots: Tensor, step: int, rows: SlotRows) -> None:
    """`gather` in one launch."""
    own_rows, self_blocks = rows.self_tables.shape
    requests, cross_blocks = rows.cross_tables.shape
    case = gather_kernel.case(slots.device)
    widths = fields.self_pages.shape[1], fields.cross_pages.shape[1], self_blocks, cross_blocks
    count = slots.shape[0]
    numbers = fields.numbers.shape[1], count, own_rows, requests, step, *widths
    case.launch((count,), slots, first_slots, *fields, *rows, *numbers)


_gather = Operation(gather_reference, triton=gather_triton)

_ROWS = tuple(f"{name}_out_ptr" for name in SlotRows._fields)


@kernel(outputs=_ROWS)
def gather_kernel(
    slots_ptr,  # [count]
    first_slots_ptr,  # [requests * step]
    numbers_ptr,  # [NUMBERS, slots]
    draws_ptr,  # [DRAWS, slots]
    self_pages_ptr,  # [slots, self_width]
    cross_pages_ptr,  # [slots, cross_width]
    numbers_out_ptr,  # [NUMBERS, count]
    draws_out_ptr,  # [DRAWS, count]
    self_tables_out_ptr,  # [rows, self_blocks]
    cross_tables_out_ptr,  # [requests, cross_blocks]
    encode_tokens_out_ptr,  # [requests]
    slots: tl.int32,
    count: tl.int32,
    rows: tl.int32,
    requests: tl.int32,
    step: tl.int32,
    self_width: tl.int32,
    cross_width: tl.int32,
    self_blocks: tl.int32,
    cross_blocks: tl.int32,
    NUMBERS: tl.constexpr,
    DRAWS: tl.constexpr,
    ENCODE_TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots_ptr + row)
    for name in tl.static_range(NUMBERS):
        tl.store(numbers_out_ptr + name * count + row, tl.load(numbers_ptr + name * slots + slot))
    for name in tl.static_range(DRAWS):
        tl.store(draws_out_ptr + name * count + row, tl.load(draws_ptr + name * slots + slot))
    block = tl.arange(0, BLOCK)
    for start in range(0, tl.where(row < rows, self_blocks, 0), BLOCK):
        place = start + block
        page = tl.load(self_pages_ptr + slot * self_width + place, mask=place < self_blocks, other=0)
        tl.store(self_tables_out_ptr + row * self_blocks + place, page, mask=place < self_blocks)
    if row < requests:
        slot = tl.load(first_slots_ptr + row * step)
        tl.store(encode_tokens_out_ptr + row, tl.load(numbers_ptr + ENCODE_TOKENS * slots + slot))
        for start in range(0, cross_blocks, BLOCK):
            place = start + block
            page = tl.load(cross_pages_ptr + slot * cross_width + place, mask=place < cross_blocks, other=0)
            tl.store(cross_tables_out_ptr + row * cross_blocks + place, page, mask=place < cross_blocks)


_types = dict.fromkeys(("slots_ptr", "first_slots_ptr", "draws_ptr", "draws_out_ptr"), torch.int64)
_types |= dict.fromkeys(("numbers_ptr", "self_pages_ptr", "cross_pages_ptr"), torch.int32)
_types |= {name: torch.int32 for name in _ROWS if name not in _types}
gather_kernel.declare_all(
    pointers=_types,
    num_stages=1,
    num_warps=1,
    NUMBERS=NUMBERS,
    DRAWS=DRAWS,
    ENCODE_TOKENS=ENCODE_TOKENS,
    BLOCK=32,
)
