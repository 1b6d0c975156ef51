"""Decode steps recorded once and replayed: CUDA graphs.

A step of a small model is some hundred short kernels, and Python needs longer to launch them than a GPU to
carry them out. A recorded step costs one launch, but its addresses, shapes and host-side numbers are fixed.
So a batch is copied into static tensors, in the smallest bucket that holds it. The bucket's other requests
are idle: they stand on a sequence slot and a page that are never lent out, have ended already, and so write
only what is there.
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
from ..request import GenerationOptions
from ..sampling.select import SamplingGroup
from ..state import DecodeState

_log = logging.getLogger(__name__)
_recording = threading.Lock()

Play = Callable[[], None]
Record = Callable[[Play], Play]
"""Records the launches of a function without carrying them out; returns a function that replays them."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Key of a recorded step: all that it depends on beside its tensors' contents and the state's buffer."""

    rules: GenerationOptions  # `rules_of` all requests
    requests: int  # room for so many
    self_blocks: int  # width of a block table, as cross_blocks
    cross_blocks: int

    @classmethod
    def holding(cls, batch: Batch) -> "Bucket | None":
        """The smallest bucket for a batch.

        None where a step cannot be recorded: requests with different rules, draws, or scores to keep.
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
    """Round up to a power of two, or one and a half times one: at most a third is idle, from 4 on."""
    power = 1 << (count - 1).bit_length()
    smaller = power * 3 // 4
    return smaller if power > 4 and count <= smaller else power


class StaticBatch:
    """Batch of a bucket, whose tensors stay in their place while other batches are copied into them.

    Args:
        bucket: their sizes.
        state: its last slot is the idle one.
        idle_page: of the cache.
    """

    def __init__(self, bucket: Bucket, state: DecodeState, idle_page: int) -> None:
        self._idle_slot, self._idle_page = state.tokens.shape[1] - 1, idle_page
        each, device = bucket.rules.hypotheses, state.tokens.device
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
            # Lengths are bounded by the pages, and by the tables that hold the tokens.
            longest=min(bucket.self_blocks * PAGE_SIZE + 1, state.tokens.shape[2]),
        )
        self._source: Tensor | None = None  # slots of the batch held; the batch itself would keep recordings

    def load(self, batch: Batch) -> None:
        """Copy `batch` into the tensors and make the rest of them idle."""
        if batch.slots is self._source:
            return
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
        static.cross = replace(static.cross)  # without the CPU's plan of the former contents
        self._source = batch.slots


class DecodeGraphs:
    """Carries out decode steps, recorded where they can be.

    A bucket's first step on either buffer of the state is an ordinary one on its tensors, which compiles the
    kernels; its second is recorded, and replayed from then on. Where recording fails, a warning says so and
    no step is recorded any more.

    Args:
        step: `decode_batch` of a batch.
        state: with one slot more than are lent out, the last.
        idle_page: a page that is not lent out.
        record: of the device; None carries out every step as the first, on the bucket's tensors.
        max_recorded: recorded steps, beyond which a new bucket's are launched one by one.
    """

    def __init__(
        self,
        step: Callable[[Batch], None],
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
        state.make_idle(state.tokens.shape[1] - 1)

    def decode(self, batch: Batch) -> None:
        """Carry out `step` of `batch`, with results equal to the bit."""
        bucket = None if self._failed else Bucket.holding(batch)
        full = 2 * len(self._static) >= self._max_recorded  # a step for each buffer of the state
        if bucket is None or (full and bucket not in self._static):
            self._step(batch)
            return
        if bucket not in self._static:
            self._static[bucket] = StaticBatch(bucket, self._state, self._idle_page)
        static, key = self._static[bucket], (bucket, self._state.buffer)
        static.load(batch)

        def step() -> None:
            self._step(static.batch)

        if key not in self._plays or self._record is None:
            self._plays[key] = None
            step()
            return
        play = self._plays[key] or self._try_to_record(step)
        self._plays[key] = play
        play()

    def _try_to_record(self, step: Play) -> Play:
        """A replay of `step`; `step` itself, and no more recording, where recording fails."""
        assert self._record is not None
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
    """A recorder for a CUDA device; None elsewhere."""
    if device.type != "cuda":
        return None
    # Nothing outlives a step outside the state and the cache, so all recordings may share their memory.
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def record(step: Play) -> Play:
        graph = torch.cuda.CUDAGraph()
        # One recording at a time in a process; other threads may go on using the device meanwhile.
        with (
            _recording,
            torch.cuda.device(device),
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            step()
        return graph.replay

    return record
