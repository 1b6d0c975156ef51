"""Statistics and health of an engine, returned by `Engine.stats` and `Engine.health`."""

from dataclasses import dataclass
from typing import Literal


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
