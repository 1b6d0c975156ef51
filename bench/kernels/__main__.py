"""Benchmark of every kernel on a GPU: its time, its floor, its peers' times, and its error.

    python -m bench.kernels [--quick] [--kernel NAME] [--case WORDS] [--dtype bfloat16] [--no-peers]
        [--seconds 280] [--output bench/results/kernels]

Models are Speech2Text small and large and wav2vec2-base, with random numbers; 32 to 1,024 recordings of
LibriSpeech's lengths (1.3 to 35 s, mean 12.3). The floor is the longer of operations over the device's bf16
rate and bytes over its copy bandwidth, both counted from the shapes in a type of two bytes. Times are medians
of triton.testing.do_bench. Inputs rotate, so that no call finds its own in the cache. Calls that never wait
for the device are timed inside a CUDA graph, without their launches, and so are their peers. Before each
timing the output, in memory filled with NaN, is compared with a float32 or float64 reference. Writes
kernels.json after each case, then kernels.md and roofline.png.

Ends with 1 if a kernel failed, was wrong or was not reached in time. Without a GPU,

    python -m bench.kernels --dry

compares every call once on tiny shapes in Triton's interpreter, and times nothing.

`--solution FILE.py:FUNCTION` puts a kernel of the user's in place of the shipped one of the operation with
the function's name (or `--operation NAME`): it is compared with the reference on tiny shapes in the
interpreter, its compiled code is shown, for sm_90 without a GPU, and on a GPU it is timed beside the shipped
one. `--compare OLD.json` says which cases have become faster or slower by more than the noise. `--ncu`
profiles the one case that --kernel and --case leave with Nsight Compute.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import triton

from ..common.command import make_parser
from ..common.machine import command_line
from ..common.output import write_json
from ..common.roofline import Peaks, find_peaks
from .cases import Case, Setup
from .compare import compared
from .measure import compare_all, run
from .ncu import once, profiled
from .plot import Point, plot
from .report import Result, as_json, goal_lines, goals, table
from .solution import Solution
from .suite import all_cases, matching, quick_cases, tiny_cases

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def main(given: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given = sys.argv[1:] if given is None else given
    parser = make_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("bench/results/kernels"))
    parser.add_argument("--kernel", help="only this kernel")
    parser.add_argument("--case", default="", help="only with these words in the label: 'large causal'")
    parser.add_argument("--dtype", choices=DTYPES, help="of values; default: bfloat16, in --dry all it has")
    parser.add_argument("--no-peers", action="store_true", help="without peers and other tiles")
    parser.add_argument("--quick", action="store_true", help="one case of each kernel")
    parser.add_argument("--dry", action="store_true", help="tiny shapes in Triton's interpreter, no timing")
    parser.add_argument("--seconds", type=float, default=280, help="no case begins after this long")
    parser.add_argument("--solution", help="FILE.py:FUNCTION, in place of the shipped kernel")
    parser.add_argument("--operation", help="of the solution; default: the function's name")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="kernels.json of an earlier run")
    parser.add_argument("--ncu", action="store_true", help="profile one case with Nsight Compute")
    parser.add_argument(
        "--once", action="store_true", help=argparse.SUPPRESS
    )  # the process that ncu profiles
    arguments = parser.parse_args(given)
    try:
        return carried_out(arguments, given)
    except ValueError as error:
        parser.error(str(error))


def carried_out(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    """Run the command with parsed arguments; returns its exit status.

    Raises:
        ValueError: arguments that do not fit together or this machine.
    """
    if arguments.dry and os.environ.get("TRITON_INTERPRET") != "1":
        return in_interpreter(given)
    solution = Solution.load(arguments.solution, arguments.operation) if arguments.solution else None
    on_cuda = torch.cuda.is_available()
    if not (arguments.dry or on_cuda or solution):
        raise ValueError("no CUDA device; --dry compares everything in Triton's interpreter instead")
    chosen = partial(choose_cases, arguments.kernel, arguments.case, solution)
    if arguments.dry:
        return dry(chosen(tiny_cases()), arguments, solution)
    if arguments.ncu or arguments.once:
        cases = chosen(quick_cases() if arguments.quick else all_cases())
        dtype = DTYPES[arguments.dtype or "bfloat16"]
        return profiled(cases, given, arguments.output) if arguments.ncu else once(cases, dtype, solution)
    if solution:
        if os.environ.get("TRITON_INTERPRET") == "1":
            raise ValueError(
                "--solution compiles, which interpreted functions cannot; unset TRITON_INTERPRET"
            )
        tiny = ["--kernel", arguments.kernel] if arguments.kernel else []  # words are of the large cases
        tiny += ["--operation", arguments.operation] if arguments.operation else []
        tiny += ["--dtype", arguments.dtype] if arguments.dtype in ("float32", "float16") else []
        status = in_interpreter(["--dry", "--solution", arguments.solution, *tiny])
        dtype = DTYPES[arguments.dtype or "float16"]
        print(
            "\n"
            + "\n".join(solution.compiled(choose_cases(arguments.kernel, "", solution, tiny_cases()), dtype))
        )
        if status or not on_cuda:
            return status
    return on_gpu(chosen(quick_cases() if arguments.quick else all_cases()), arguments, solution)


def choose_cases(
    kernel: str | None, words: str, solution: Solution | None, suite: Sequence[Case]
) -> list[Case]:
    """Cases of a kernel, by default of the solution's operation, with words in their label.

    Raises:
        ValueError: there is none.
    """
    known = sorted({case.kernel for case in suite})
    if kernel is None and solution and solution.operation in known:
        kernel = solution.operation
    if cases := matching(suite, kernel, words):
        return cases
    raise ValueError(f"no case of {kernel!r} has the words {words!r}; kernels are {', '.join(known)}")


def on_gpu(cases: list[Case], arguments: argparse.Namespace, solution: Solution | None) -> int:
    """Time the cases on the current device; returns the exit status."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # for the references
    device = torch.device("cuda", torch.cuda.current_device())
    deadline = time.monotonic() + arguments.seconds
    dtype = DTYPES[arguments.dtype or "bfloat16"]
    measure = partial(
        run, device=device, dtype=dtype, deadline=deadline, peers=not arguments.no_peers, solution=solution
    )
    return run_all(cases, measure, find_peaks(device), arguments.output, arguments.compare)


def run_all(
    cases: Sequence[Case],
    measure: Callable[[Case], Result],
    peaks: Peaks,
    output: Path,
    earlier: Path | None = None,
) -> int:
    """Time the cases, report and write; returns the exit status.

    Args:
        measure: times a case.
        earlier: results to compare with.
    """
    print(describe(peaks), flush=True)
    results: list[Result] = []
    for case in cases:
        results.append(measure(case))
        print(progress(results[-1], peaks), flush=True)
        write_results(results, peaks, output)
    write_report(results, peaks, output)
    print("\n" + table(results, peaks) + "\n\n" + goal_lines(goals(results, peaks)))
    if earlier:
        print("\n" + "\n".join(compared(results, earlier)))
    failed = [result for result in results if result.failure]
    print(f"\n{len(results) - len(failed)} of {len(results)} cases timed; {output}")
    return 1 if failed else 0


def in_interpreter(given: Sequence[str]) -> int:
    """Run the command in a process in which Triton interprets: it decides that when it is imported."""
    command = [sys.executable, "-m", "bench.kernels", *given]
    return subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, check=False).returncode


def dry(cases: Sequence[Case], arguments: argparse.Namespace, solution: Solution | None) -> int:
    """Compare every call once in the interpreter; returns the exit status."""
    failures = 0
    # The interpreter multiplies bfloat16 wrongly.
    for name in [arguments.dtype] if arguments.dtype else ["float32", "float16"]:
        setup = Setup(torch.device("cpu"), DTYPES[name], 2)
        for case in cases:
            compare = partial(compare_all, case, setup, peers=not arguments.no_peers)
            for line in [solution.check(case, setup)] if solution else compare():
                failures += line.startswith("FAIL")
                print(line, flush=True)
    print(f"{failures} failed")
    return 1 if failures else 0


def describe(peaks: Peaks) -> str:
    return (
        f"{peaks.device}, torch {torch.__version__}, triton {triton.__version__}; ceilings "
        f"{peaks.operations / 1e12:.0f} TFLOP/s and {peaks.bytes / 1e12:.2f} TB/s ({peaks.source}); this run "
        f"measured {(peaks.measured_operations or 0) / 1e12:.0f} and {(peaks.measured_bytes or 0) / 1e12:.2f}"
    )


def progress(result: Result, peaks: Peaks) -> str:
    if result.failure:
        return f"FAIL {result.kernel}, {result.label}: {result.failure}"
    return (
        f"PASS {result.kernel}, {result.label}: {result.seconds * 1e6:.1f} µs, "
        f"{result.fraction(peaks):.2f} of the floor"
    )


def write(results: Sequence[Result], peaks: Peaks, folder: Path) -> None:
    """Write JSON, table and plot."""
    write_results(results, peaks, folder)
    write_report(results, peaks, folder)


def write_results(results: Sequence[Result], peaks: Peaks, folder: Path) -> None:
    """Write the results so far as JSON."""
    about = {
        "command": command_line(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "units": "seconds, bytes, operations",
    }
    write_json(folder / "kernels.json", as_json(list(results), peaks, about))


def write_report(results: Sequence[Result], peaks: Peaks, folder: Path) -> None:
    """Write table and plot."""
    reached = goal_lines(goals(list(results), peaks))
    (folder / "kernels.md").write_text(
        f"# Kernels\n\n{describe(peaks)}\n\n```\n{reached}\n```\n\n{table(list(results), peaks)}\n"
    )
    timed = [result for result in results if result.seconds]
    points = [Point(one.kernel, one.label, one.work, one.seconds) for one in timed]
    try:
        plot(points, peaks, folder / "roofline.png")
    except ImportError as error:
        print(f"no plot: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
