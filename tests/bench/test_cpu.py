"""The CPU's benchmark: a smoke run of each model, and the arithmetic of its rounds and its report."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("transformers")

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench"


@pytest.fixture(scope="module")
def cpu() -> Iterator[ModuleType]:
    """bench/cpu.py, forgotten afterwards with what it imported from its folder."""
    before = set(sys.modules)
    sys.path.insert(0, str(BENCH))
    try:
        yield importlib.import_module("cpu")
    finally:
        sys.path.remove(str(BENCH))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(BENCH)):
                del sys.modules[name]


@pytest.mark.parametrize("model", ["speech2text", "wav2vec2-ctc", "speech-encoder-decoder"])
def test_every_model_is_timed_beside_transformers_and_says_what_it_says(model, tmp_path):
    command = [sys.executable, BENCH / "cpu.py", "--smoke", "--threads", 1, "--model", model]
    run = subprocess.run(
        [*map(str, command), "--json", str(tmp_path / "cpu.json"), "--cost-of-invariance"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    told = json.loads((tmp_path / "cpu.json").read_text())
    assert told["about"]["command"].startswith("python")
    ours = ["tritone, float32", "tritone, float32, without invariance"]
    peers = ["transformers, batch 1, unpadded", "transformers, batch 4"]
    found = told["results"]["1 beams"]
    assert list(found) == [*ours, *peers]
    times = found[ours[0]] / max(found[name] for name in peers)
    best = max(peers, key=found.get).removeprefix("transformers, ")
    assert f"tritone, float32 is {times:.2f} times transformers' best ({best})" in run.stdout
    lines = {line[2:42].strip(): line for line in run.stdout.splitlines() if line.endswith(" of 4")}
    assert lines[ours[0]].endswith(" 4 of 4")


def test_beams_of_a_model_that_has_none_are_refused(cpu, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cpu.py", "--model", "wav2vec2-ctc", "--beams", "5"])
    with pytest.raises(SystemExit):
        cpu.parse_arguments()
    assert "has no beams; leave --beams out" in capsys.readouterr().err


def test_no_round_begins_that_would_not_end_in_time(cpu, monkeypatch, capsys):
    now = 0.0
    ran = []

    def run(recordings):
        nonlocal now
        now += len(recordings)
        ran.append(len(recordings))
        return ["text"] * len(recordings)

    monkeypatch.setattr(cpu.time, "perf_counter", lambda: now)
    recordings = cpu.Recordings().evenly(0.5, 1.5, 10)
    scale = cpu.Scale(0.5, 1.5, 10, ("float32",), 3, 4, 30)
    (timed,) = cpu.take_turns({"one": run}, recordings, scale, 3).values()
    assert ran == [4, 10, 10]  # 34 seconds would have been the third
    assert timed.seconds == [10, 10]
    assert "2 of 3 rounds" in capsys.readouterr().out


def test_recordings_of_even_lengths_come_in_no_order(cpu):
    found = [recording.seconds for recording in cpu.Recordings().evenly(2, 15, 12)]
    assert sorted(found) == pytest.approx([2 + 13 * index / 11 for index in range(12)], abs=1e-4)
    assert found != sorted(found)
