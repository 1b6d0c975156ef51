"""Split channels on the command line: lines of each, and output files that lack some."""

import json

import numpy as np
import pytest
import soundfile
from commands import records, tritone_invoke

RATE = 16_000


@pytest.fixture
def folder(waveforms, tmp_path):
    """Three recordings of two, one and two channels."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name, tracks in {"a": (0, 1), "b": (2,), "c": (3, 4)}.items():
        samples = min(len(waveforms[track]) for track in tracks)
        columns = np.stack([waveforms[track][:samples] for track in tracks], axis=1)
        soundfile.write(folder / f"{name}.wav", columns, RATE, "FLOAT")
    return folder


@pytest.fixture
def run(ctc_checkpoint):
    def invoke(*arguments, exit_code=0):
        given = "transcribe", *arguments, "--model", ctc_checkpoint, "--device", "cpu"
        found = tritone_invoke(*given, "--channels", "split")
        assert found.exit_code == exit_code, found.output
        return found

    return invoke


def test_json_lines_have_the_channel_and_their_number(run, folder, tmp_path):
    output = tmp_path / "out.jsonl"
    done = run(folder, "--output", output)
    lines = records(output)
    assert [(line["path"][-5:], line["channel"], line["channels"]) for line in lines] == [
        ("a.wav", 0, 2),
        ("a.wav", 1, 2),
        ("b.wav", 0, 1),
        ("c.wav", 0, 2),
        ("c.wav", 1, 2),
    ]
    assert all(line["text"] and line["options"]["channels"] == "split" for line in lines)
    assert "3 files" in done.stderr


def test_text_lines_have_both_before_the_text(run, folder, tmp_path):
    run(folder, "--output", tmp_path / "out.jsonl")
    texts = [" ".join(line["text"].split()) for line in records(tmp_path / "out.jsonl")]
    lines = [line.split("\t") for line in run(folder).stdout.splitlines()]
    assert [line[1] for line in lines] == ["0/2", "1/2", "0/1", "0/2", "1/2"]
    assert [line[2] for line in lines] == texts
    assert run(folder / "a.wav").stdout.splitlines() == [f"0/2\t{texts[0]}", f"1/2\t{texts[1]}"]


@pytest.mark.parametrize("line_format", ["jsonl", "text"])
def test_a_file_cut_anywhere_is_completed_to_the_same_lines(run, folder, tmp_path, line_format):
    output = tmp_path / "out"
    arguments = folder, "--output", output, "--format", line_format
    run(*arguments)
    whole = output.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == 10]
    for end in [0, *(end + more for end in ends for more in (-1, 0, 9))]:
        output.write_bytes(whole[:end])
        run(*arguments)
        assert output.read_bytes() == whole, end
    assert "3 of 3" in run(*arguments).stderr


@pytest.mark.parametrize("line_format", ["jsonl", "text"])
def test_a_recording_with_a_failed_channel_is_tried_again_as_a_whole(run, folder, tmp_path, line_format):
    output = tmp_path / "out"
    arguments = folder, "--output", output, "--format", line_format
    good, _ = soundfile.read(folder / "a.wav", dtype="float32")
    bad = good.copy()
    bad[7, 1] = np.nan
    soundfile.write(folder / "a.wav", bad, RATE, "FLOAT")
    failed = run(*arguments, exit_code=1)
    assert "1 failed" in failed.stderr
    count = len(output.read_text().splitlines())
    assert count == 5  # in text a header and four results
    assert "2 of 3" in run(*arguments, exit_code=1).stderr
    assert len(output.read_text().splitlines()) == count
    soundfile.write(folder / "a.wav", good, RATE, "FLOAT")
    run(*arguments)
    kept = output.read_text().splitlines()
    assert [line.startswith(("#", '{"path": "' + str(folder / "a"))) for line in kept].count(True) in (1, 2)
    assert sum("a.wav" in line for line in kept) == 2
    assert "a.wav" in kept[-1]
    assert "3 of 3" in run(*arguments).stderr


def test_a_recording_that_cannot_be_opened_has_one_line_without_channel(run, folder, tmp_path):
    (folder / "b.wav").write_text("no audio")
    output = tmp_path / "out.jsonl"
    run(folder, "--output", output, exit_code=1)
    (failure,) = [line for line in records(output) if line["error"]]
    assert failure["path"].endswith("b.wav")
    assert "channel" not in failure
    (folder / "b.wav").write_bytes((folder / "a.wav").read_bytes())
    run(folder, "--output", output)
    assert len(records(output)) == 6


def test_a_file_of_mixed_channels_is_not_continued_with_split_ones(run, folder, ctc_checkpoint, tmp_path):
    output = tmp_path / "out.jsonl"
    tritone_invoke("transcribe", folder, "--model", ctc_checkpoint, "--device", "cpu", "--output", output)
    assert "channel" not in records(output)[0]
    assert "channels split" in run(folder, "--output", output, exit_code=2).stderr


def test_split_channels_of_a_classifier(audio_classifier, folder):
    options = "--model", audio_classifier, "--device", "cpu", "--channels", "split", "--top-k", 1
    text = tritone_invoke("classify", folder / "a.wav", *options)
    assert [line.split("\t")[0] for line in text.stdout.splitlines()] == ["0/2", "1/2"]
    lines = tritone_invoke("classify", folder, *options, "--format", "jsonl").stdout.splitlines()
    assert [json.loads(line)["channel"] for line in lines] == [0, 1, 0, 0, 1]
