"""The `tritone` command as a process: exit codes, both outputs, bad files among good ones, interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

SAMPLES = Path(__file__).parents[2] / "samples"
SOON = 120  # seconds; a start alone takes several on a loaded machine


def tritone(*arguments, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tritone", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        command, input=stdin, capture_output=True, encoding="utf-8", timeout=SOON, env=environment
    )


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, waveforms) -> Path:
    """Three good recordings and three bad ones in a folder."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "sub").mkdir()
    for name, waveform in zip(["a.wav", "c.flac", "sub/é.ogg"], waveforms, strict=False):
        soundfile.write(folder / name, waveform, 16_000)
    (folder / "b.wav").write_text("no audio")
    (folder / "d.wav").touch()
    soundfile.write(folder / "long.flac", np.zeros(20 * 8_000), 8_000)
    (folder / "notes.txt").write_text("not looked at")
    return folder


# The model that comes along, on recordings that come along.


def test_the_samples_are_transcribed_right_with_no_option_at_all():
    wanted = json.loads((SAMPLES / "transcripts.json").read_text())
    run = tritone("transcribe", SAMPLES)
    found = dict(line.split("\t") for line in run.stdout.splitlines())
    assert {Path(path).name: text for path, text in found.items()} == wanted
    assert run.returncode == 0
    assert "digits" in run.stderr
    assert f"{len(wanted)} files" in run.stderr
    assert "0 failed" in run.stderr


# Any model.


def test_one_bad_file_does_not_stop_the_others(checkpoint, recordings):
    run = tritone("transcribe", recordings, "--model", checkpoint, "--device", "cpu")
    lines = [line.split("\t") for line in run.stdout.splitlines()]
    assert [path for path, _ in lines] == [
        str(recordings / name) for name in ("a.wav", "c.flac", "sub/é.ogg")
    ]
    assert all(text for _, text in lines)
    for name, wrong in (("b.wav", "not audio"), ("d.wav", "0 bytes"), ("long.flac", "longer than 8.0 s")):
        assert any(str(recordings / name) in line and wrong in line for line in run.stderr.splitlines())
    assert "6 files" in run.stderr
    assert "3 failed" in run.stderr
    assert "RTFx" in run.stderr
    assert "digits" not in run.stderr
    assert run.returncode == 1


def test_json_lines_hold_results_and_failures_in_order(checkpoint, recordings, tmp_path, waveforms):
    output = tmp_path / "out.jsonl"
    options = ("--num-beams", 2, "--max-new-tokens", 5, "--threads", 1, "--dtype", "float32")
    run = tritone("transcribe", recordings, "--model", checkpoint, "--output", output, *options)
    assert run.stdout == ""
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    names = ["a.wav", "b.wav", "c.flac", "d.wav", "long.flac", "sub/é.ogg"]
    assert [record["path"] for record in records] == [str(recordings / name) for name in names]
    fields = {"path", "text", "token_ids", "finish_reason", "duration", "score", "error"}
    assert all(record.keys() == fields for record in records)
    good, bad = records[0], records[1]
    assert good["error"] is None
    assert good["text"]
    assert len(good["token_ids"]) <= 6
    assert good["finish_reason"] in ("stop", "length")
    assert good["duration"] == pytest.approx(len(waveforms[0]) / 16_000, abs=1e-3)
    assert good["score"] < 0
    assert (bad["text"], bad["token_ids"], bad["finish_reason"], bad["score"]) == (None, [], "error", None)
    assert "not audio" in bad["error"]
    assert run.returncode == 1


def test_of_a_single_file_only_the_text_is_printed_and_without_a_terminal_no_bar(checkpoint, recordings):
    run = tritone("transcribe", recordings / "a.wav", "--model", checkpoint)
    assert run.stdout.endswith("\n")
    assert "\t" not in run.stdout
    assert run.stdout.count("\n") == 1
    assert "\x1b" not in run.stderr + run.stdout
    assert "━" not in run.stderr
    assert run.returncode == 0


def test_paths_come_from_standard_input_and_a_missing_one_is_a_failure(checkpoint, recordings):
    listed = f"{recordings / 'c.flac'}\n\n{recordings / 'gone.wav'}\n"
    run = tritone("transcribe", "-", "--model", checkpoint, stdin=listed)
    assert run.stdout.startswith(f"{recordings / 'c.flac'}\t")
    assert run.stdout.count("\n") == 1
    assert "gone.wav: no such file" in run.stderr
    assert run.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ([], "Missing argument"),
        (["nowhere.wav"], "nowhere.wav: no such file or folder"),
        (["{folder}/sub", "--output", "/no/such/folder/out.jsonl"], "cannot be written"),
        (["{folder}/sub", "--model", "/no/such/model"], "no checkpoint"),
        (["{folder}/sub", "--model", "{model}", "--language", "fr"], "language 'fr'"),
        (["{folder}/sub", "--num-beams", "0"], "num-beams"),
        (["{folder}/sub", "--beams", "2"], "--beams"),
    ],
)
def test_a_wrong_call_ends_with_2_and_says_what_is_wrong(checkpoint, recordings, arguments, wrong):
    arguments = [argument.format(folder=recordings, model=checkpoint) for argument in arguments]
    run = tritone("transcribe", *arguments)
    assert run.returncode == 2
    assert wrong in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


def test_lines_are_there_as_soon_as_they_are_known_and_an_interruption_keeps_them(
    checkpoint, tmp_path, waveforms
):
    paths = []
    for index in range(400):
        paths.append(str(tmp_path / f"{index}.wav"))
        soundfile.write(paths[-1], np.tile(waveforms[4], 3), 16_000)
    output = tmp_path / "out.jsonl"
    options = ["--model", str(checkpoint), "--output", str(output), "--num-beams", "5", "--threads", "1"]
    command = [sys.executable, "-m", "tritone", "transcribe", *paths, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + SOON
    while not (output.is_file() and output.read_text().count("\n") > 3) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=SOON)
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert 3 < len(records) < 400
    assert [record["path"] for record in records] == paths[: len(records)]
    assert f"{len(records)} files" in errors
    assert f"interrupted with {400 - len(records)} to go" in errors
    assert "Traceback" not in errors
    assert process.returncode == 130


def test_a_reader_that_goes_away_ends_the_command_without_a_traceback(checkpoint, recordings):
    command = [sys.executable, "-m", "tritone", "transcribe", str(recordings), "--model", str(checkpoint)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.wait(SOON)
    process.stderr.close()
    assert "Traceback" not in errors
    assert process.returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_bar_is_drawn_on_a_terminal_and_the_text_stays_whole(checkpoint, recordings):
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tritone", "transcribe", str(recordings), "--model", str(checkpoint)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "60"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    drawn = b""
    while True:
        try:
            drawn += (chunk := os.read(ours, 4096))
        except OSError:
            break
        if not chunk:
            break
    output, _ = process.communicate(timeout=SOON)
    os.close(ours)
    assert "━".encode() in drawn
    assert b"6/6" in drawn
    assert len(output.decode().splitlines()) == 3
    assert b"\x1b" not in output


def test_the_version_is_the_packages():
    import tritone as package

    assert tritone("--version").stdout == f"tritone {package.__version__}\n"
