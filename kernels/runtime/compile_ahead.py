"""Compilation, in parallel processes, of the cases that a model launches and Triton's disk cache lacks.

Run as a module it is one of those processes: it reads the target and the cases' names, and prints a line for
each.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import torch

from .compilation import Target, check_compiler, compiled_case, declared_cases, is_compiled
from .launch import KERNELS, Case, recorded
from .optional_triton import triton

_MODULE = "tritone.kernels.runtime.compile_ahead"


def cases_of(call: Callable[[], Any]) -> list[Case]:
    """Cases that a call would launch, each once; nothing is launched, and outputs hold no values."""
    with recorded(dry=True) as cases:
        call()
    return list(dict.fromkeys(cases))


def cases_for(architecture: str, dtype: torch.dtype) -> list[Case]:
    """Cases of the kernels imported so far that a model of this dtype may launch: those of no other dtype.

    Kernels that have no case of the dtype, such as the filter bank's, compute in float32 for every model.
    """
    found: list[Case] = []
    for kernel in KERNELS:
        cases = [case for case in kernel.cases.values() if case.architecture == architecture]
        of_dtype = [case for case in cases if dtype in case.key]
        found += of_dtype or cases
    return found


def compile_ahead(
    cases: Iterable[Case],
    device: torch.device,
    *,
    jobs: int | None = None,
    report: Callable[[int, int], None] | None = None,
) -> int:
    """Compile cases for a GPU unless Triton's disk cache holds them, and return how many that were.

    A case that fails is left to its first launch, which raises.

    Args:
        cases: cases of the device's architecture, as of `cases_of`.
        device: CUDA device whose launches find them.
        jobs: number of processes, all cores by default; each takes 3 s to start.
        report: called with the numbers of finished and of all cases, first with 0.
    """
    check_compiler()
    with torch.cuda.device(device):
        found = triton.runtime.driver.active.get_current_target()
    target: Target = (found.backend, found.arch, found.warp_size)
    missing = [case for case in dict.fromkeys(cases) if not is_compiled(case, target)]
    if not missing:
        return 0
    report = report or (lambda done, total: None)
    report(0, len(missing))
    names = {case: name for name, case in _named().items()}
    wanted = [names[case] for case in missing if case in names]
    jobs = max(1, min(jobs or len(os.sched_getaffinity(0)), len(wanted)))
    done, lock = 0, Lock()

    def finished() -> None:
        nonlocal done
        with lock:
            done += 1
            report(done, len(missing))

    with ThreadPoolExecutor(jobs) as pool:
        for worker in [pool.submit(_work, target, wanted[job::jobs], finished) for job in range(jobs)]:
            worker.result()
    return len(missing)


def _named() -> dict[str, Case]:
    """Declared cases by names that are the same in every process, whatever the order of imports was."""
    return {
        f"{case.architecture} {case.kernel.plain.fn.__module__} {case.label}": case
        for case in declared_cases()
    }


def _work(target: Target, names: list[str], finished: Callable[[], None]) -> None:
    """Compile cases by their names in a process of its own, since a fork inherits CUDA and threads' locks."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TRITON_CACHE_DIR": str(triton.knobs.cache.dir),
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-m", _MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([target, names]))
        process.stdin.close()
        for _ in process.stdout:
            finished()


def _main() -> None:
    target, names = json.loads(sys.stdin.read())
    cases = _named()
    for name in names:
        try:
            compiled_case(cases[name], tuple(target))
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        print(name, flush=True)


if __name__ == "__main__":
    _main()
