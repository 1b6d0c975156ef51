"""Tables on the device of what a request's admission fixes, by sequence slot, and the tensors of a batch.

Rows are written when requests are admitted, all of a step in one copy and one launch. A batch then is a list
of slots, whose rows are gathered on the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..kernels.runtime.upload import upload, upload_all
from ..kernels.sampling.beams_triton import UNREACHABLE
from ..kernels.slots.admit import COLUMNS, OWN_BEGIN, SEED_COLUMN, SlotFields, admit
from ..kernels.slots.gather import SlotRows, gather
from ..kernels.slots.tables import (
    CAPACITY,
    DRAW_INDEX,
    DRAWS,
    ENCODE_TOKENS,
    FORCED_FIRST,
    MAX_LENGTH,
    MIN_LENGTH,
    NUMBERS,
    PROMPT_LENGTH,
    SEED,
    SEQUENCE_INDEX,
)
from .cache.attention_metadata import PageLayout
from .sampling.select import SamplingGroup
from .state import DecodeState

if TYPE_CHECKING:
    from .batch import Batch, RunningRequest
    from .request import GenerationOptions


@dataclass(slots=True)
class BatchTensors:
    """Tensors of a batch that all its decode steps share; n rows, one per hypothesis."""

    slots: Tensor  # int64 [n], each row's sequence slot
    first_slots: Tensor  # int64 [requests], each request's first sequence slot
    sequence_index: Tensor  # int32 [n], each row's index among its request's hypotheses
    # int32 [n], positions that a row has pages for. A row that has ended and is not yet released stays at
    # its last position, so that it writes nowhere else.
    capacity: Tensor
    self_tables: Tensor  # int32 [n, blocks]
    cross: PageLayout  # pages of the encoder outputs
    # int32, offsets of the rows that read each other's pages: those of a request in beam search. Without beam
    # search each row reads its own.
    cu_own: Tensor
    groups: list[SamplingGroup]  # requests that share their rules
    longest: int  # upper bound of all lengths
    keep_scores: bool  # True if a request keeps every step's scores

    @property
    def searches(self) -> bool:
        """True if a request searches with beams, whose rows need a table of origins."""
        return any(group.options.num_beams > 1 for group in self.groups)


def empty_rows(
    rows: int, requests: int, self_blocks: int, cross_blocks: int, device: torch.device
) -> SlotRows:
    """Uninitialized rows of a batch of these sizes."""

    def table(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    return SlotRows(
        numbers=table(NUMBERS, padded(rows)),
        draws=table(DRAWS, padded(rows), dtype=torch.int64),
        self_tables=table(rows, self_blocks),
        cross_tables=table(requests, cross_blocks),
        encode_tokens=table(requests),
    )


def batch_tensors(
    rows: SlotRows,
    slots: Tensor,
    first_slots: Tensor,
    cu_rows: Tensor,
    groups: "Sequence[tuple[GenerationOptions, int]]",
    *,
    longest: int,
    keep_scores: bool,
) -> BatchTensors:
    """Tensors of a batch over its rows.

    Args:
        rows: rows of the slot tables.
        slots, first_slots, cu_rows: as in `BatchTensors` and its `cross`; `slots` may be padded.
        groups: rules of each group, and its number of requests.
        longest: upper bound of all lengths.
        keep_scores: True if a request keeps every step's scores.
    """
    sampling, start, slots = [], 0, slots[: rows.self_tables.shape[0]]
    for rules, requests in groups:
        own = slice(start, start + requests * rules.hypotheses)
        start = own.stop
        sampling.append(
            SamplingGroup(
                rules,
                own,
                slots=slots[own],
                max_lengths=rows.numbers[MAX_LENGTH, own],
                min_lengths=rows.numbers[MIN_LENGTH, own],
                forced_first=rows.numbers[FORCED_FIRST, own],
                prompt_lengths=rows.numbers[PROMPT_LENGTH, own],
                seeds=rows.draws[SEED, own],
                sequence_index=rows.draws[DRAW_INDEX, own],
            )
        )
    searches = any(rules.num_beams > 1 for rules, _ in groups)
    each_row = torch.arange(len(slots) + 1, dtype=torch.int32, device=slots.device)
    return BatchTensors(
        slots=slots,
        first_slots=first_slots,
        sequence_index=rows.numbers[SEQUENCE_INDEX, : len(slots)],
        capacity=rows.numbers[CAPACITY, : len(slots)],
        self_tables=rows.self_tables,
        cross=PageLayout(rows.cross_tables, rows.encode_tokens, cu_rows),
        cu_own=cu_rows if searches else each_row,
        groups=sampling,
        longest=longest,
        keep_scores=keep_scores,
    )


class SlotTables:
    """Pages, limits and seeds of the running requests by sequence slot, on the device.

    Page tables become wider when a request needs it.

    Args:
        num_slots: number of sequence slots.
        device: device of the tables.
        idle_page: cache page of the last slot, which is never lent; None where all slots are.
    """

    def __init__(self, num_slots: int, device: torch.device, idle_page: int | None = None) -> None:
        self.device = device
        self._idle_page = idle_page
        numbers = torch.zeros(NUMBERS, num_slots, dtype=torch.int32, device=device)
        draws = torch.zeros(DRAWS, num_slots, dtype=torch.int64, device=device)
        pages = torch.zeros(num_slots, 0, dtype=torch.int32, device=device)
        self._fields = SlotFields(numbers, draws, pages, pages)
        if idle_page is not None:
            for name, value in ((MAX_LENGTH, 2), (PROMPT_LENGTH, 1), (CAPACITY, 1), (ENCODE_TOKENS, 1)):
                numbers[name, -1] = value

    def reserve(self, self_blocks: int, cross_blocks: int) -> None:
        """Widen the page tables to at least so many blocks."""
        fields = self._fields
        own, cross = fields.self_pages, fields.cross_pages
        if self_blocks > own.shape[1] or cross_blocks > cross.shape[1]:
            own, cross = self._widened(own, self_blocks), self._widened(cross, cross_blocks)
            self._fields = SlotFields(fields.numbers, fields.draws, own, cross)

    def admit(self, arrivals: "Sequence[RunningRequest]", state: DecodeState) -> None:
        """Write the rows of requests and begin their sequences in `state`, in one copy and one launch.

        A call that failed may be repeated, with other requests too.
        """
        numbers, seeds, page = [], [], 0  # pages of the requests before
        for running in arrivals:
            options, own = running.options, running.admission
            length, least, prompt = options.max_length, options.min_length, options.prompt
            forced = -1 if options.forced_bos_token_id is None else options.forced_bos_token_id
            begin, blocks, cross_blocks = page + own.cross_blocks, own.self_blocks, own.cross_blocks
            for index, slot in enumerate(own.slots):
                # In beam search only the first hypothesis counts at first, as in transformers, so that the
                # first step does not choose the same token k times.
                behind = index > 0 and options.num_beams > 1
                sizes = length, least, length - 1, own.encode_tokens, forced, len(prompt)
                pages = begin, blocks, page, 0 if index else cross_blocks
                numbers.append((slot, index, *sizes, prompt[0], behind, *pages))
                seeds.append(options.seed)
                begin += blocks
            page += len(own.pages)
        rows = len(numbers)
        admitted = np.empty(rows * COLUMNS + page, np.int32)
        table = admitted[: rows * COLUMNS].reshape(rows, COLUMNS)
        table[:, : len(numbers[0])] = numbers
        table[:, (OWN_BEGIN, OWN_BEGIN + 2)] += rows * COLUMNS
        table[:, SEED_COLUMN:] = np.array(seeds, np.int64).view(np.int32).reshape(rows, 2)
        np.concatenate([one.admission.pages for one in arrivals], out=admitted[rows * COLUMNS :])
        self.reserve(
            max(one.admission.self_blocks for one in arrivals),
            max(one.admission.cross_blocks for one in arrivals),
        )
        uploaded = upload(torch.from_numpy(admitted), self.device)
        admit(uploaded, rows, self._fields, state.current, UNREACHABLE)

    def gather(self, slots: Tensor, first_slots: Tensor, step: int, rows: SlotRows) -> None:
        """Copy the rows of some slots on the device, as `kernels.slots.gather` does from all tables."""
        gather(self._fields, slots, first_slots, step, rows)

    def tensors_of(self, batch: "Batch") -> BatchTensors:
        """Gather the tensors of a batch."""
        count = len(batch.slots)
        columns = (
            np.resize(batch.slots, padded(count)),
            batch.first_slots,
            batch.cu_rows.astype(np.int32),
        )
        slots, first_slots, cu_rows = upload_all([torch.from_numpy(one) for one in columns], self.device)
        sizes = count, len(batch.requests), batch.self_blocks, batch.cross_blocks
        rows = empty_rows(*sizes, self.device)
        self.gather(slots, first_slots, 1, rows)
        return batch_tensors(
            rows,
            slots,
            first_slots,
            cu_rows,
            batch.groups,
            longest=batch.max_length,
            keep_scores=bool(batch.keep_scores),
        )

    def _widened(self, pages: Tensor, blocks: int) -> Tensor:
        """Table of at least so many blocks; the idle slot has its page in all of them."""
        if blocks <= pages.shape[1]:
            return pages
        width = 1 << (blocks - 1).bit_length()
        wider = torch.zeros(pages.shape[0], width, dtype=pages.dtype, device=pages.device)
        wider[:, : pages.shape[1]] = pages
        if self._idle_page is not None:
            wider[-1] = self._idle_page
        return wider


def padded(rows: int) -> int:
    """Number of rows rounded up to a multiple of 4."""
    return -(-rows // 4) * 4
