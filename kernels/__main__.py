"""Compile every declared kernel case without a GPU and print its resources: `python -m tritone.kernels`.

Cases whose kernel and Triton version have not changed since an earlier run are not compiled: their resources
are read from `$TRITONE_CACHE`, or else `~/.cache/tritone/kernels`. The exit status is 1 if a case spills
registers (to stack or local memory) on sm_90, or needs more shared memory than its architecture has.

Columns: registers of a thread; bytes of shared memory; programs that a multiprocessor holds; spilled bytes
(stack and local); instructions and waits in the main loop; the matrix unit; bytes of a thread's widest copy
to shared memory that runs beside the arithmetic.

`--set BLOCK_M=64 num_stages=4` compiles a variant of each chosen case and prints it below the shipped one;
`--dump ptx,sass,ttgir` writes these texts into a folder.

`--pack FILE` compiles the chosen cases anew into an archive, and `--unpack FILE` adds it to Triton's cache
on a machine with the same version, which then need not compile them.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .runtime.archive import fresh_cache, pack, triton_cache, unpack
from .runtime.compilation import (
    TARGETS,
    Resources,
    compile_all,
    compiled_kernel,
    declared_cases,
    disassembly,
    resources_of,
    variant,
)
from .runtime.compile_cache import compile_cached, is_complete, load, mark_complete
from .runtime.launch import Case
from .runtime.optional_triton import triton


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 1 if a case exceeds a limit, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tritone.kernels", description=__doc__)
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="default: all of them")
    parser.add_argument("--kernel", help="only kernels with this in their name")
    parser.add_argument(
        "--case", default="", help="only cases with these words in their label: 'fp16 aligned'"
    )
    parser.add_argument(
        "--set", nargs="+", metavar="NAME=VALUE", help="constants, num_warps, num_stages of a variant"
    )
    parser.add_argument("--dump", help="stages to write, with commas: ttir,ttgir,llir,ptx,sass,amdgcn")
    parser.add_argument("--dump-to", type=Path, default=Path("dump"), help="folder; default: %(default)s")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--sample", action="store_true", help="one case of each kernel and target")
    chosen.add_argument(
        "--changed",
        action="store_true",
        help="as --sample, and every case of kernels that changed since all of them last compiled",
    )
    parser.add_argument("--pack", type=Path, help="archive to write, for instance kernels.tar.xz")
    parser.add_argument("--unpack", type=Path, help="archive to add to Triton's cache")
    parser.add_argument("--no-cache", action="store_true", help="compile cached cases too")
    parser.add_argument(
        "--jobs", type=int, default=_cores(), help="processes; default: all cores (%(default)s)"
    )
    given = parser.parse_args(arguments)
    cases = [
        case
        for case in declared_cases()
        if case.architecture in (given.target or TARGETS)
        and (given.kernel or "") in case.kernel.name
        and set(given.case.split()) <= set(case.label.split())
    ]
    if given.set or given.dump:
        try:
            return _study(cases, _settings(given.set or []), (given.dump or "").split(","), given.dump_to)
        except ValueError as error:
            parser.error(str(error))
    if given.unpack:
        print(f"{unpack(given.unpack, triton_cache())} kernels added to {triton_cache()}")
        return 0
    if given.pack:
        return _pack(cases, given.jobs, given.pack)
    complete = not (given.target or given.kernel or given.case or given.sample or given.changed)
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
    print(HEADER)
    complaints: list[str] = []
    cached, progress = 0, _Progress(len(cases))
    for resources, old in found:
        progress.step(table_line(resources))
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


def _pack(cases: list[Case], jobs: int, path: Path) -> int:
    """Compile cases into a Triton cache of their own, and pack it."""
    with fresh_cache() as folder:
        status = _report(cases, ((resources, False) for resources in compile_all(cases, jobs)), False)
        pack(folder, path)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, for Triton {triton.__version__}")
    return status


def _study(cases: list[Case], changes: dict[str, Any], stages: list[str], folder: Path) -> int:
    """Print each case, and below it its variant, and write the stages of the last of them to files."""
    print(HEADER)
    if not cases:
        raise ValueError("no declared case has that kernel, target and label; leave some of them out")
    for case in cases:
        shown = [("", case)] + ([("  with " + _joined(changes), variant(case, changes))] if changes else [])
        for note, one in shown:
            compiled = compiled_kernel(one)
            print(table_line(resources_of(one, compiled)) + note, flush=True)
            _dump(one, compiled, stages, folder / ("variant" if note else ""))
    return 0


def _dump(case: Case, compiled: Any, stages: list[str], folder: Path) -> None:
    for stage in filter(None, stages):
        if stage == "sass" and "cubin" in compiled.asm:
            text = disassembly(compiled.asm["cubin"])
        elif isinstance(compiled.asm.get(stage), str):
            text = compiled.asm[stage]
        else:
            known = ", ".join(name for name, value in compiled.asm.items() if isinstance(value, str))
            raise ValueError(
                f"{case.label} for {case.architecture} has no stage {stage!r}; it has {known}, sass"
            )
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{case.label.replace(' ', '-')}.{case.architecture}.{stage}"
        path.write_text(text)
        print(f"  {path}")


def _settings(given: list[str]) -> dict[str, Any]:
    """Settings of a variant from NAME=VALUE: whole numbers, True, False, or texts."""
    words = {"True": True, "False": False, "None": None}
    settings: dict[str, Any] = {}
    for setting in given:
        name, equals, value = setting.partition("=")
        if not (name and equals and value):
            raise ValueError(f"--set takes NAME=VALUE, such as BLOCK_M=64; got {setting!r}")
        settings[name] = words[value] if value in words else int(value) if value.isdigit() else value
    return settings


def _joined(changes: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in changes.items())


HEADER = (
    f"{'case':58} {'target':7} {'regs':>5} {'shared':>7} {'programs':>8} {'spills':>6} {'loop':>5} "
    f"{'waits':>5}  matrix unit, copies"
)


def table_line(of: Resources) -> str:
    """Row of the table under `HEADER`."""
    copies = f"copies of {of.copy_bytes} B" if of.asynchronous and of.copy_bytes else ""
    notes = ", ".join(note for note in (of.matrix_unit, copies) if note)
    return (
        f"{of.label:58} {of.architecture:7} {of.registers:5} {of.shared:7} {of.programs:8} "
        f"{of.stack + of.local:6} {of.loop_instructions:5} {of.loop_waits:5}  {notes}"
    ).rstrip()


if __name__ == "__main__":
    sys.exit(main())
