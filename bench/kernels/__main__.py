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
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import triton

from ..common.command import make_parser
from ..common.machine import command_line
from ..common.output import write_json
from ..common.roofline import Peaks, find_peaks
from .cases import Case, Setup
from .measure import compare_all, run
from .plot import Point, plot
from .report import Result, as_json, goal_lines, goals, table
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
    arguments = parser.parse_args(given)
    if arguments.dry and os.environ.get("TRITON_INTERPRET") != "1":
        return in_interpreter(given)
    if not arguments.dry and not torch.cuda.is_available():
        parser.error("no CUDA device; --dry compares everything in Triton's interpreter instead")
    suite = tiny_cases() if arguments.dry else quick_cases() if arguments.quick else all_cases()
    cases = matching(suite, arguments.kernel, arguments.case)
    if not cases:
        known = ", ".join(sorted({case.kernel for case in suite}))
        parser.error(f"no case of {arguments.kernel!r} has the words {arguments.case!r}; kernels are {known}")
    return dry(cases, arguments) if arguments.dry else on_gpu(cases, arguments)


def on_gpu(cases: list[Case], arguments: argparse.Namespace) -> int:
    """Time the cases on the current device; returns the exit status."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # for the references
    device = torch.device("cuda", torch.cuda.current_device())
    deadline = time.monotonic() + arguments.seconds
    dtype = DTYPES[arguments.dtype or "bfloat16"]
    peaks = find_peaks(device)
    return run_all(cases, peaks, device, deadline, arguments.output, dtype, peers=not arguments.no_peers)


def run_all(
    cases: Sequence[Case],
    peaks: Peaks,
    device: torch.device,
    deadline: float,
    output: Path,
    dtype: torch.dtype = torch.bfloat16,
    *,
    peers: bool = True,
) -> int:
    """Time the cases, report and write; returns the exit status."""
    print(describe(peaks), flush=True)
    results: list[Result] = []
    for case in cases:
        results.append(run(case, device, dtype, deadline, peers))
        print(progress(results[-1], peaks), flush=True)
        write_results(results, peaks, output)
    write_report(results, peaks, output)
    print("\n" + table(results, peaks) + "\n\n" + goal_lines(goals(results, peaks)))
    failed = [result for result in results if result.failure]
    print(f"\n{len(results) - len(failed)} of {len(results)} cases timed; {output}")
    return 1 if failed else 0


def in_interpreter(given: Sequence[str]) -> int:
    """Run the command in a process in which Triton interprets: it decides that when it is imported."""
    command = [sys.executable, "-m", "bench.kernels", *given]
    return subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, check=False).returncode


def dry(cases: Sequence[Case], arguments: argparse.Namespace) -> int:
    """Compare every call once in the interpreter; returns the exit status."""
    failures = 0
    # The interpreter multiplies bfloat16 wrongly.
    for name in [arguments.dtype] if arguments.dtype else ["float32", "float16"]:
        for case in cases:
            for line in compare_all(
                case, Setup(torch.device("cpu"), DTYPES[name], 2), peers=not arguments.no_peers
            ):
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
