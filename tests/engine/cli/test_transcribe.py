"""The `tritone` command as a process: exit codes, both outputs, bad files among good ones, interruption."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import SOON, records, tritone_invoke, tritone_on_terminal, tritone_process

import tritone

SAMPLES = Path(__file__).parents[3] / "samples" / "digits"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, waveforms) -> Path:
    """Three good recordings and three bad ones in a folder."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "sub").mkdir()
    for name, waveform in zip(["a.wav", "c.flac", "sub/é.ogg"], waveforms, strict=False):
        soundfile.write(folder / name, waveform, 16_000)
    (folder / "b.wav").write_text("no audio")
    (folder / "d.wav").touch()
    soundfile.write(folder / "nan.wav", np.full(800, np.nan), 8_000, "FLOAT")
    (folder / "notes.txt").write_text("not looked at")
    return folder


# The digits model, on the samples.


def test_the_samples_are_transcribed_right():
    wanted = json.loads((SAMPLES / "transcripts.json").read_text())
    run = tritone_process("transcribe", SAMPLES, "--model", "digits")
    found = dict(line.split("\t") for line in run.stdout.splitlines())
    assert {Path(path).name: text for path, text in found.items()} == wanted
    assert run.returncode == 0
    assert "no --model given" not in run.stderr
    assert f"{len(wanted)} files" in run.stderr
    assert "0 failed" in run.stderr


# Any model.


def test_one_bad_file_does_not_stop_the_others(checkpoint, recordings):
    run = tritone_invoke("transcribe", recordings, "--model", checkpoint, "--device", "cpu")
    lines = [line.split("\t") for line in run.stdout.splitlines()]
    assert [path for path, _ in lines] == [
        str(recordings / name) for name in ("a.wav", "c.flac", "sub/é.ogg")
    ]
    assert all(text for _, text in lines)
    for name, wrong in (("b.wav", "not audio"), ("d.wav", "0 bytes"), ("nan.wav", "sample 0 is nan")):
        assert any(str(recordings / name) in line and wrong in line for line in run.stderr.splitlines())
    assert "6 files" in run.stderr
    assert "3 failed" in run.stderr
    assert "RTFx" in run.stderr
    assert "digits" not in run.stderr
    assert run.exit_code == 1


def test_json_lines_hold_results_and_failures_in_order(checkpoint, recordings, tmp_path, waveforms):
    output = tmp_path / "out.jsonl"
    options = ("--num-beams", 2, "--max-new-tokens", 5, "--threads", 1, "--dtype", "float32")
    run = tritone_invoke("transcribe", recordings, "--model", checkpoint, "--output", output, *options)
    assert run.stdout == ""
    found = records(output)
    names = ["a.wav", "b.wav", "c.flac", "d.wav", "nan.wav", "sub/é.ogg"]
    assert [record["path"] for record in found] == [str(recordings / name) for name in names]
    fields = {"path", "text", "token_ids", "finish_reason", "duration", "score", "error", "model", "options"}
    assert all(record.keys() == fields for record in found)
    wanted = {"num_beams": 2, "max_new_tokens": 5, "dtype": "float32"}
    assert all((record["model"], record["options"]) == (str(checkpoint), wanted) for record in found)
    good, bad = found[0], found[1]
    assert good["error"] is None
    assert good["text"]
    assert len(good["token_ids"]) <= 6
    assert good["finish_reason"] in ("stop", "length")
    assert good["duration"] == pytest.approx(len(waveforms[0]) / 16_000, abs=1e-3)
    assert good["score"] < 0
    assert (bad["text"], bad["token_ids"], bad["finish_reason"], bad["score"]) == (None, [], "error", None)
    assert "not audio" in bad["error"]
    assert run.exit_code == 1


def test_of_a_single_file_only_the_text_is_printed_and_without_a_terminal_no_bar(checkpoint, recordings):
    run = tritone_invoke("transcribe", recordings / "a.wav", "--model", checkpoint)
    assert run.stdout.endswith("\n")
    assert "\t" not in run.stdout
    assert run.stdout.count("\n") == 1
    assert "\x1b" not in run.stderr + run.stdout
    assert "━" not in run.stderr
    assert run.exit_code == 0


def test_paths_come_from_standard_input_and_a_missing_one_is_a_failure(checkpoint, recordings):
    listed = f"{recordings / 'c.flac'}\n\n{recordings / 'gone.wav'}\n"
    run = tritone_invoke("transcribe", "-", "--model", checkpoint, stdin=listed)
    assert run.stdout.startswith(f"{recordings / 'c.flac'}\t")
    assert run.stdout.count("\n") == 1
    assert "gone.wav: no such file" in run.stderr
    assert run.exit_code == 1


@pytest.mark.skipif(sys.platform != "linux", reason="names there are text")
def test_a_list_of_paths_is_bytes_and_only_a_line_end_ends_a_name(tmp_path):
    names = [b"caf\xe9.wav", "\u2028\x85\x1c.wav".encode(), b" blanks .wav", b"carriage.wav"]
    folder = os.fsencode(tmp_path)
    listed = b"\n".join(folder + b"/" + name for name in names) + b"\r\n\n  \n" + folder + b"/" + names[0]
    options = "--model", "digits", "--output", tmp_path / "out.jsonl"
    run = tritone_invoke("transcribe", "-", *options, stdin=listed)
    assert [os.fsencode(record["path"]) for record in records(tmp_path / "out.jsonl")] == [
        folder + b"/" + name for name in names
    ]
    assert run.exit_code == 1


def test_a_path_that_names_nothing_is_a_failure_and_stops_no_other(checkpoint, recordings, tmp_path):
    (tmp_path / "empty").mkdir()
    output = tmp_path / "out.jsonl"
    paths = [tmp_path / "empty", "gone.wav", f"{recordings}/c*", f"{recordings}/*.mp3"]
    run = tritone_invoke("transcribe", *paths, "--model", checkpoint, "--output", output)
    assert run.exit_code == 1
    found = {record["path"]: record["error"] for record in records(output)}
    assert list(found) == [str(tmp_path / "empty"), "gone.wav", f"{recordings}/c.flac", f"{recordings}/*.mp3"]
    assert "no audio files there; looked for .wav" in found[str(tmp_path / "empty")]
    assert "gone.wav: no such file or folder; check the path" in found["gone.wav"]
    assert found[f"{recordings}/c.flac"] is None
    assert "no audio files there" in found[f"{recordings}/*.mp3"]
    for message in filter(None, found.values()):
        assert message in run.stderr


def test_where_no_path_names_a_recording_no_model_is_loaded(tmp_path):
    run = tritone_invoke("transcribe", "gone.wav", "--model", "/no/such/model", "--format", "jsonl")
    assert json.loads(run.stdout)["error"] == "gone.wav: no such file or folder; check the path"
    assert run.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ([], "Missing argument"),
        (["{folder}/sub", "--overwrite"], "--overwrite is about the file of --output"),
        (["{folder}/sub", "--output", "{folder}/a.wav"], "a.wav: has a recording's name"),
        (["{folder}/sub", "--output", "{folder}/notes.txt", "--format", "text"], "notes.txt: line 1 is not"),
        (
            ["{folder}", "--format", "srt"],
            "srt is a file of one result, and here are 6 recordings; give -o",
        ),
        (["{folder}/sub", "--format", "srt", "--channels", "split"], "here are the channels of a recording"),
        (["{folder}", "--output", "{folder}/x.json"], "json is a file of one result, and here are 6"),
        (
            ["{folder}/sub", "--format", "srrt"],
            "--format 'srrt': not one of text, jsonl",
        ),
        (["{folder}/sub", "-f", "srt,vtt"], "--format names 2 formats, which are a file each; name a folder"),
        (["{folder}/sub", "-f", "srt,vtt", "--output", "x"], "is one file, and --format names 2 formats"),
        (["{folder}/sub", "--output", "x.srt", "-f", "jsonl"], "suffix of srt, and --format is jsonl; leave"),
        (["{folder}/sub", "--output", "x.jsonl", "-f", "text"], "or name x.txt"),
        (["{folder}/sub", "--output", "x.srt", "-o", "x"], "give one of them"),
        (["{folder}/sub", "-o", "{folder}/notes.txt"], "notes.txt"),
        (
            ["{folder}/sub", "--max-line-width", "20"],
            "--max-line-width is of subtitles, and",
        ),
        (["{folder}/sub", "-f", "srt", "--max-line-width", "1"], "--max-line-width"),
        (
            ["{folder}/sub", "-f", "srt", "--model", "{model}", "--highlight-words"],
            "needs the times",
        ),
        (["{folder}/sub", "--output", "/no/such/folder/out.jsonl"], "cannot be written"),
        (["{folder}/sub", "--output", "/no/such/folder/out.srt"], "cannot be written"),
        (["{folder}/sub", "--model", "/no/such/model"], "no checkpoint"),
        (["{folder}/sub", "--model", "{model}", "--language", "fr"], "language 'fr'"),
        (["{folder}/sub", "--num-beams", "0"], "num-beams"),
        (["{folder}/sub", "--beams", "2"], "--beams"),
    ],
)
def test_a_wrong_call_ends_with_2_and_names_the_problem(checkpoint, recordings, arguments, wrong):
    arguments = [argument.format(folder=recordings, model=checkpoint) for argument in arguments]
    run = tritone_invoke("transcribe", *arguments)
    assert run.exit_code == 2
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
    # A shell that runs the tests in the background makes them ignore the signal, and Python inherits that.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeding
    )
    until = time.monotonic() + SOON
    while not (output.is_file() and output.read_text().count("\n") > 3) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=SOON)
    found = records(output)
    assert 3 < len(found) < 400
    assert [record["path"] for record in found] == paths[: len(found)]
    assert f"{len(found)} files" in errors
    assert f"interrupted with {400 - len(found)} to go" in errors
    assert "Traceback" not in errors
    assert process.returncode == 130


# Either format, to standard output or a file that a later run continues.


def test_both_formats_are_the_same_on_standard_output_and_in_a_file(checkpoint, recordings, tmp_path):
    options = ("--model", checkpoint, "--max-new-tokens", 4)
    output = tmp_path / "out"
    for line_format, header in (("text", 1), ("jsonl", 0)):
        printed = tritone_invoke("transcribe", recordings, *options, "--format", line_format)
        run = tritone_invoke("transcribe", recordings, *options, "--format", line_format, "--output", output)
        assert (run.stdout, run.exit_code, printed.exit_code) == ("", 1, 1)
        lines = output.read_text(encoding="utf-8").splitlines()[header:]
        assert printed.stdout.splitlines() == lines
        assert len(lines) == (3 if header else 6)
        output.unlink()


def test_standard_output_that_is_not_unicode_still_gets_json(checkpoint, recordings):
    command = [sys.executable, "-m", "tritone", "transcribe", str(recordings / "sub"), "--format", "jsonl"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    run = subprocess.run([*command, "--model", str(checkpoint)], capture_output=True, env=environment)
    assert json.loads(run.stdout)["path"] == str(recordings / "sub" / "é.ogg")


def test_a_file_that_is_complete_is_left_as_it_is_and_no_model_is_loaded(checkpoint, recordings, tmp_path):
    output = tmp_path / "out.jsonl"
    call = ("transcribe", recordings / "sub", recordings / "a.wav", "--model", checkpoint, "--output", output)
    assert tritone_invoke(*call).exit_code == 0
    before = output.read_bytes()
    output.write_bytes(before + b'{"path": "torn by ano')
    (checkpoint / "config.json").rename(checkpoint / "away")
    try:
        again = tritone_invoke(*call)
    finally:
        (checkpoint / "away").rename(checkpoint / "config.json")
    assert (again.exit_code, output.read_bytes()) == (0, before)
    assert "2 of 2 recordings are there" in again.stderr


def test_failures_are_tried_again_and_a_repaired_recording_gets_its_result(checkpoint, recordings, tmp_path):
    output, late = tmp_path / "out.jsonl", tmp_path / "late.wav"
    call = ("transcribe", recordings / "a.wav", late, "--model", checkpoint, "--output", output)
    assert tritone_invoke(*call).exit_code == 1
    first = output.read_text().splitlines()
    assert tritone_invoke(*call).exit_code == 1
    assert output.read_text().splitlines() == first
    late.write_bytes((recordings / "a.wav").read_bytes())
    run = tritone_invoke(*call)
    assert "1 of 2 recordings are there, 1 that failed are tried again" in run.stderr
    assert run.exit_code == 0
    assert output.read_text().splitlines()[0] == first[0]
    assert [(record["path"], record["error"]) for record in records(output)] == [
        (str(recordings / "a.wav"), None),
        (str(late), None),
    ]


def test_results_of_another_model_or_other_options_are_not_continued(
    checkpoint, multilingual, recordings, tmp_path
):
    output = tmp_path / "out.jsonl"
    call = ("transcribe", recordings / "sub", "--output", output, "--model")
    assert tritone_invoke(*call, checkpoint).exit_code == 0
    before = output.read_bytes()
    for changed in ([multilingual], [checkpoint, "--num-beams", 2], [checkpoint, "--dtype", "bfloat16"]):
        run = tritone_invoke(*call, *changed)
        assert f"{output}: made with model {checkpoint}, dtype float32 (line 1), but this call" in run.stderr
        assert run.stderr.count("\n") == 1
        assert (run.exit_code, output.read_bytes()) == (2, before)
    assert tritone_invoke(*call, multilingual, "--overwrite").exit_code == 0
    assert records(output)[0]["model"] == str(multilingual)


def test_a_wrong_call_overwrites_nothing(checkpoint, recordings, tmp_path):
    output = tmp_path / "out.jsonl"
    call = ("transcribe", recordings / "sub", "--output", output, "--overwrite", "--model")
    assert tritone_invoke(*call, checkpoint).exit_code == 0
    before = output.read_bytes()
    for wrong in (
        ["/no/such/model"],
        [checkpoint, "--language", "fr"],
        [checkpoint, "--max-new-tokens", 999],
    ):
        assert tritone_invoke(*call, *wrong).exit_code == 2
        assert output.read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_ends_the_command_with_its_reason(checkpoint, recordings):
    run = tritone_invoke("transcribe", recordings, "--model", checkpoint, "--output", "/dev/full")
    assert "--output /dev/full: No space left on device; stopped with 6 to go" in run.stderr
    assert run.exit_code == 1


@pytest.mark.slow
@pytest.mark.parametrize("line_format", ["jsonl", "text"])
def test_a_run_killed_at_any_moment_goes_on_and_ends_with_the_lines_of_an_uninterrupted_one(
    checkpoint, tmp_path, waveforms, line_format
):
    folder = tmp_path / "recordings"
    folder.mkdir()
    for index in range(60):
        soundfile.write(folder / f"{index:02}.wav", waveforms[index % len(waveforms)], 16_000)
    (folder / "07.wav").write_text("no audio")
    options = ["--model", str(checkpoint), "--format", line_format, "--num-beams", "3", "--threads", "1"]
    whole, output = tmp_path / "whole", tmp_path / "output"
    assert tritone_invoke("transcribe", folder, *options, "--output", whole).exit_code == 1

    command = [sys.executable, "-m", "tritone", "transcribe", str(folder), *options, "--output", str(output)]
    draw = random.Random(line_format)
    killed, size = 0, 0
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        enough = size + draw.randrange((whole.stat().st_size - size) // 3)  # bytes; once they are there
        until = time.monotonic() + SOON
        while process.poll() is None and time.monotonic() < until:
            if output.is_file() and output.stat().st_size > enough:
                break
            time.sleep(0.001)
        process.kill()
        killed += process.wait() == -signal.SIGKILL  # or it has come to its end before
        # As if it had been killed in the middle of a line, which is too short a moment to meet.
        size = output.stat().st_size - draw.randrange(300)
        os.truncate(output, size)
    assert killed > 1
    assert tritone_invoke("transcribe", folder, *options, "--output", output).exit_code == 1
    assert sorted(output.read_text().splitlines()) == sorted(whole.read_text().splitlines())
    if line_format == "text":  # where no failure had to be taken out, the order is the same too
        assert output.read_bytes() == whole.read_bytes()


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
    drawn, output = tritone_on_terminal("transcribe", recordings, "--model", checkpoint)
    assert "━" in drawn
    assert "6/6" in drawn
    assert len(output.splitlines()) == 3
    assert "\x1b" not in output


def test_the_version_is_the_packages():
    assert tritone_process("--version").stdout == f"tritone {tritone.__version__}\n"
