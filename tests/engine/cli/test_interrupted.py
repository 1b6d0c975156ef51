"""Commands that are interrupted or killed in the midst of a long recording, and go on from there."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from factories import write_ctc_checkpoint

from tritone.engine.journal_files import journal_path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs signals"),
]
SAMPLES = Path(__file__).parents[3] / "samples" / "digits"
SOON = 120


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, object]:
    return {"digits": "digits", "ctc": write_ctc_checkpoint(tmp_path_factory.mktemp("ctc"))}


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """Ten minutes of digits."""
    path = tmp_path_factory.mktemp("long") / "ten minutes.wav"
    samples, rate = soundfile.read(SAMPLES / "six_digits_16k.flac", dtype="float32")
    once = np.concatenate([samples, np.zeros(rate // 2, np.float32)])
    soundfile.write(path, np.tile(once, 600 * rate // len(once) + 1), rate)
    return path


def start(recording: Path, model: object, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tritone", "transcribe", recording, "--model", model, "--output", output]
    command += ["--max-window", "5"]
    return subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize("model", ["digits", "ctc"])
def test_an_interrupted_or_killed_command_goes_on_to_the_same_file(models, model, recording, tmp_path):
    whole, output, pick = tmp_path / "whole.jsonl", tmp_path / "out.jsonl", random.Random(0)
    assert start(recording, models[model], whole).wait(SOON) == 0
    journal = journal_path(tmp_path / "out.jsonl.windows", recording)
    for number in (signal.SIGINT, signal.SIGKILL):
        process, before = start(recording, models[model], output), size(journal)
        until = time.monotonic() + SOON
        while size(journal) == before and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.002)
        time.sleep(pick.random() / 50)
        process.send_signal(number)
        begin = time.monotonic()
        _, errors = process.communicate(timeout=SOON)
        assert b"Traceback" not in errors
        if process.returncode == 0:  # it was faster
            break
        assert process.returncode == (130 if number == signal.SIGINT else -number)
        assert time.monotonic() - begin < 10  # 2 s on a machine that does nothing else
        assert size(journal) > before
    assert start(recording, models[model], output).wait(SOON) == 0
    assert output.read_bytes() == whole.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "whole.jsonl"]


def test_a_second_interruption_kills_the_command_without_a_traceback(models, recording, tmp_path):
    process = start(recording, models["digits"], tmp_path / "out.jsonl")
    while not size(journal_path(tmp_path / "out.jsonl.windows", recording)) and process.poll() is None:
        time.sleep(0.002)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, errors = process.communicate(timeout=SOON)
    assert process.returncode in (130, -signal.SIGINT, 0)
    assert b"Traceback" not in errors
    assert b"core dumped" not in errors
