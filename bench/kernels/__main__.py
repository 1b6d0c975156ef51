"""Benchmark of every kernel on a GPU: its time, its floor, its peers' times, and its error.

    python -m bench.kernels [--output bench/results/kernels] [--quick] [--seconds 280]

Models are Speech2Text small and large and wav2vec2-base, with random numbers in bfloat16; 32 to 1,024
recordings of LibriSpeech's lengths (1.3 to 35 s, mean 12.3). The floor is the longer of operations over the
device's bf16 rate and bytes over its copy bandwidth, both counted from the shapes. Times are medians of
triton.testing.do_bench. Inputs rotate, so that no call finds its own in the cache. Calls that never wait for
the device are timed inside a CUDA graph, without their launches, and so are their peers. Before each timing
the output, in memory filled with NaN, is compared with a float32 or float64 reference. Writes kernels.json,
kernels.md and roofline.png.

Ends with 1 if a kernel failed, was wrong or was not reached in time. Without a GPU,

    TRITON_INTERPRET=1 python -m bench.kernels --dry

compares every call once on tiny shapes and times nothing.
"""

import gc
import math
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import triton
from torch import Tensor
from triton.testing import do_bench

from ..common.command import make_parser
from ..common.machine import command_line
from ..common.output import write_json
from ..common.roofline import Peaks, find_peaks
from .cases import Case, Implementation, Prepared, Setup
from .plot import Point, plot
from .report import Peer, Result, as_json, goal_lines, goals, table
from .suite import all_cases, quick_cases, tiny_cases
from .tiles import best_tile

CACHE = 60e6  # bytes of an H200's L2, the largest of the devices here
DTYPE = torch.bfloat16
SLOW = 0.1  # seconds; a slower call is timed three times, not for a length of time


def main(given: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("bench/results/kernels"))
    parser.add_argument("--quick", action="store_true", help="one case of each kernel")
    parser.add_argument("--dry", action="store_true", help="tiny shapes in Triton's interpreter, no timing")
    parser.add_argument("--seconds", type=float, default=280, help="no case begins after this long")
    arguments = parser.parse_args(given)
    if arguments.dry:
        return dry()
    if not torch.cuda.is_available():
        parser.error("no CUDA device; --dry compares everything in Triton's interpreter instead")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # for the references
    device = torch.device("cuda", torch.cuda.current_device())
    deadline = time.monotonic() + arguments.seconds
    cases = quick_cases() if arguments.quick else all_cases()
    return run_all(cases, find_peaks(device), device, deadline, arguments.output)


def run_all(cases: list[Case], peaks: Peaks, device: torch.device, deadline: float, output: Path) -> int:
    """Time the cases, report and write; returns the exit status."""
    print(describe(peaks), flush=True)
    results = []
    for case in cases:
        results.append(run(case, device, deadline))
        print(progress(results[-1], peaks), flush=True)
    write(results, peaks, output)
    print("\n" + table(results, peaks) + "\n\n" + goal_lines(goals(results, peaks)))
    failed = [result for result in results if result.failure]
    print(f"\n{len(results) - len(failed)} of {len(results)} cases timed; {output}")
    return 1 if failed else 0


def dry() -> int:
    """Compare every call once in the interpreter; returns the exit status."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        print("--dry needs TRITON_INTERPRET=1, set before Python starts", file=sys.stderr)
        return 2
    failures = 0
    for dtype in (torch.float32, torch.float16):
        for case in tiny_cases():
            for line in compare_all(case, Setup(torch.device("cpu"), dtype, 2)):
                failures += line.startswith("FAILED")
                print(line, flush=True)
    print(f"{failures} failed")
    return 1 if failures else 0


def compare_all(case: Case, setup: Setup) -> Iterator[str]:
    """A line of output for the kernel and for each peer."""
    title = f"{str(setup.dtype).removeprefix('torch.')} {case.kernel}, {case.label}"
    try:
        prepared = case.prepare(setup)
    except Exception as error:
        yield f"FAILED {title}: inputs: {reason(error)}"
        return
    for name, implementation in {"ours": prepared.ours, **prepared.peers}.items():
        try:
            yield f"ok     {title}: {name}, error {checked(implementation, prepared):.1e}"
        except Exception as error:
            yield f"FAILED {title}: {name}: {reason(error)}"
    for name, why in prepared.missing.items():
        yield f"absent {title}: {name}: {why}"


def run(case: Case, device: torch.device, deadline: float) -> Result:
    """Time a case; a failure is in the result."""
    blank = Result(case.kernel, case.label, case.tags, case.sequences, case.work)
    if time.monotonic() > deadline:
        return replace(blank, failure="not reached in time")
    gc.collect()
    torch.cuda.empty_cache()
    try:
        torch.manual_seed(0)
        copies = math.ceil(min(max(2.5 * CACHE / case.work.bytes, 1), 32))
        prepared = case.prepare(Setup(device, DTYPE, copies))
        error = checked(prepared.ours, prepared)
        seconds = timed(prepared.ours, copies, case.graph)
    except Exception as problem:
        return replace(blank, failure=reason(problem))
    others = {
        name if one.graph or not case.graph else f"{name}, with its launches": time_peer(
            one, prepared, copies, case.graph
        )
        for name, one in prepared.peers.items()
    }
    others |= {name: Peer(None, note=why) for name, why in prepared.missing.items()}
    result = replace(blank, seconds=seconds, error=error, peers=others)
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
    """Seconds of a call, the median.

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
        return statistics.median(_once(implementation) for _ in range(3))
    call: Callable[[], object] = all_copies
    if graph and implementation.graph:
        call = captured(all_copies).replay
    return do_bench(call, warmup=10, rep=milliseconds, return_mode="median") * 1e-3 / copies


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


def describe(peaks: Peaks) -> str:
    return (
        f"{peaks.device}, torch {torch.__version__}, triton {triton.__version__}; ceilings "
        f"{peaks.operations / 1e12:.0f} TFLOP/s and {peaks.bytes / 1e12:.2f} TB/s ({peaks.source}); this run "
        f"measured {(peaks.measured_operations or 0) / 1e12:.0f} and {(peaks.measured_bytes or 0) / 1e12:.2f}"
    )


def progress(result: Result, peaks: Peaks) -> str:
    if result.failure:
        return f"FAILED {result.kernel}, {result.label}: {result.failure}"
    return (
        f"{result.kernel}, {result.label}: {result.seconds * 1e6:.1f} µs, "
        f"{result.fraction(peaks):.2f} of the floor"
    )


def write(results: list[Result], peaks: Peaks, folder: Path) -> None:
    """Write JSON, table and plot."""
    about = {
        "command": command_line(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "units": "seconds, bytes, operations",
    }
    write_json(folder / "kernels.json", as_json(results, peaks, about))
    reached = goal_lines(goals(results, peaks))
    (folder / "kernels.md").write_text(
        f"# Kernels\n\n{describe(peaks)}\n\n```\n{reached}\n```\n\n{table(results, peaks)}\n"
    )
    timed = [result for result in results if result.seconds]
    points = [Point(one.kernel, one.label, one.work, one.seconds) for one in timed]
    try:
        plot(points, peaks, folder / "roofline.png")
    except ImportError as error:
        print(f"no plot: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
