"""Check and timing of one case: its output against the reference, then the median time of a call."""

import gc
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from triton.testing import do_bench

from tritone.kernels import use

from .cases import Case, Implementation, Prepared, Setup
from .report import Peer, Result
from .tiles import best_tile

CACHE = 60e6  # bytes of an H200's L2, the largest of the devices here
SLOW = 0.1  # seconds; a slower call is timed three times, not for a length of time


def compare_all(case: Case, setup: Setup, *, peers: bool = True) -> Iterator[str]:
    """Yield a line for the kernel and for each peer: PASS, FAIL, or absent."""
    title = f"{str(setup.dtype).removeprefix('torch.')} {case.kernel}, {case.label}"
    try:
        prepared = case.prepare(setup)
    except Exception as error:
        yield f"FAIL {title}: inputs: {reason(error)}"
        return
    others = prepared.peers if peers else {}
    for name, implementation in {"ours": prepared.ours, **others}.items():
        try:
            yield f"PASS {title}: {name}, error {checked(implementation, prepared):.1e}"
        except Exception as error:
            yield f"FAIL {title}: {name}: {reason(error)}"
    for name, why in prepared.missing.items() if peers else ():
        yield f"absent {title}: {name}: {why}"


def run(
    case: Case,
    device: torch.device,
    dtype: torch.dtype,
    deadline: float,
    peers: bool = True,
    solution: Any = None,
) -> Result:
    """Time a case; a failure is in the result.

    Args:
        deadline: no case begins after it, of time.monotonic().
        peers: also time its peers, and other tiles.
        solution: `Solution` to time in place of the kernel, and beside it alone.
    """
    blank = Result(case.kernel, case.label, case.tags, case.sequences, case.work)
    if time.monotonic() > deadline:
        return replace(blank, failure="not reached in time")
    gc.collect()
    torch.cuda.empty_cache()
    ours = nullcontext() if solution is None else use(solution.operation, solution.function)
    try:
        torch.manual_seed(0)
        copies = math.ceil(min(max(2.5 * CACHE / case.work.bytes, 1), 32))
        prepared = case.prepare(Setup(device, dtype, copies))
        with ours:
            error = checked(prepared.ours, prepared)
            seconds, *spread = samples(prepared.ours, copies, case.graph)
    except Exception as problem:
        return replace(blank, failure=reason(problem))
    timings = {"seconds": seconds, "spread": tuple(spread), "error": error}
    if solution is not None:
        shipped = {"shipped": time_peer(prepared.ours, prepared, copies, case.graph)}
        return replace(blank, **timings, peers=shipped)
    if not peers:
        return replace(blank, **timings)
    others = {
        name if one.graph or not case.graph else f"{name}, with its launches": time_peer(
            one, prepared, copies, case.graph
        )
        for name, one in prepared.peers.items()
    }
    others |= {name: Peer(None, note=why) for name, why in prepared.missing.items()}
    result = replace(blank, **timings, peers=others)
    if not case.tiles:
        return result
    try:
        ours = prepared.ours
        best = best_tile(lambda: ours.run(0), lambda: timed(ours, copies, case.graph, milliseconds=15))
    except Exception as problem:
        return replace(result, failure=f"tiles: {reason(problem)}")
    return result if best is None else replace(result, best=best.seconds, best_tile=best.tile)


def time_peer(peer: Implementation, prepared: Prepared, copies: int, graph: bool) -> Peer:
    """Time a peer; a failure or a wrong output is its note."""
    try:
        error = checked(peer, prepared)
        return Peer(timed(peer, copies, graph), error)
    except Exception as problem:
        return Peer(None, note=reason(problem))


def reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


class WrongOutputError(RuntimeError):
    """An implementation with a wrong output."""


def checked(implementation: Implementation, prepared: Prepared) -> float:
    """The relative error of an output, in norm.

    Raises:
        WrongOutputError: the error is too large, or NaN.
    """
    with poisoned():
        out = implementation.part(implementation.run(0))
    wanted = prepared.wanted if implementation.wanted is None else implementation.wanted
    if out.shape != wanted.shape:
        raise WrongOutputError(f"shape {list(out.shape)}, wanted {list(wanted.shape)}")
    error = relative_error(out, wanted)
    if not error <= prepared.error:
        raise WrongOutputError(f"error {error:.2e}, allowed {prepared.error:.0e}")
    return error


def relative_error(out: Tensor, wanted: Tensor) -> float:
    difference = (out.double() - wanted.double()).norm()
    return float(difference / wanted.double().norm().clamp(min=1e-30))


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill new memory with NaN, or the largest integer."""
    filled = torch.utils.deterministic.fill_uninitialized_memory
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(action="ignore"):  # from operations without a deterministic form
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def timed(implementation: Implementation, copies: int, graph: bool, milliseconds: float = 40) -> float:
    """Seconds of a call, the median; arguments as of `samples`."""
    return samples(implementation, copies, graph, milliseconds)[0]


def samples(
    implementation: Implementation, copies: int, graph: bool, milliseconds: float = 40
) -> tuple[float, float, float]:
    """Seconds of a call: the median, and the bounds of the middle 60 % of the samples.

    Args:
        copies: of the inputs, in rotation.
        graph: replay a CUDA graph of one call for each copy, and divide.
        milliseconds: duration of the timing.
    """

    def all_copies() -> None:
        for copy in range(copies):
            implementation.run(copy)

    begin = time.perf_counter()
    all_copies()
    torch.cuda.synchronize()
    if (time.perf_counter() - begin) / copies > SLOW:
        low, median, high = sorted(_once(implementation) for _ in range(3))
        return median, low, high
    call: Callable[[], object] = all_copies
    if graph and implementation.graph:
        call = captured(all_copies).replay
    found = do_bench(call, warmup=10, rep=milliseconds, quantiles=[0.5, 0.2, 0.8])
    median, low, high = (milliseconds * 1e-3 / copies for milliseconds in found)
    return median, low, high


def captured(call: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """Capture a call that has run before. torch.cuda.graph empties the allocator's cache each time: with a
    graph for every tile, that would take longer than the timings."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graph.capture_begin()
        try:
            call()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph


def _once(implementation: Implementation) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    implementation.run(0)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) * 1e-3
