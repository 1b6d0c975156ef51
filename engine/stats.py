"""Statistics and health of an engine, returned by `Engine.stats` and `Engine.health`."""

import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..scheduler.request import FinishReason

if TYPE_CHECKING:
    from ..scheduler.loop import LoopStats

_FINISHED = (FinishReason.STOP, FinishReason.LENGTH)
_RECENT = 64  # requests that have finished, from which the rate of late is taken


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """Health of an engine, for a server's checks.

    Args:
        status: "ok"; "degraded" where it works, but has survived a fault or works with less memory; "failed"
            where it takes no more requests: stopped on an error, closed, or forked from another process.
        reason: reason of a status other than "ok"; the last one where there are several.
    """

    status: Literal["ok", "degraded", "failed"]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters of an engine since its start, and its current load.

    Args:
        running: number of requests admitted to the batch and not finished.
        waiting: number of requests still to be read or admitted.
        finished, failed, cancelled: number of requests that have ended in each of these ways.
        pages_used, pages_total: number of pages of the key-value cache, in use and in total.
        tokens_generated: number of tokens decoded for all hypotheses; 0 for a CTC model or classifier.
        audio_seconds: seconds of audio in finished requests; 0 for texts.
        busy_seconds: wall time with at least one request in progress.
        tokens_per_second, rtfx: tokens, and seconds of audio, per busy second.
        graphs: number of decode steps that have been recorded as CUDA graphs.
        compiled: number of kernels that Triton has compiled, or read from its cache on disk, since the engine
            was ready. Each delayed a step. Counts the whole process, other engines in it too.
    """

    running: int
    waiting: int
    finished: int
    failed: int
    cancelled: int
    pages_used: int
    pages_total: int
    tokens_generated: int
    audio_seconds: float
    busy_seconds: float
    tokens_per_second: float
    rtfx: float
    graphs: int
    compiled: int


class Tally:
    """Counts of requests that have ended, and the time with at least one in progress. Not thread-safe."""

    def __init__(self) -> None:
        self._counts: Counter[FinishReason] = Counter()
        self._audio_seconds = 0.0
        self._busy_seconds = 0.0
        self._busy_since: float | None = None
        # Busy seconds when recent requests finished, and their seconds of audio; first, the start.
        self._recent = deque([(0.0, 0.0)], maxlen=_RECENT + 1)

    def begin(self) -> None:
        """Note that there is a request."""
        if self._busy_since is None:
            self._busy_since = time.perf_counter()

    def end(self, reason: FinishReason, audio_seconds: float, idle: bool) -> None:
        """Count a request that has ended; `idle` where no other is in progress."""
        self._counts[reason] += 1
        if reason in _FINISHED:
            self._audio_seconds += audio_seconds
            self._recent.append((self._busy, audio_seconds))
        if idle and self._busy_since is not None:
            self._busy_seconds += time.perf_counter() - self._busy_since
            self._busy_since = None

    def recent_times(self) -> tuple[float, float]:
        """Busy seconds of late for each finished request, and for each second of audio; 0 for unknown."""
        (start, _), *ended = self._recent
        busy, audio = self._busy - start, sum(seconds for _, seconds in ended)
        return busy / len(ended) if ended else 0.0, busy / audio if audio else 0.0

    @property
    def _busy(self) -> float:
        """Seconds with at least one request in progress."""
        since = self._busy_since
        return self._busy_seconds + (0.0 if since is None else time.perf_counter() - since)

    def stats(self, loop: "LoopStats", to_start: int) -> EngineStats:
        """Statistics with those of the loop and the requests not yet in it; `compiled` is 0."""
        busy = self._busy
        return EngineStats(
            running=loop.running,
            waiting=loop.waiting + to_start,
            finished=sum(self._counts[reason] for reason in _FINISHED),
            failed=self._counts[FinishReason.ERROR],
            cancelled=self._counts[FinishReason.CANCELLED],
            pages_used=loop.pages_used,
            pages_total=loop.pages_total,
            tokens_generated=loop.tokens_generated,
            audio_seconds=self._audio_seconds,
            busy_seconds=busy,
            tokens_per_second=loop.tokens_generated / busy if busy else 0.0,
            rtfx=self._audio_seconds / busy if busy else 0.0,
            graphs=loop.graphs,
            compiled=0,
        )
