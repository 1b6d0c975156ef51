"""Profile of one case with NVIDIA's Nsight Compute."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from tritone.kernels import use

from .cases import Case, Setup


def profiled(cases: Sequence[Case], given: Sequence[str], folder: Path) -> int:
    """Run the command under ncu with --once in place of --ncu; returns its exit status.

    Raises:
        ValueError: several cases, or no ncu.
    """
    if len(cases) != 1:
        labels = "\n  ".join(f"{case.kernel}, {case.label}" for case in cases)
        raise ValueError(f"--ncu profiles one case; choose by --kernel and --case one of\n  {labels}")
    if shutil.which("ncu") is None:
        raise ValueError("--ncu needs Nsight Compute: put the folder of its ncu on PATH")
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / f"{cases[0].kernel}.ncu-rep"
    # Clocks stay as they are, like in the timings.
    options = ["--set", "full", "--profile-from-start", "off", "--clock-control", "none"]
    own = [sys.executable, "-m", "bench.kernels", *(one for one in given if one != "--ncu"), "--once"]
    print(f"{report}, for ncu-ui, or ncu --import {report} --page details")
    return subprocess.run(["ncu", *options, "--force-overwrite", "-o", report, *own], check=False).returncode


def once(cases: Sequence[Case], dtype: torch.dtype, solution: Any) -> int:
    """Call a case once, after a call that compiles it, between the profiler's start and stop."""
    (case,) = cases
    prepared = case.prepare(Setup(torch.device("cuda"), dtype, 1))
    with use(solution.operation, solution.function) if solution else nullcontext():
        prepared.ours.run(0)
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        prepared.ours.run(0)
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()
    return 0
