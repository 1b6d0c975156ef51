"""The load test of the server, small: many uploads at once, clients that leave, and files that are broken."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_every_answer_under_load_is_right_and_nothing_is_left_of_it(tmp_path):
    output = tmp_path / "load.json"
    options = ["--uploads", "60", "--model", "digits", "--max-waiting", "16", "--repeats", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.server", *options, "--timeout", "60", "--output", str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert output.exists(), done.stderr
    load = json.loads(output.read_text())["load"]
    assert load["wrong"] == []
    left = load["answers"].pop("left")
    assert 0 < left <= 6
    assert load["answers"] == {"200": 57 - left, "400": 3}
    assert load["refusals"] > 0
    assert not any(load["left_over"].values())
    assert load["open_files"]["end"] <= load["open_files"]["start"]
    assert json.loads(load["health"])["status"] == "ok"
    assert done.returncode == 0, done.stdout + done.stderr
