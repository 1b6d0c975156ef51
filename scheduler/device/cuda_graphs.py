"""Decode steps whose launches are recorded once and played back: CUDA graphs.

A step of a small model is some hundred short kernels, and Python needs longer to launch them than a GPU to
carry them out. A recorded step costs one launch. What it was recorded with stays: addresses, shapes and the
numbers that the host gave along. So a batch is copied into tensors that keep their place, in the smallest
bucket that holds it; requests that are missing are idle. An idle one stands on a row of the state and a page
of the cache that nobody else has, has ended already, and so writes there what is there.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels.attention.kv_cache import PAGE_SIZE
from ..batch import Batch
from ..request import GenerationOptions
from ..sampling.select import SamplingGroup
from ..state import DecodeState

_log = logging.getLogger(__name__)

# Recorded steps, beyond which what is new goes unrecorded: each takes memory, and options are the users'.
_MOST = 256
_recording = threading.Lock()

Play = Callable[[], None]
Record = Callable[[Play], Play]
"""Notes what a function launches, without carrying it out, and returns what plays that back."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a recorded step depends on beside the contents of its tensors and the side of the state.

    Args:
        rules: of all requests; see `rules_of`.
        requests: how many there is room for.
        self_blocks, cross_blocks: widths of the tables of pages.
    """

    rules: GenerationOptions
    requests: int
    self_blocks: int
    cross_blocks: int

    @classmethod
    def holding(cls, batch: Batch) -> "Bucket | None":
        """The smallest for this batch. None where a step cannot be recorded: requests with different rules,
        draws, or scores that somebody keeps."""
        if len(batch.groups) != 1 or batch.keeping or batch.groups[0].options.do_sample:
            return None
        return cls(
            batch.groups[0].options,
            _rounded(batch.cross_lengths.shape[0]),
            _rounded(batch.self_tables.shape[1]),
            _rounded(batch.cross_tables.shape[1]),
        )


def _rounded(count: int) -> int:
    """A power of two, or one and a half times one, that is no less: at most a third is idle, from 4 on."""
    power = 1 << (count - 1).bit_length()
    smaller = power * 3 // 4
    return smaller if power > 4 and count <= smaller else power


class StaticBatch:
    """The tensors of a bucket, which keep their place while batches come and go.

    Args:
        bucket: their sizes.
        state: whose last row is the idle ones'.
        idle_page: of the cache.
    """

    def __init__(self, bucket: Bucket, state: DecodeState, idle_page: int) -> None:
        self._idle_row, self._idle_page = state.tokens.shape[1] - 1, idle_page
        # Lengths are bounded by the pages, and by the tables that hold the tokens.
        self._longest = min(bucket.self_blocks * PAGE_SIZE + 1, state.tokens.shape[2])
        self._rules, each = bucket.rules, bucket.rules.hypotheses
        requests, rows, device = bucket.requests, bucket.requests * each, state.tokens.device

        def numbers(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self._rows, self._seeds = numbers(rows, dtype=torch.int64), numbers(rows, dtype=torch.int64)
        self._streams, self._places = numbers(rows), numbers(rows)
        self._max_lengths, self._min_lengths = numbers(rows), numbers(rows)
        self._self_tables = numbers(rows, bucket.self_blocks)
        self._cross_tables = numbers(requests, bucket.cross_blocks)
        self._cross_lengths = numbers(requests)
        self._cu_rows = torch.arange(0, rows + 1, each, dtype=torch.int32, device=device)
        self._hypotheses = torch.arange(each, device=device).repeat(requests)
        self._of: Tensor | None = None  # rows of the batch held; the batch itself would keep recordings
        self.batch = self._views()

    def hold(self, batch: Batch) -> None:
        """Make `batch` what the tensors say, and the rest of them idle."""
        if batch.rows is self._of:
            return
        group = batch.groups[0]
        for static, own, idle in (
            (self._rows, batch.rows, self._idle_row),
            (self._streams, batch.streams, 0),
            (self._places, batch.places, 1),
            (self._max_lengths, group.max_lengths, 2),
            (self._min_lengths, group.min_lengths, 0),
            (self._seeds, group.seeds, 0),
            (self._cross_lengths, batch.cross_lengths, 1),
        ):
            static[: len(own)].copy_(own)
            static[len(own) :].fill_(idle)
        for table, own in (
            (self._self_tables, batch.self_tables),
            (self._cross_tables, batch.cross_tables),
        ):
            table.fill_(self._idle_page)
            table[: own.shape[0], : own.shape[1]].copy_(own)
        self._of, self.batch = batch.rows, self._views()

    def _views(self) -> Batch:
        """A batch of new views: on the CPU paged attention keeps what it derives from a table by the tensor,
        not by what is in it."""
        rows = self._rows[:]
        group = SamplingGroup(
            options=self._rules,
            start=0,
            end=len(rows),
            rows=rows,
            max_lengths=self._max_lengths[:],
            min_lengths=self._min_lengths[:],
            seeds=self._seeds[:],
            streams=self._hypotheses[:],
        )
        return Batch(
            order=[],
            rows=rows,
            streams=self._streams[:],
            first_slots=rows[:0],
            places=self._places[:],
            cu_rows=self._cu_rows[:],
            self_tables=self._self_tables[:],
            cross_tables=self._cross_tables[:],
            cross_lengths=self._cross_lengths[:],
            groups=[group],
            streaming=[],
            streaming_rows=rows[:0],
            keeping=[],
            longest=self._longest,
        )


class DecodeGraphs:
    """Carries out decode steps, recorded where they can be.

    A bucket's first step on either side of the state is an ordinary one on its tensors, which compiles what
    there is to compile; its second is recorded, and played back from then on. Where recording fails, a
    warning says so and no more is tried.

    Args:
        step: `decode_batch` of a batch.
        state: with one row more than are lent out, the last.
        idle_page: a page that is not lent out.
        record: how to record; None carries out every step as the first, on the bucket's tensors.
    """

    def __init__(
        self, step: Callable[[Batch], None], state: DecodeState, idle_page: int, record: Record | None
    ) -> None:
        self._step = step
        self._state = state
        self._idle_page = idle_page
        self._record = record
        self._static: dict[Bucket, StaticBatch] = {}
        self._plays: dict[tuple[Bucket, int], Play | None] = {}  # by the side too; None after a first step
        self._failed = False
        self.recorded = 0
        state.make_idle(state.tokens.shape[1] - 1)

    def decode(self, batch: Batch) -> None:
        """`step` of `batch`, with results that are the same to the bit."""
        bucket = None if self._failed else Bucket.holding(batch)
        if bucket is None or (bucket not in self._static and 2 * len(self._static) >= _MOST):
            self._step(batch)
            return
        if bucket not in self._static:
            self._static[bucket] = StaticBatch(bucket, self._state, self._idle_page)
        static, key = self._static[bucket], (bucket, self._state.side)
        static.hold(batch)

        def step() -> None:
            self._step(static.batch)

        if key not in self._plays or self._record is None:
            self._plays[key] = None
            step()
            return
        play = self._plays[key] or self._recorded(step)
        self._plays[key] = play
        play()

    def _recorded(self, step: Play) -> Play:
        """What plays `step` back; `step` itself, and no more recording, where that cannot be."""
        if self._record is None:
            return step
        try:
            play = self._record(step)
        except Exception as error:
            self._failed = True
            _log.warning(
                "a decode step could not be recorded as a CUDA graph; steps are launched one by one from now "
                "on, with the same results: %s: %s",
                type(error).__name__,
                error,
            )
            return step
        self.recorded += 1
        return play


def record_on(device: torch.device) -> Record | None:
    """Recording on a CUDA device; None elsewhere."""
    if device.type != "cuda":
        return None
    # Nothing outlives a step but what is in the state and the cache, so all may use the same memory.
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def record(step: Play) -> Play:
        graph = torch.cuda.CUDAGraph()
        # One at a time in a process; but other threads may go on using the device meanwhile.
        with (
            _recording,
            torch.cuda.device(device),
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            step()
        return graph.replay

    return record
