"""CUDA graphs of decode steps, recorded once and replayed.

A step of a small model is some hundred short kernels, which take Python longer to launch than a GPU to run. A
recorded step costs one launch, but its addresses, shapes and host-side values are fixed. So a batch is copied
into the static tensors of the smallest bucket (set of sizes) that holds it. The bucket's other requests are
idle: they use a sequence slot and a page that are never lent out, and count as ended, so that they leave both
unchanged.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...kernels.attention.kv_cache import PAGE_SIZE
from ..batch import Batch
from ..cache.attention_metadata import PageLayout
from ..config import RunnerConfig
from ..decode_step import KeptScores
from ..request import GenerationOptions
from ..sampling.select import SamplingGroup
from ..state import DecodeState

_log = logging.getLogger(__name__)
recording = threading.Lock()  # held while a step is recorded, for other calls that would break a recording

Play = Callable[[], None]
Record = Callable[[Play], Play]
"""Recorder: records a function's kernel launches without running them, and returns their replay."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Sizes and options of a recorded decode step, by which a batch finds its recording."""

    rules: GenerationOptions  # `rules_of` all requests
    requests: int  # maximum number of requests
    self_blocks: int  # width of the page table, as cross_blocks
    cross_blocks: int

    @classmethod
    def holding(cls, batch: Batch) -> "Bucket | None":
        """Smallest bucket that holds a batch.

        None where a step cannot be recorded: requests with different rules, sampling, or scores to keep.
        """
        if len(batch.groups) != 1 or batch.keep_scores or batch.groups[0].options.do_sample:
            return None
        return cls(
            batch.groups[0].options,
            _rounded(batch.cross.lengths.shape[0]),
            _rounded(batch.self_tables.shape[1]),
            _rounded(batch.cross.tables.shape[1]),
        )


def _rounded(count: int) -> int:
    """Round up to a power of two, or to 1.5 times one: from 4 on, at most a third is idle."""
    power = 1 << (count - 1).bit_length()
    smaller = power * 3 // 4
    return smaller if power > 4 and count <= smaller else power


class StaticBatch:
    """Static tensors of a bucket, into which batches are copied for recorded decode steps.

    Args:
        bucket: sizes of the tensors.
        state: decode state, whose last slot is idle.
        idle_page: number of the cache page for idle requests.
    """

    def __init__(self, bucket: Bucket, state: DecodeState, idle_page: int) -> None:
        self._idle_slot, self._idle_page = state.num_slots - 1, idle_page
        each, device = bucket.rules.hypotheses, state.device
        requests, rows = bucket.requests, bucket.requests * each

        def numbers(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        slots = numbers(rows, dtype=torch.int64)
        group = SamplingGroup(
            bucket.rules,
            slice(0, rows),
            slots=slots,
            max_lengths=numbers(rows),
            min_lengths=numbers(rows),
            seeds=numbers(rows, dtype=torch.int64),
            sequence_index=torch.arange(each, device=device).repeat(requests),
        )
        self.batch = Batch(
            requests=[],
            slots=slots,
            sequence_index=numbers(rows),
            first_slots=slots[:0],
            capacity=numbers(rows),
            self_tables=numbers(rows, bucket.self_blocks),
            cross=PageLayout(
                numbers(requests, bucket.cross_blocks),
                lengths=numbers(requests),
                cu_rows=torch.arange(0, rows + 1, each, dtype=torch.int32, device=device),
            ),
            groups=[group],
            streaming=[],
            streaming_slots=slots[:0],
            keep_scores=[],
            # Lengths are bounded by the pages, and by the token tables of the state.
            longest=min(bucket.self_blocks * PAGE_SIZE + 1, state.max_length),
        )
        self._source: Tensor | None = None  # slots of the loaded batch; the batch would keep audio in memory

    def load(self, batch: Batch) -> None:
        """Copy `batch` into the static tensors and fill the remaining rows with idle requests."""
        if batch.slots is self._source:
            return
        self._source = None  # until all tensors are copied, which may fail half-way
        static, group, static_group = self.batch, batch.groups[0], self.batch.groups[0]
        for held, own, idle in (
            (static.slots, batch.slots, self._idle_slot),
            (static.sequence_index, batch.sequence_index, 0),
            (static.capacity, batch.capacity, 1),
            (static_group.max_lengths, group.max_lengths, 2),
            (static_group.min_lengths, group.min_lengths, 0),
            (static_group.seeds, group.seeds, 0),
            (static.cross.lengths, batch.cross.lengths, 1),
        ):
            held[: len(own)].copy_(own)
            held[len(own) :].fill_(idle)
        for held, own in (
            (static.self_tables, batch.self_tables),
            (static.cross.tables, batch.cross.tables),
        ):
            held.fill_(self._idle_page)
            held[: own.shape[0], : own.shape[1]].copy_(own)
        static.cross = replace(static.cross)  # drops the CPU's gather plan of the former contents
        self._source = batch.slots


class DecodeGraphs:
    """Executor of decode steps that records them as CUDA graphs and replays them.

    A bucket's first step on either buffer of the state is launched normally on its tensors, which compiles
    the kernels; the second is recorded, and replayed from then on. Where recording fails, a warning is logged
    and no step is recorded any more.

    Args:
        step: function that decodes one step of a batch.
        state: decode state, whose last slot is never lent out.
        idle_page: number of a cache page that is never lent out.
        record: recorder of the device; None launches every step normally on the bucket's tensors.
        max_recorded: maximum number of recorded steps; beyond, batches of new buckets are launched normally.
    """

    def __init__(
        self,
        step: Callable[[Batch], KeptScores],
        state: DecodeState,
        idle_page: int,
        record: Record | None,
        max_recorded: int = RunnerConfig.max_recorded_steps,
    ) -> None:
        self._step = step
        self._state = state
        self._idle_page = idle_page
        self._record = record
        self._max_recorded = max_recorded
        self._static: dict[Bucket, StaticBatch] = {}
        self._plays: dict[tuple[Bucket, int], Play | None] = {}  # by the buffer too; None after a first step
        self._failed = False
        self.recorded = 0
        state.make_idle(state.num_slots - 1)

    def decode(self, batch: Batch) -> KeptScores:
        """Run one decode step of `batch`, recorded or not, with bitwise equal results."""
        bucket = None if self._failed else Bucket.holding(batch)
        full = 2 * len(self._static) >= self._max_recorded  # a step for each buffer of the state
        if bucket is None or (full and bucket not in self._static):
            return self._step(batch)
        if bucket not in self._static:
            self._static[bucket] = StaticBatch(bucket, self._state, self._idle_page)
        static, key = self._static[bucket], (bucket, self._state.buffer)
        static.load(batch)

        def step() -> None:
            self._step(static.batch)

        if (play := self._plays.get(key)) is not None:
            play()
        elif key in self._plays and self._record is not None:
            self._plays[key] = self._record_and_play(step, self._record)
        else:
            step()
            self._plays[key] = None
        return []  # a batch with scores to keep has no bucket

    def _record_and_play(self, step: Play, record: Record) -> Play | None:
        """Record `step`, play it and return its replay.

        Where recording fails and the step does not, launch it normally, return None and record no more.
        """
        try:
            play = record(step)
        except Exception as raised:
            error = raised
        else:
            self.recorded += 1
            play()
            return play
        step()  # fails in turn where the step, not its recording, is at fault
        self._failed = True
        _log.warning(
            "a decode step could not be recorded as a CUDA graph; steps are launched one by one from now on, "
            "with the same results: %s: %s",
            type(error).__name__,
            error,
        )
        return None


def record_on(device: torch.device) -> Record | None:
    """Create the recorder of CUDA graphs for a device; None where it is not a CUDA device."""
    if device.type != "cuda":
        return None
    # Only the state and the cache outlive a step, so all recordings may share one memory pool.
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def record(step: Play) -> Play:
        graph = torch.cuda.CUDAGraph()
        # One recording at a time in a process; other threads may go on using the device meanwhile. The outer
        # stream context restores the stream, which `graph` does not where a recording fails to begin or end.
        with (
            recording,
            torch.cuda.device(device),
            torch.cuda.stream(stream),
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            step()
        return graph.replay

    return record
