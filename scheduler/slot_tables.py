"""Tables on the device of what a request's admission fixes, by sequence slot, and the tensors of a batch.

Rows are written when requests are admitted, all of a step at once. A batch then is a list of slots, whose
rows are gathered on the device.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..kernels.runtime.upload import upload, upload_all
from .cache.attention_metadata import PageLayout
from .sampling.select import SamplingGroup
from .state import UNREACHABLE, DecodeState

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


@dataclass(frozen=True, slots=True)
class SlotRows:
    """Rows of the slot tables, copied for the rows of a batch."""

    # With room for a multiple of 4 rows, so that kernels find each number's values aligned.
    numbers: Tensor  # int32 [6, n or more]
    draws: Tensor  # int64 [2, n or more]
    self_tables: Tensor  # int32 [n, blocks]
    cross_tables: Tensor  # int32 [requests, blocks]
    encode_tokens: Tensor  # int32 [requests]

    @classmethod
    def empty(
        cls, rows: int, requests: int, self_blocks: int, cross_blocks: int, device: torch.device
    ) -> "SlotRows":
        """Uninitialized rows of these sizes."""

        def table(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        return cls(
            numbers=table(_NUMBERS, padded(rows)),
            draws=table(2, padded(rows), dtype=torch.int64),
            self_tables=table(rows, self_blocks),
            cross_tables=table(requests, cross_blocks),
            encode_tokens=table(requests),
        )

    def batch(
        self,
        slots: Tensor,
        first_slots: Tensor,
        cu_rows: Tensor,
        groups: "Sequence[tuple[GenerationOptions, int]]",
        *,
        longest: int,
        keep_scores: bool,
    ) -> BatchTensors:
        """Tensors of a batch over these rows.

        Args:
            slots, first_slots, cu_rows: as in `BatchTensors` and its `cross`; `slots` may be padded.
            groups: rules of each group, and its number of requests.
            longest: upper bound of all lengths.
            keep_scores: True if a request keeps every step's scores.
        """
        sampling, start, slots = [], 0, slots[: self.self_tables.shape[0]]
        for rules, requests in groups:
            rows = slice(start, start + requests * rules.hypotheses)
            start = rows.stop
            sampling.append(
                SamplingGroup(
                    rules,
                    rows,
                    slots=slots[rows],
                    max_lengths=self.numbers[_MAX_LENGTH, rows],
                    min_lengths=self.numbers[_MIN_LENGTH, rows],
                    prompt_lengths=self.numbers[_PROMPT_LENGTH, rows],
                    seeds=self.draws[_SEED, rows],
                    sequence_index=self.draws[_DRAW_INDEX, rows],
                )
            )
        searches = any(rules.num_beams > 1 for rules, _ in groups)
        each_row = torch.arange(len(slots) + 1, dtype=torch.int32, device=slots.device)
        return BatchTensors(
            slots=slots,
            first_slots=first_slots,
            sequence_index=self.numbers[_SEQUENCE_INDEX, : len(slots)],
            capacity=self.numbers[_CAPACITY, : len(slots)],
            self_tables=self.self_tables,
            cross=PageLayout(self.cross_tables, self.encode_tokens, cu_rows),
            cu_own=cu_rows if searches else each_row,
            groups=sampling,
            longest=longest,
            keep_scores=keep_scores,
        )


# Rows of the tables of numbers and of draws.
_SEQUENCE_INDEX, _MAX_LENGTH, _MIN_LENGTH, _PROMPT_LENGTH, _CAPACITY, _ENCODE_TOKENS, _NUMBERS = range(7)
_SEED, _DRAW_INDEX = range(2)


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
        self._numbers = torch.zeros(_NUMBERS, num_slots, dtype=torch.int32, device=device)
        self._draws = torch.zeros(2, num_slots, dtype=torch.int64, device=device)
        self._self_pages = torch.zeros(num_slots, 0, dtype=torch.int32, device=device)
        self._cross_pages = torch.zeros(num_slots, 0, dtype=torch.int32, device=device)
        if idle_page is not None:
            for name, value in ((_MAX_LENGTH, 2), (_PROMPT_LENGTH, 1), (_CAPACITY, 1), (_ENCODE_TOKENS, 1)):
                self._numbers[name, -1] = value

    def reserve(self, self_blocks: int, cross_blocks: int) -> None:
        """Widen the page tables to at least so many blocks."""
        self._self_pages = self._widened(self._self_pages, self_blocks)
        self._cross_pages = self._widened(self._cross_pages, cross_blocks)

    def admit(self, arrivals: "Sequence[RunningRequest]", state: DecodeState) -> None:
        """Write the rows of requests and begin their sequences in `state`: one copy, and launches for all.

        A call that failed may be repeated, with other requests too.
        """
        per_slot = []
        for running in arrivals:
            options, own = running.options, running.admission
            length, least, prompt = options.max_length, options.min_length, options.prompt
            for index, slot in enumerate(own.slots):
                # In beam search only the first hypothesis counts at first, as in transformers, so that the
                # first step does not choose the same token k times.
                behind = index and options.num_beams > 1
                sizes = length, least, len(prompt), length - 1, own.encode_tokens
                numbers = index, *sizes, prompt[0], behind
                per_slot.append((slot, options.seed, index, *numbers))
        table = np.array(per_slot, np.int64).T
        self_pages = _page_table([pages for running in arrivals for pages in running.admission.self_pages])
        cross_pages = _page_table([running.admission.cross_pages for running in arrivals])
        columns = (
            np.ascontiguousarray(table[:3]),
            np.array([running.admission.slots[0] for running in arrivals], np.int64),
            table[3:-1].astype(np.int32),
            np.where(table[-1], UNREACHABLE, 0.0).astype(np.float32),
            self_pages,
            cross_pages,
        )
        self.reserve(self_pages.shape[1], cross_pages.shape[1])
        # One copy; a call for each column would take longer than all launches.
        flat = np.concatenate([column.ravel().view(np.int32) for column in columns])
        parts = upload(torch.from_numpy(flat), self.device).split([column.nbytes // 4 for column in columns])
        wide = parts[0].view(torch.int64).view(3, -1)
        slots = wide[0]
        first_slots, narrow = parts[1].view(torch.int64), parts[2].view(_NUMBERS + 1, -1)
        own_pages, pages = (
            part.view(table.shape) for part, table in zip(parts[4:], columns[4:], strict=True)
        )
        self._numbers.index_copy_(1, slots, narrow[:_NUMBERS])
        self._draws.index_copy_(1, slots, wide[1:])
        self._self_pages[:, : own_pages.shape[1]].index_copy_(0, slots, own_pages)
        self._cross_pages[:, : pages.shape[1]].index_copy_(0, first_slots, pages)
        state.admit(slots, narrow[_NUMBERS], parts[3].view(torch.float32))

    def gather(self, slots: Tensor, first_slots: Tensor, rows: SlotRows) -> None:
        """Copy the rows of some slots on the device.

        Args:
            slots: int64 [`padded(n)`].
            first_slots: int64 [requests].
            rows: destination; its page tables must not be wider than what `reserve` was called with.
        """
        own_rows, self_blocks = rows.self_tables.shape
        cross_blocks = rows.cross_tables.shape[1]
        torch.index_select(self._numbers, 1, slots, out=rows.numbers)
        torch.index_select(self._draws, 1, slots, out=rows.draws)
        own_pages = self._self_pages[:, :self_blocks]
        torch.index_select(own_pages, 0, slots[:own_rows], out=rows.self_tables)
        torch.index_select(self._cross_pages[:, :cross_blocks], 0, first_slots, out=rows.cross_tables)
        torch.index_select(self._numbers[_ENCODE_TOKENS], 0, first_slots, out=rows.encode_tokens)

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
        rows = SlotRows.empty(*sizes, self.device)
        self.gather(slots, first_slots, rows)
        return rows.batch(
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


def _page_table(rows: Iterable[tuple[int, ...]]) -> npt.NDArray[np.int32]:
    """Table of all rows, int32 [rows, longest], padded with 0."""
    rows = list(rows)
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    table = np.zeros((len(rows), int(lengths.max())), np.int32)
    table[np.arange(table.shape[1]) < lengths[:, None]] = np.fromiter(
        chain.from_iterable(rows), np.int32, int(lengths.sum())
    )
    return table
