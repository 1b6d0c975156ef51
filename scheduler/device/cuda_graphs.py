"""CUDA graphs of decode steps, recorded once and replayed.

A step of a small model is some hundred short kernels, which take Python longer to launch than a GPU to run. A
recorded step costs one launch, but its addresses, shapes and host-side values are fixed. So a batch is laid
out in the static tensors of the smallest bucket (set of sizes) that holds it. The bucket's other requests are
idle: they use a sequence slot and a page that are never lent out, and count as ended, so that they leave both
unchanged.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...kernels.attention.kv_cache import PAGE_SIZE
from ..batch import Batch
from ..config import RunnerConfig
from ..request import GenerationOptions
from ..slot_tables import BatchTensors, SlotTables, batch_tensors, empty_rows, padded
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
    keep_scores: bool  # True where a request keeps its scores

    @classmethod
    def holding(cls, batch: Batch) -> "Bucket | None":
        """Smallest bucket that holds a batch; None for requests with different rules."""
        if len(batch.groups) != 1:
            return None
        ((rules, requests),) = batch.groups
        return cls(
            rules,
            rounded(requests),
            rounded_blocks(batch.self_blocks),
            rounded_blocks(batch.cross_blocks),
            bool(batch.keep_scores),
        )


def ladder(rules: GenerationOptions, num_slots: int, widths: Iterable[tuple[int, int]]) -> list[Bucket]:
    """Buckets for any number of requests with these rules, the largest first.

    Args:
        rules: `rules_of` all requests.
        num_slots: number of sequence slots.
        widths: numbers of self_blocks and cross_blocks that batches have.
    """
    counts = sorted({rounded(count) for count in range(1, num_slots // rules.hypotheses + 1)}, reverse=True)
    rounded_widths = {(rounded_blocks(own), rounded_blocks(cross)) for own, cross in widths}
    return [
        Bucket(rules, requests, own, cross, keep_scores=False)
        for own, cross in sorted(rounded_widths, reverse=True)
        for requests in counts
    ]


def rounded(count: int) -> int:
    """Round up to a power of two, or to 1.5 times one: from 4 on, at most a third is idle."""
    power = 1 << (count - 1).bit_length()
    smaller = power * 3 // 4
    return smaller if power > 4 and count <= smaller else power


def rounded_blocks(count: int) -> int:
    """Round up to 16 times a power of 4. Few widths make few recordings, and unused blocks cost little."""
    width = 16
    while width < count:
        width *= 4
    return width


class StaticBatch:
    """Static tensors of a bucket, in which batches are laid out for recorded decode steps.

    Args:
        bucket: sizes of the tensors.
        tables: what is fixed of each sequence slot, of which the last is idle.
        state: decode state.
    """

    def __init__(self, bucket: Bucket, tables: SlotTables, state: DecodeState) -> None:
        self._tables = tables
        self._idle_slot = state.num_slots - 1
        self._each = each = bucket.rules.hypotheses
        requests, device = bucket.requests, state.device
        count = requests * each
        tables.reserve(bucket.self_blocks, bucket.cross_blocks)
        self._slots = torch.full((padded(count),), self._idle_slot, dtype=torch.int64, device=device)
        self._rows = empty_rows(count, requests, bucket.self_blocks, bucket.cross_blocks, device)
        self.tensors = batch_tensors(
            self._rows,
            self._slots,
            self._slots[:count:each],
            torch.arange(0, count + 1, each, dtype=torch.int32, device=device),
            [(bucket.rules, requests)],
            # Lengths are bounded by the pages, and by the token tables of the state.
            longest=min(bucket.self_blocks * PAGE_SIZE + 1, state.max_length),
            keep_scores=bucket.keep_scores,
        )
        self.scores: Tensor | None = None  # float32 [rows, vocabulary], where they are kept
        self.plays: dict[int, Play | None] = {}  # by the buffer of the state; None after a first step
        # Slots of what is laid out; the batch itself would keep audio in memory.
        self._source: object = None
        self.clear()

    def load(self, batch: Batch) -> None:
        """Lay out `batch` in the static tensors, with idle requests in the remaining rows."""
        if batch.slots is not self._source:
            self._source = None  # until all tensors are filled, which may fail half-way
            slots = np.full(len(self._slots), self._idle_slot)
            slots[: len(batch.slots)] = batch.slots
            self._fill(slots)
            self._source = batch.slots

    def clear(self) -> None:
        """Lay out idle requests alone."""
        self._source = None
        self._fill(np.full(len(self._slots), self._idle_slot))

    def keep(self, scores: Tensor | None) -> None:
        """Copy a step's scores, whose memory other recordings use too."""
        if scores is not None:
            if self.scores is None:
                self.scores = torch.empty_like(scores)
            self.scores.copy_(scores)

    def _fill(self, slots: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> None:
        host = torch.from_numpy(slots)
        self._slots.copy_(host.pin_memory() if self._slots.is_cuda else host, non_blocking=True)
        self._tables.gather(self._slots, self._slots, self._each, self._rows)
        self.tensors.cross = replace(self.tensors.cross)  # drops the CPU's gather plan of the former contents


class DecodeGraphs:
    """Executor of decode steps that records them as CUDA graphs and replays them.

    A bucket's first step on either buffer of the state is launched normally on its tensors, which compiles
    the kernels; the second is recorded, and replayed from then on. `record_steps` does both ahead of need.
    Where recording fails, a warning is logged and no step is recorded any more.

    Args:
        step: function that decodes one step of a batch and returns the scores that it keeps.
        state: decode state, whose last slot is never lent out.
        tables: what is fixed of each of its slots, with a cache page for the last that is never lent out.
        record: recorder of the device; None launches every step normally on the bucket's tensors.
        max_recorded: maximum number of recorded steps; beyond, batches of new buckets are launched normally.
    """

    def __init__(
        self,
        step: Callable[[BatchTensors], Tensor | None],
        state: DecodeState,
        tables: SlotTables,
        record: Record | None,
        max_recorded: int = RunnerConfig.max_recorded_steps,
    ) -> None:
        self._step = step
        self._state = state
        self._tables = tables
        self._record = record
        self._max_recorded = max_recorded
        self._static: dict[Bucket, StaticBatch] = {}
        self._failed = False
        self.recorded = 0
        state.make_idle(state.num_slots - 1)

    def decode(self, batch: Batch) -> tuple[BatchTensors, Tensor | None] | None:
        """Run one decode step of `batch`, recorded or not, with bitwise equal results.

        Returns:
            Tensors of the step, whose rows may be followed by idle ones, and the scores of all rows if a
            request keeps its. None where the step has not run: no bucket can hold the batch.
        """
        bucket = Bucket.holding(batch)
        static = None if bucket is None or self._failed else self._static_of(bucket)
        if static is None:
            return None
        static.load(batch)
        self._run(static)
        return static.tensors, static.scores

    def record_steps(self, buckets: Sequence[Bucket], progress: Callable[[int, int], None]) -> None:
        """Record the steps of some buckets, while no request runs. Large ones first use less memory in all.

        Args:
            buckets: buckets to record.
            progress: called after each of them, with the number of steps recorded and of all.
        """
        for number, bucket in enumerate(buckets):
            static = self._static_of(bucket)
            if static is None or self._failed:
                return
            static.clear()
            for _ in self._state.buffers:
                for _ in range(2):  # launched normally, then recorded
                    self._run(static)
                self._state.swap()
            progress(2 * (number + 1), 2 * len(buckets))

    def _static_of(self, bucket: Bucket) -> StaticBatch | None:
        """Static tensors of a bucket; None where there are as many recordings as there may be."""
        static = self._static.get(bucket)
        if (
            static is None and 2 * len(self._static) < self._max_recorded
        ):  # a step for each buffer of the state
            static = self._static[bucket] = StaticBatch(bucket, self._tables, self._state)
        return static

    def _run(self, static: StaticBatch) -> None:
        """Play a step on static tensors, record it first, or launch it normally."""
        plays, buffer = static.plays, self._state.buffer

        def step() -> None:
            static.keep(self._step(static.tensors))

        if (play := plays.get(buffer)) is not None:
            play()
        elif buffer in plays and self._record is not None:
            plays[buffer] = self._record_and_play(step, self._record)
        else:
            step()
            plays[buffer] = None

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
    # Only the state, the cache and kept scores outlive a step, so all recordings may share one memory pool.
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def record(step: Play) -> Play:
        graph = torch.cuda.CUDAGraph()
        # One recording at a time in a process; other threads may go on using the device meanwhile.
        with recording, torch.cuda.device(device), torch.cuda.stream(stream), _capturing(graph, pool):
            step()
        return graph.replay

    return record


@contextmanager
def _capturing(graph: torch.cuda.CUDAGraph, pool: Any) -> Iterator[None]:
    """Capture what is launched on the current stream. `torch.cuda.graph` would wait for the device first."""
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        yield
    except BaseException:
        with suppress(RuntimeError):  # of a capture that has become invalid, after the error that made it so
            graph.capture_end()
        raise
    graph.capture_end()
