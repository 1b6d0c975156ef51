"""Smoke runs of `python -m bench.cpu`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def smoke(model: str, *options: str) -> str:
    """Standard output of a smoke run."""
    command = [sys.executable, "-m", "bench.cpu", "--smoke", "--threads", "1", "--model", model]
    run = subprocess.run(
        [*command, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout
