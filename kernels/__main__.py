"""`python -m tritone.kernels`: compile every declared case, with no GPU, and print what it takes.

Ends with 1 if a case needs a stack or local memory on sm_90, or more shared memory than there is.
"""

import argparse
import os
import sys

from .runtime.compilation import TARGETS, Resources, compile_all, declared_cases


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tritone.kernels", description=__doc__)
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="default: all of them")
    parser.add_argument("--kernel", help="only kernels with this in their name")
    parser.add_argument("--sample", action="store_true", help="one case of each kernel and target")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    targets = given.target or list(TARGETS)
    cases = [
        case
        for case in declared_cases()
        if case.architecture in targets and (given.kernel or "") in case.kernel.name
    ]
    if given.sample:
        cases = list({(case.kernel.name, case.architecture): case for case in cases}.values())
    print(
        f"{'case':58} {'target':7} {'regs':>5} {'shared':>7} {'stack':>6} {'local':>6}  matrix unit, copies"
    )
    complaints = []
    for resources in compile_all(cases, given.jobs):
        print(_line(resources), flush=True)
        if resources.complaint:
            complaints.append(f"{resources.label} for {resources.architecture}: {resources.complaint}")
    print(f"{len(cases)} cases of {len({case.kernel.name for case in cases})} kernels compiled")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


def _line(of: Resources) -> str:
    notes = ", ".join(note for note in (of.matrix_unit, "asynchronous" if of.asynchronous else "") if note)
    return (
        f"{of.label:58} {of.architecture:7} {of.registers:5} {of.shared:7} {of.stack:6} {of.local:6}  {notes}"
    ).rstrip()


if __name__ == "__main__":
    sys.exit(main())
