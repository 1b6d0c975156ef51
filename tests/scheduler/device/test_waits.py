"""No step of a loop waits for the GPU but for results; and each step stays on its own GPU."""

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import gpu_runs
import pytest
import torch

pytestmark = [
    pytest.mark.skipif(torch.version.cuda is not None, reason="stands in for CUDA in a CPU build of torch"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
]


@pytest.fixture(scope="module")
def runs() -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = sys.executable, gpu_runs.__file__
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "name", [*gpu_runs.OPTIONS, *gpu_runs.FEATURES, *gpu_runs.WAVEFORMS, *gpu_runs.TEXTS]
)
def test_no_operation_of_a_run_waits_for_the_gpu(runs: dict[str, Any], name: str) -> None:
    assert not runs[name]["errors"]
    assert not runs[name]["waits"], "\n".join(runs[name]["waits"])


@pytest.mark.parametrize(
    "name", [*gpu_runs.OPTIONS, *gpu_runs.FEATURES, *gpu_runs.WAVEFORMS, *gpu_runs.TEXTS]
)
def test_events_are_of_the_models_gpu_and_not_of_the_current_one(runs: dict[str, Any], name: str) -> None:
    assert runs[name]["devices"] == [1]
