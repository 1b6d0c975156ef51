"""Admission of sequences: their rows in all tables by slot, written in one launch from one buffer."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import kernel
from ..runtime.optional_triton import tl
from .tables import DRAW_INDEX, NUMBERS, SEED, SEQUENCE_INDEX

# Columns of an admitted sequence, int32: its slot; its numbers, in the order of their table; then these.
START_TOKEN, BEHIND, OWN_BEGIN, OWN_COUNT, CROSS_BEGIN, CROSS_COUNT = range(1 + NUMBERS, 7 + NUMBERS)
SEED_COLUMN = 18  # and the next one, an int64
COLUMNS = 20  # aligned to 16 bytes, as the pages behind all rows are then


class SlotFields(NamedTuple):
    """Tables by sequence slot of what an admission fixes."""

    numbers: Tensor  # int32 [NUMBERS, slots]
    draws: Tensor  # int64 [2, slots]
    self_pages: Tensor  # int32 [slots, blocks]
    cross_pages: Tensor  # int32 [slots, blocks], in the first slot of each request


class SequenceFields(Protocol):
    """Tables by sequence slot that begin a sequence, all contiguous."""

    @property
    def tokens(self) -> Tensor:
        """int32 [slots, longest]."""

    @property
    def length(self) -> Tensor:
        """int32 [slots], as final_length and ended_count."""

    @property
    def final_length(self) -> Tensor: ...

    @property
    def ended_count(self) -> Tensor: ...

    @property
    def score(self) -> Tensor:
        """float32 [slots], as final_score."""

    @property
    def final_score(self) -> Tensor: ...

    @property
    def done(self) -> Tensor:
        """bool [slots], as final_done and request_done."""

    @property
    def final_done(self) -> Tensor: ...

    @property
    def request_done(self) -> Tensor: ...


def admit(admitted: Tensor, rows: int, fields: SlotFields, sequences: SequenceFields, worst: float) -> None:
    """Write the rows of admitted sequences to all tables, and begin each with its start token.

    Args:
        admitted: int32 [20 * rows + pages]: COLUMNS numbers of each sequence, then page numbers, of which a
            sequence has those from OWN_BEGIN and CROSS_BEGIN on, counted from the beginning of the tensor.
        rows: number of sequences.
        fields: tables of what an admission fixes.
        sequences: tables of the sequences.
        worst: first score of a sequence that is BEHIND, and of ended sequences that are still missing.
    """
    _admit(admitted, rows, fields, sequences, worst)


def admit_reference(
    admitted: Tensor, rows: int, fields: SlotFields, sequences: SequenceFields, worst: float
) -> None:
    """Reference implementation of `admit` in plain torch."""
    table = admitted[: rows * COLUMNS].view(rows, COLUMNS)
    slots = table[:, 0].long()
    fields.numbers.index_copy_(1, slots, table[:, 1 : 1 + NUMBERS].T)
    fields.draws[SEED].index_copy_(0, slots, table[:, SEED_COLUMN:].contiguous().view(torch.int64)[:, 0])
    fields.draws[DRAW_INDEX].index_copy_(0, slots, table[:, 1 + SEQUENCE_INDEX].long())
    for pages, begin, count in (
        (fields.self_pages, OWN_BEGIN, OWN_COUNT),
        (fields.cross_pages, CROSS_BEGIN, CROSS_COUNT),
    ):
        place = torch.arange(pages.shape[1], device=pages.device)
        index = (table[:, begin, None] + place).clamp(max=max(len(admitted) - 1, 0))
        pages[slots] = torch.where(place < table[:, count, None], admitted[index], pages[slots])
    behind = table[:, BEHIND] > 0
    sequences.tokens[:, 0].index_copy_(0, slots, table[:, START_TOKEN])
    sequences.length.index_fill_(0, slots, 1)
    sequences.score.index_copy_(0, slots, torch.where(behind, worst, 0.0))
    sequences.final_length.index_fill_(0, slots, 0)
    sequences.ended_count.index_fill_(0, slots, 0)
    sequences.final_score.index_fill_(0, slots, worst)
    for flags in (sequences.done, sequences.final_done, sequences.request_done):
        flags.index_fill_(0, slots, False)


def admit_triton(
    admitted: Tensor, rows: int, fields: SlotFields, sequences: SequenceFields, worst: float
) -> None:
    """`admit` in one launch."""
    case = admit_kernel.case(admitted.device)
    tables = [getattr(sequences, name) for name in _SEQUENCES]
    sizes = (
        fields.numbers.shape[1],
        fields.self_pages.shape[1],
        fields.cross_pages.shape[1],
        sequences.tokens.shape[1],
    )
    case.launch((rows,), admitted, *fields, *tables, *sizes, worst)


_admit = Operation(admit_reference, triton=admit_triton)

_SEQUENCES = (
    "tokens",
    "length",
    "score",
    "done",
    "final_length",
    "final_score",
    "final_done",
    "ended_count",
    "request_done",
)
_FIELDS = ("numbers", "draws", "self_pages", "cross_pages")


@kernel(outputs=tuple(f"{name}_ptr" for name in (*_FIELDS, *_SEQUENCES)))
def admit_kernel(
    admitted_ptr,  # [rows, COLUMNS], then pages
    numbers_ptr,  # [NUMBERS, slots]
    draws_ptr,  # [2, slots]
    self_pages_ptr,  # [slots, self_blocks]
    cross_pages_ptr,  # [slots, cross_blocks]
    tokens_ptr,  # [slots, longest]
    length_ptr,  # [slots], as the others
    score_ptr,
    done_ptr,
    final_length_ptr,
    final_score_ptr,
    final_done_ptr,
    ended_count_ptr,
    request_done_ptr,
    slots: tl.int32,
    self_blocks: tl.int32,
    cross_blocks: tl.int32,
    longest: tl.int32,
    worst: tl.float32,
    COLUMNS: tl.constexpr,
    NUMBERS: tl.constexpr,
    SEQUENCE_INDEX: tl.constexpr,
    START_TOKEN: tl.constexpr,
    BEHIND: tl.constexpr,
    OWN_BEGIN: tl.constexpr,
    CROSS_BEGIN: tl.constexpr,
    SEED_COLUMN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row_ptr = admitted_ptr + tl.program_id(0) * COLUMNS
    slot = tl.load(row_ptr).to(tl.int64)
    for name in tl.static_range(NUMBERS):
        tl.store(numbers_ptr + name * slots + slot, tl.load(row_ptr + 1 + name))
    low = tl.load(row_ptr + SEED_COLUMN).to(tl.int64) & 0xFFFFFFFF
    high = tl.load(row_ptr + SEED_COLUMN + 1).to(tl.int64)
    tl.store(draws_ptr + slot, (high << 32) | low)
    tl.store(draws_ptr + slots + slot, tl.load(row_ptr + 1 + SEQUENCE_INDEX).to(tl.int64))

    block = tl.arange(0, BLOCK)
    begin, count = tl.load(row_ptr + OWN_BEGIN), tl.load(row_ptr + OWN_BEGIN + 1)
    for start in range(0, count, BLOCK):
        place = start + block
        page = tl.load(admitted_ptr + begin + place, mask=place < count, other=0)
        tl.store(self_pages_ptr + slot * self_blocks + place, page, mask=place < count)
    begin, count = tl.load(row_ptr + CROSS_BEGIN), tl.load(row_ptr + CROSS_BEGIN + 1)
    for start in range(0, count, BLOCK):
        place = start + block
        page = tl.load(admitted_ptr + begin + place, mask=place < count, other=0)
        tl.store(cross_pages_ptr + slot * cross_blocks + place, page, mask=place < count)

    tl.store(tokens_ptr + slot * longest, tl.load(row_ptr + START_TOKEN))
    tl.store(length_ptr + slot, 1)
    tl.store(score_ptr + slot, tl.where(tl.load(row_ptr + BEHIND) != 0, worst, 0.0))
    tl.store(final_length_ptr + slot, 0)
    tl.store(final_score_ptr + slot, worst)
    tl.store(done_ptr + slot, 0)
    tl.store(final_done_ptr + slot, 0)
    tl.store(ended_count_ptr + slot, 0)
    tl.store(request_done_ptr + slot, 0)


_types = dict.fromkeys((f"{name}_ptr" for name in ("admitted", *_FIELDS, *_SEQUENCES)), torch.int32) | {
    "draws_ptr": torch.int64,
    "score_ptr": torch.float32,
    "final_score_ptr": torch.float32,
    "done_ptr": torch.bool,
    "final_done_ptr": torch.bool,
    "request_done_ptr": torch.bool,
}
admit_kernel.declare_all(
    pointers=_types,
    num_stages=1,
    num_warps=1,
    COLUMNS=COLUMNS,
    NUMBERS=NUMBERS,
    SEQUENCE_INDEX=SEQUENCE_INDEX,
    START_TOKEN=START_TOKEN,
    BEHIND=BEHIND,
    OWN_BEGIN=OWN_BEGIN,
    CROSS_BEGIN=CROSS_BEGIN,
    SEED_COLUMN=SEED_COLUMN,
    BLOCK=32,
)
