"""Measurement of an engine: levels of load, phases of a step, rates of the processor, memory."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ...kernels.linear.cpu import packs
from ...scheduler.device.phases import Phase, observed
from ..engine import Engine
from .load import Level, measure_level
from .machine import describe, peak_memory
from .phases import PHASES, CacheShape, PhaseClock, PhaseShare, PhaseTotals, WorkCounter, shares
from .rates import Rates, measure_products, measure_rates
from .workload import Work, Workload

_WARM_UP_SHARE = 0.1  # of the time, for the warm-up; the first recording has a result in any case
_LEVEL_SHARE = 0.8  # of the time, for the levels
_RATE_SHARE = 1 / 40  # of the time, for each rate
_MAX_RATE_SECONDS = 1.0
_TOP_SHARE = 0.4  # of the time, in which the requests of the largest level have to end one after the other
_MAX_AT_ONCE = 256
_ENCODER_ONLY = 64  # recordings or texts at once of a model without a cache, on a CPU


@dataclass(frozen=True, slots=True)
class Measurement:
    """Result of a measurement.

    Args:
        machine: processor, cores, threads and versions.
        model, dtype, device, parameters: the engine's model.
        workload: description of the recordings or texts.
        unit: "RTFx", seconds of audio a second, or "tokens/s" of texts.
        levels: measurements by the number of requests at once.
        left_out: numbers at once for which there was no time.
        failed: recordings or texts that failed, and were left out.
        phases: shares of the phases of the largest level; none on a GPU.
        rates: rates of a thread of the processor; None on a GPU.
        half_rate: rate of products in bfloat16 as a multiple of that in the model's dtype; None where the two
            are the same, or the processor has no instructions for it.
        peak_bytes: most memory of the process, before the rates were measured.
        gpu_peak_bytes: most memory of a GPU's tensors.
        num_beams: hypotheses of a request, 1 on a GPU.
    """

    machine: dict[str, Any]
    model: str
    dtype: str
    device: str
    parameters: int
    workload: str
    unit: str
    levels: Sequence[Level]
    left_out: Sequence[int]
    failed: Sequence[str]
    phases: dict[Phase, PhaseShare]
    rates: Rates | None
    half_rate: float | None
    peak_bytes: int | None
    gpu_peak_bytes: int | None
    num_beams: int

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        return asdict(self)


def measure(
    engine: Engine, workload: Workload, seconds: float, progress: Callable[[str], None] = lambda text: None
) -> Measurement:
    """Measure an engine for about `seconds`, with nothing else in progress.

    Args:
        progress: called with the name of each part when it begins.

    Raises:
        RuntimeError: none of the recordings or texts has a result.
    """
    on_cpu = engine.model.device.type == "cpu"
    progress("warming up")
    works, failed, alone, counter = _warm_up(engine, workload.works, seconds, on_cpu)
    wanted = levels_up_to(max_at_once(engine))
    fitting = [one for one in wanted if one == 1 or one * alone <= _TOP_SHARE * seconds]
    levels: dict[int, Level] = {}
    clock, top, top_cpu = PhaseClock(), PhaseClock().totals(), 0.0
    left = _LEVEL_SHARE * seconds
    order = sorted(fitting, key=lambda one: (one != fitting[-1], one != 1, one))  # both ends first
    with observed(clock) if on_cpu else nullcontext():
        for index, at_once in enumerate(order):
            if levels and left <= 0:
                break
            progress(f"{at_once} at once")
            before = clock.totals()
            begin, cpu_begin = time.perf_counter(), time.process_time()
            levels[at_once] = measure_level(engine, works, at_once, max(left, 0) / (len(order) - index))
            left -= time.perf_counter() - begin
            if index == 0:
                top = _difference(clock.totals(), before)
                top_cpu = time.process_time() - cpu_begin
    peak = peak_memory()
    rates = half = None
    if on_cpu:
        progress("the processor's rates")
        each = min(_MAX_RATE_SECONDS, _RATE_SHARE * seconds)
        rates = measure_rates(engine.model.dtype, each)
        half = _half_rate(engine.model.dtype, rates, each)
    model = engine.model
    return Measurement(
        machine=describe(model.device),
        model=type(model).__name__,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        parameters=sum(one.numel() for one in model.parameters()),
        workload=workload.description,
        unit="tokens/s" if engine.sampling_rate is None else "RTFx",
        levels=[levels[one] for one in sorted(levels)],
        left_out=[one for one in wanted if one not in levels],
        failed=failed,
        phases=shares(top, counter.work, CacheShape.of(model), rates, top_cpu) if on_cpu else {},
        rates=rates,
        half_rate=half,
        peak_bytes=peak,
        gpu_peak_bytes=None if on_cpu else torch.cuda.max_memory_allocated(model.device),
        num_beams=_beams(top),
    )


def max_at_once(engine: Engine) -> int:
    """Most requests that are worth having in progress: those that the engine decodes at once."""
    config, on_cpu = engine.config, engine.model.device.type == "cpu"
    if not hasattr(engine.model, "cache_shape"):
        return _ENCODER_ONLY if on_cpu else _MAX_AT_ONCE
    rows = config.num_rows or (config.rows_on_cpu if on_cpu else config.rows_on_gpu)
    return min(rows, _MAX_AT_ONCE)


def levels_up_to(most: int) -> list[int]:
    """Powers of two up to a number, and the number."""
    return sorted({min(2**power, most) for power in range(most.bit_length() + 1)})


def _warm_up(
    engine: Engine, works: Sequence[Work], seconds: float, on_cpu: bool
) -> tuple[list[Work], list[str], float, WorkCounter]:
    """Run works alone, one after the other, and count the work of their phases.

    Returns:
        Works that have a result, or were not tried; errors of others; seconds that the first takes alone.
    """
    counter, failed = WorkCounter(), list[str]()
    rest, tried = list(works), list[Work]()
    begin, alone = time.perf_counter(), 0.0

    def run(work: Work) -> bool:
        result = engine.submit(work.source, stream=False, **work.options).outcome()
        if result.error is not None:
            failed.append(str(result.error))
        return result.error is None

    while rest and (not tried or time.perf_counter() - begin < _WARM_UP_SHARE * seconds):
        work = rest.pop(0)
        if not run(work):
            continue
        if not tried:
            start = time.perf_counter()
            run(work)
            alone = time.perf_counter() - start
        tried.append(work)
        if on_cpu:
            with observed(counter):
                run(work)
    if not tried:
        raise RuntimeError(f"nothing has a result: {failed[0]}")
    return tried + rest, failed, alone, counter


def _difference(
    after: dict[Phase, PhaseTotals], before: dict[Phase, PhaseTotals]
) -> dict[Phase, PhaseTotals]:
    found = {}
    for name in PHASES:
        new, old = asdict(after[name]), asdict(before[name])
        found[name] = PhaseTotals(**{key: new[key] - old[key] for key in new})
    return found


def _half_rate(dtype: torch.dtype, rates: Rates, seconds: float) -> float | None:
    """Rate of products in bfloat16, as a multiple of that in `dtype`."""
    if dtype == torch.bfloat16 or not packs(torch.bfloat16):
        return None
    return measure_products(torch.bfloat16, seconds / 2) / rates.operations


def _beams(totals: dict[Phase, PhaseTotals]) -> int:
    """Hypotheses of a request; 1 for a model that does not generate."""
    decoded = totals["decode"]
    return round(decoded.units / decoded.requests) if decoded.requests else 1
