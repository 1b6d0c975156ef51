"""The micro benchmarks run, each once and untimed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_micro_benchmarks_run() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "bench/micro", "--benchmark-disable"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
