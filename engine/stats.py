"""Statistics of an engine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters of an engine since its start, and its present load.

    Args:
        running: requests that are being decoded.
        waiting: requests that are still to be read or admitted.
        finished, failed, cancelled: requests that have ended, by the way they did.
        pages_used, pages_total: of the cache of keys and values.
        tokens_generated: of all requests and hypotheses; 0 of a CTC model or classifier.
        audio_seconds: of the finished requests; 0 of texts.
        busy_seconds: wall time with at least one request under way.
        tokens_per_second, rtfx: tokens, and seconds of audio, per busy second.
        graphs: decode steps that have been recorded as CUDA graphs.
        compiled: kernels that Triton has compiled, or read from its cache on disk, since the engine was
            ready. Each held up a step. Counts the whole process, other engines in it too.
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
