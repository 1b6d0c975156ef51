"""Every kernel on a GPU: its time beside its floor, beside what a user would call instead, and its error.

    python -m bench.kernels [--output bench/results/kernels] [--quick] [--seconds 280]

Models are Speech2Text small and large and wav2vec2-base, with random numbers in bfloat16; 32 to 1,024
recordings of LibriSpeech's lengths (1.3 to 35 s, mean 12.3). The floor is the longer of operations over the
device's bf16 rate and bytes over its copy bandwidth, both counted from the shapes. Times are medians of
triton.testing.do_bench. Inputs rotate, so that no call finds its own in the cache. Calls that never wait for
the device are timed inside a CUDA graph, and so are their peers: the kernels count and not their launches.
Before each timing the output, in memory filled with NaN, is compared with a float32 or float64 reference.
Into the output folder go kernels.json, kernels.md and roofline.png.

Ends with 1 if a kernel failed, was wrong or was not reached in time. Without a GPU,

    TRITON_INTERPRET=1 python -m bench.kernels --dry

calls and compares everything once on tiny shapes and times nothing.
"""

import argparse
import gc
import json
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

from ..common.roofline import Peaks, find_peaks
from .cases import Case, Contestant, Prepared, Stage
from .plot import Point, plot
from .report import Peer, Result, as_json, goal_lines, goals, table
from .suite import all_cases, quick_cases, tiny_cases
from .tiles import best_tile

CACHE = 60e6  # bytes of an H200's L2, the largest of the devices here
DTYPE = torch.bfloat16
LONG = 0.1  # seconds; a call that takes longer is timed three times, not for a length of time


def main(given: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("bench/results/kernels"))
    parser.add_argument("--quick", action="store_true", help="one case of each kernel")
    parser.add_argument("--dry", action="store_true", help="tiny shapes in Triton's interpreter, no timing")
    parser.add_argument("--seconds", type=float, default=280, help="no case begins after this long")
    arguments = parser.parse_args(given)
    if arguments.dry:
        return dry()
    if not torch.cuda.is_available():
        parser.error("no CUDA device; --dry compares everything in Triton's interpreter instead")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # of the references
    device = torch.device("cuda", torch.cuda.current_device())
    deadline = time.monotonic() + arguments.seconds
    peaks = find_peaks(device)
    return run_all(
        quick_cases() if arguments.quick else all_cases(), peaks, device, deadline, arguments.output
    )


def run_all(cases: list[Case], peaks: Peaks, device: torch.device, deadline: float, output: Path) -> int:
    """Time, tell and write; returns the exit status."""
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
    """Every call once, compared, in the interpreter."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        print("--dry needs TRITON_INTERPRET=1, set before Python starts", file=sys.stderr)
        return 2
    failures = 0
    for dtype in (torch.float32, torch.float16):
        for case in tiny_cases():
            for line in compare_all(case, Stage(torch.device("cpu"), dtype, 2)):
                failures += line.startswith("FAILED")
                print(line, flush=True)
    print(f"{failures} failed")
    return 1 if failures else 0


def compare_all(case: Case, stage: Stage) -> Iterator[str]:
    """A line for the kernel and one for each peer."""
    title = f"{str(stage.dtype).removeprefix('torch.')} {case.kernel}, {case.label}"
    try:
        prepared = case.prepare(stage)
    except Exception as error:
        yield f"FAILED {title}: inputs: {reason(error)}"
        return
    for name, contestant in {"ours": prepared.ours, **prepared.peers}.items():
        try:
            yield f"ok     {title}: {name}, error {checked(contestant, prepared):.1e}"
        except Exception as error:
            yield f"FAILED {title}: {name}: {reason(error)}"
    for name, why in prepared.missing.items():
        yield f"absent {title}: {name}: {why}"


def run(case: Case, device: torch.device, deadline: float) -> Result:
    """Time a case; whatever happens to it is in the result, and the next one can go on."""
    blank = Result(case.kernel, case.label, case.tags, case.sequences, case.work)
    if time.monotonic() > deadline:
        return replace(blank, failure="not reached in time")
    gc.collect()
    torch.cuda.empty_cache()
    try:
        torch.manual_seed(0)
        copies = math.ceil(min(max(2.5 * CACHE / case.work.bytes, 1), 32))
        prepared = case.prepare(Stage(device, DTYPE, copies))
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


def time_peer(peer: Contestant, prepared: Prepared, copies: int, graph: bool) -> Peer:
    """A peer that fails or is wrong is told of, and is no failure of ours."""
    try:
        error = checked(peer, prepared)
        return Peer(timed(peer, copies, graph), error)
    except Exception as problem:
        return Peer(None, note=reason(problem))


def reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


class WrongOutputError(RuntimeError):
    """A contestant that computes something else."""


def checked(contestant: Contestant, prepared: Prepared) -> float:
    """The relative error of an output, in norm.

    Raises:
        WrongOutputError: it is too large, or no number.
    """
    with poisoned():
        out = contestant.part(contestant.run(0))
    wanted = prepared.wanted if contestant.wanted is None else contestant.wanted
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
    """Memory that nobody has written to is NaN, or the largest integer."""
    filled = torch.utils.deterministic.fill_uninitialized_memory
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(action="ignore"):  # of operations that have no deterministic form
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def timed(contestant: Contestant, copies: int, graph: bool, milliseconds: float = 40) -> float:
    """Seconds of a call, the median.

    Args:
        copies: of the inputs, taken in turn.
        graph: replay a CUDA graph of one call for each copy, and divide.
        milliseconds: how long to go on.
    """

    def all_copies() -> None:
        for copy in range(copies):
            contestant.run(copy)

    begin = time.perf_counter()
    all_copies()
    torch.cuda.synchronize()
    if (time.perf_counter() - begin) / copies > LONG:
        return statistics.median(_once(contestant) for _ in range(3))
    call: Callable[[], object] = all_copies
    if graph and contestant.graph:
        call = captured(all_copies).replay
    return do_bench(call, warmup=10, rep=milliseconds, return_mode="median") * 1e-3 / copies


def captured(call: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """A graph of a call that has run before. Not by torch.cuda.graph, which empties the allocator's cache
    each time: with a graph for every tile, that would take longer than the timings."""
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


def _once(contestant: Contestant) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    contestant.run(0)
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
    """JSON, table and plot."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "command": " ".join(["python", *sys.argv]),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "units": "seconds, bytes, operations",
    }
    (folder / "kernels.json").write_text(json.dumps(as_json(results, peaks, about), indent=1) + "\n")
    reached = goal_lines(goals(results, peaks))
    (folder / "kernels.md").write_text(
        f"# Kernels\n\n{describe(peaks)}\n\n```\n{reached}\n```\n\n{table(results, peaks)}\n"
    )
    points = [
        Point(result.kernel, result.label, result.work, result.seconds)
        for result in results
        if result.seconds
    ]
    try:
        plot(points, peaks, folder / "roofline.png")
    except ImportError as error:
        print(f"no plot: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
