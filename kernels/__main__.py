"""Compile every declared kernel case without a GPU and print its resources: `python -m tritone.kernels`.

Cases whose kernel and Triton version have not changed since an earlier run are not compiled: their resources
are read from `$TRITONE_CACHE`, or else `~/.cache/tritone/kernels`. The exit status is 1 if a case spills
registers (to stack or local memory) on sm_90, or needs more shared memory than its architecture has.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator

from .runtime.compilation import TARGETS, Resources, compile_all, declared_cases
from .runtime.compile_cache import compile_cached, is_complete, load, mark_complete
from .runtime.launch import Case


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 1 if a case exceeds a limit, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tritone.kernels", description=__doc__)
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="default: all of them")
    parser.add_argument("--kernel", help="only kernels with this in their name")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--sample", action="store_true", help="one case of each kernel and target")
    chosen.add_argument(
        "--changed",
        action="store_true",
        help="as --sample, and every case of kernels that changed since all of them last compiled",
    )
    parser.add_argument("--no-cache", action="store_true", help="compile cached cases too")
    parser.add_argument(
        "--jobs", type=int, default=_cores(), help="processes; default: all cores (%(default)s)"
    )
    given = parser.parse_args(arguments)
    cases = [
        case
        for case in declared_cases()
        if case.architecture in (given.target or TARGETS) and (given.kernel or "") in case.kernel.name
    ]
    complete = not (given.target or given.kernel or given.sample or given.changed)
    if given.sample or given.changed:
        sample = set({(case.kernel.name, case.architecture): case for case in cases}.values())
        changed = given.changed and is_complete()
        cases = [case for case in cases if case in sample or (changed and load(case) is None)]
    found: Iterator[tuple[Resources, bool]]
    if given.no_cache:
        found = ((resources, False) for resources in compile_all(cases, given.jobs))
    else:
        found = compile_cached(cases, given.jobs)
    return _report(cases, found, complete)


def _report(cases: list[Case], found: Iterator[tuple[Resources, bool]], complete: bool) -> int:
    print(
        f"{'case':58} {'target':7} {'regs':>5} {'shared':>7} {'stack':>6} {'local':>6}  matrix unit, copies"
    )
    complaints: list[str] = []
    cached, progress = 0, _Progress(len(cases))
    for resources, old in found:
        progress.step(_line(resources))
        cached += old
        if resources.complaint:
            complaints.append(f"{resources.label} for {resources.architecture}: {resources.complaint}")
    kernels = len({case.kernel.name for case in cases})
    print(f"{len(cases)} cases of {kernels} kernels: {len(cases) - cached} compiled, {cached} from the cache")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if complete and not complaints:
        mark_complete()
    return 1 if complaints else 0


class _Progress:
    """Progress counter `done of total` on stderr: in place on a terminal, else a line every 15 seconds.

    Args:
        total: number of cases.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done, self.last = total, 0, time.monotonic()
        self.in_place = sys.stderr.isatty()

    def step(self, line: str) -> None:
        """Print the line of one more finished case, and the progress."""
        self.done += 1
        if self.in_place:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        print(line, flush=True)
        if self.in_place and self.done < self.total:
            print(f"{self.done} of {self.total}", end="", file=sys.stderr, flush=True)
        elif not self.in_place and time.monotonic() > self.last + 15:
            self.last = time.monotonic()
            print(f"{self.done} of {self.total}", file=sys.stderr, flush=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _line(of: Resources) -> str:
    notes = ", ".join(note for note in (of.matrix_unit, "asynchronous" if of.asynchronous else "") if note)
    return (
        f"{of.label:58} {of.architecture:7} {of.registers:5} {of.shared:7} {of.stack:6} {of.local:6}  {notes}"
    ).rstrip()


if __name__ == "__main__":
    sys.exit(main())
