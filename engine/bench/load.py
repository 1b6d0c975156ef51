"""Load on an engine: a constant number of recordings or texts in progress."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise

import numpy as np

from ..async_engine import AsyncEngine
from ..engine import Engine
from .machine import OtherLoad
from .workload import Work

_SLICES = 5  # of a level's time, whose slowest and fastest are told


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Latencies of requests in seconds."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Percentiles":
        """Percentiles of at least one value."""
        return cls(*np.percentile(values, [50, 95, 99]).tolist())


@dataclass(frozen=True, slots=True)
class Level:
    """Measurement with a constant number of requests in progress.

    Args:
        at_once: number of requests in progress.
        rate: seconds of audio, or tokens of text, a second.
        lowest, highest: slowest and fastest fifth of the time.
        cpu_per_unit: CPU seconds for a second of audio, or a token of text.
        seconds: wall time of the measurement.
        cpu_seconds: CPU time of the process in it.
        requests: number of requests that began in it.
        total: time from submission to result.
        first_token: time from submission to the first token; None for a model that does not generate.
        others: share of the cores that other processes and the hypervisor took meanwhile; None if unknown.
    """

    at_once: int
    rate: float
    lowest: float
    highest: float
    cpu_per_unit: float
    seconds: float
    cpu_seconds: float
    requests: int
    total: Percentiles
    first_token: Percentiles | None
    others: float | None


@dataclass(frozen=True, slots=True)
class _Ended:
    start: float
    end: float
    amount: float  # seconds of audio, or tokens
    total: float
    first_token: float | None


def measure_level(engine: Engine, works: Sequence[Work], at_once: int, seconds: float) -> Level:
    """Keep `at_once` requests in progress for `seconds`, and until as many have ended.

    A request that is in progress at the end counts by the share of its time that is within.

    Raises:
        Exception: the error of a request.
    """
    ended: list[_Ended] = []
    stopped: list[tuple[float, float, float | None]] = []  # time, CPU time, load of others
    sources = cycle(works)
    view = AsyncEngine.of(engine)
    others = OtherLoad()
    cpu_start, start = time.process_time(), time.perf_counter()

    async def client() -> None:
        while not stopped:
            ended.append(await _request(view, next(sources)))
            if not stopped and len(ended) >= at_once and time.perf_counter() >= start + seconds:
                stopped.append((time.perf_counter(), time.process_time(), others.share()))

    async def clients() -> None:
        await asyncio.gather(*(client() for _ in range(at_once)))

    asyncio.run(clients())
    (end, cpu_end, other_load), *_ = stopped
    edges = np.linspace(start, end, _SLICES + 1)
    rates = [_done(ended, *pair) / (pair[1] - pair[0]) for pair in pairwise(edges)]
    begun = [one for one in ended if one.start < end]
    first = [one.first_token for one in begun if one.first_token is not None]
    cpu = cpu_end - cpu_start
    return Level(
        at_once,
        _done(ended, start, end) / (end - start),
        min(rates),
        max(rates),
        cpu / _done(ended, start, end),
        end - start,
        cpu,
        len(begun),
        Percentiles.of([one.total for one in begun]),
        Percentiles.of(first) if first else None,
        other_load,
    )


async def _request(view: AsyncEngine, work: Work) -> _Ended:
    start = time.perf_counter()
    options = work.options | ({} if view.engine.sampling_rate is None else {"short": "empty"})
    result = await view.submit(work.source, stream=False, **options)
    end = time.perf_counter()
    amount = getattr(result, "duration", 0.0) if work.tokens is None else float(work.tokens)
    timings = result.timings
    total = end - start if timings is None else timings.total
    return _Ended(start, end, amount, total, None if timings is None else timings.first_token)


def _done(ended: Sequence[_Ended], start: float, end: float) -> float:
    """Amount that was done between two times, a request's evenly over its own."""
    done = 0.0
    for one in ended:
        within = min(one.end, end) - max(one.start, start)
        if within > 0:
            done += one.amount * within / (one.end - one.start)
    return done
