"""Counts of the host's work on GPUs that take no time; times would depend on the machine.

Models have the layers of Speech2Text small, 12 and 6, which fix the number of launches, and less width;
Whisper tiny, 4 and 4, has its own.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(torch.version.cuda is not None, reason="stands in for CUDA in a CPU build of torch"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
]


def measured(tmp_path, *options: str) -> dict:
    """Results of a run of the script with 16 requests at once."""
    file = tmp_path / "host.json"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "bench/engine/host.py", "--running", "16", "--json", str(file), *options]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return json.loads(file.read_text())


def test_a_step_launches_and_copies_as_little_as_it_did(tmp_path):
    found = measured(tmp_path, "--model", "narrow")
    assert found["nodes_per_step"] <= 55
    assert found["replayed"] > 0.9  # the others are first steps of a size
    assert found["launches_per_encode"] <= 92
    assert found["copies_per_step"] <= 8  # tables of an encoder, and of admitted requests; results
    assert found["blocking_copies"] == found["engine_blocking_copies"] == 0
    assert {"rtfx_host", "rtfx_engine", "host_ms_per_step", "launch_us"} <= found.keys()
    assert found["running"] > 12


def test_mixed_requests_are_recorded_too(tmp_path):
    found = measured(tmp_path, "--model", "tiny", "--mix", "--only", "loop")
    assert found["blocking_copies"] == 0
    assert found["replayed"] > 0.5


def test_a_step_of_five_beams_launches_one_kernel_more(tmp_path):
    beams = measured(tmp_path, "--model", "narrow", "--beams", "5", "--only", "loop")
    assert beams["nodes_per_step"] <= 56
    assert beams["blocking_copies"] == 0
    assert beams["replayed"] > 0.9


def test_an_encoder_only_model_launches_few_kernels_beside_its_layers(tmp_path):
    found = measured(tmp_path, "--model", "wav2vec2", "--only", "loop", "--budget", "4096")
    assert found["launches_per_encode"] <= 102
    assert found["blocking_copies"] == 0


def test_whisper_launches_and_copies_as_little_as_it_did(tmp_path):
    found = measured(tmp_path, "--model", "whisper-tiny")
    assert found["nodes_per_step"] <= 45
    assert found["replayed"] == 1.0
    assert found["launches_per_encode"] <= 42
    assert found["copies_per_step"] <= 6
    assert found["blocking_copies"] == found["engine_blocking_copies"] == 0
    assert found["compiled"] == found["engine_compiled"] == 0
    assert found["running"] > 12


def test_a_profile_names_the_functions_of_a_thread(tmp_path):
    file = tmp_path / "profile.json"
    command = [sys.executable, "-m", "bench.engine.host", "--quick", "--only", "loop", "--profile", "loop"]
    done = subprocess.run(
        [*command, "--json", str(file)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "schedule" in done.stdout
