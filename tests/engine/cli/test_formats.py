"""Formats and folders of results through the command, read back by other programs."""

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import soundfile
import srt
import webvtt
from commands import records, tritone_invoke

from tritone.engine.builtin_models import ENGLISH

SAMPLES = Path(__file__).parents[3] / "samples" / "english"
GOLDEN = Path(__file__).parent / "golden"
RATE = 16_000
ALL = {".txt", ".json", ".srt", ".vtt", ".tsv"}
needs_english = pytest.mark.skipif(ENGLISH.find() is None, reason=f"needs the extra: {ENGLISH.remedy}")


@pytest.fixture
def folder(waveforms, tmp_path):
    """Recordings of equal names in two folders, one with two channels, and a bad one."""
    folder = tmp_path / "talks"
    for number, name in enumerate(["a.wav", "a.flac", "day 2/a.wav"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, waveforms[number], RATE)
    (folder / "bad.wav").write_text("no audio")
    return folder


@pytest.fixture
def run(ctc_checkpoint):
    def invoke(*arguments, exit_code=0):
        given = "transcribe", *arguments, "--model", ctc_checkpoint, "--device", "cpu"
        found = tritone_invoke(*given)
        assert found.exit_code == exit_code, found.output
        return found

    return invoke


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {
        ".tritone-results"
    }


def test_a_folder_has_all_formats_of_each_recording_and_failures_are_tried_again(run, folder, tmp_path):
    output = tmp_path / "out"
    first = run(folder, "-o", output, exit_code=1)
    assert (first.stdout, first.stderr.count("not audio")) == ("", 1)
    stems = ["a.wav", "a.flac", "day 2/a"]
    assert names(output) == {f"{stem}{suffix}" for stem in stems for suffix in ALL}
    again = run(folder, "-o", output, exit_code=1)
    assert f"{output} goes on: 3 of 4 recordings are there" in again.stderr
    assert "1 files" in again.stderr
    (folder / "bad.wav").write_bytes((folder / "a.wav").read_bytes())
    run(folder, "-o", output)
    assert (output / "bad.srt").read_text() == (output / "a.wav.srt").read_text()
    assert "4 of 4 recordings are there" in run(folder, "-o", output).stderr


def test_every_format_has_the_same_words(run, folder, tmp_path):
    run(folder / "a.wav", "-o", tmp_path / "out", "-f", "all", "--format", "jsonl,srt")
    file = (tmp_path / "out" / "a.wav").with_suffix
    (line,) = records(file(".jsonl"))
    words = line["text"].split()
    assert file(".txt").read_text().split() == words
    assert " ".join(cue.content for cue in srt.parse(file(".srt").read_text())).split() == words
    assert " ".join(caption.text for caption in webvtt.read(file(".vtt"))).split() == words
    rows = [row.split("\t") for row in file(".tsv").read_text().splitlines()[1:]]
    assert " ".join(row[2] for row in rows).split() == words
    found = json.loads(file(".json").read_text())
    assert found["text"] == line["text"]
    assert [word["word"] for word in found["words"]] == [word["word"] for word in line["words"]] == words
    assert found["duration"] == line["duration"]
    for suffix in ALL:
        alone = run(folder / "a.wav", "-f", suffix[1:])
        if suffix == ".txt":
            assert alone.stdout.split() == words
        else:
            assert alone.stdout == file(suffix).read_text()


def test_a_file_has_the_format_of_its_suffix_and_is_not_written_over(run, folder, tmp_path):
    output = tmp_path / "a.VTT"
    run(folder / "a.wav", "--output", output)
    before = output.read_text()
    assert before.startswith("WEBVTT\n")
    refused = run(folder / "a.flac", "--output", output, exit_code=2)
    assert f"{output}: is there already; name another file, or --overwrite it" in refused.stderr
    assert output.read_text() == before
    run(folder / "a.flac", "--output", output, "--overwrite")
    assert output.read_text() != before
    run(folder, "--output", tmp_path / "a.txt", exit_code=1)
    assert (tmp_path / "a.txt").read_text().startswith("# tritone ")
    run(folder, "--output", tmp_path / "a.log", exit_code=1)
    assert len(records(tmp_path / "a.log")) == 4
    failed = run(folder / "bad.wav", "--output", tmp_path / "bad.srt", exit_code=1)
    assert "not audio" in failed.stderr
    assert not (tmp_path / "bad.srt").exists()


def test_each_channel_has_a_file_of_its_own(run, waveforms, tmp_path):
    count = min(map(len, waveforms[:2]))
    tracks = np.stack([waveform[:count] for waveform in waveforms[:2]], axis=1)
    soundfile.write(tmp_path / "call.wav", tracks, RATE)
    for _ in range(2):
        done = run(tmp_path / "call.wav", "--channels", "split", "-o", tmp_path / "out", "-f", "srt,json")
    assert "1 of 1 recordings are there" in done.stderr
    assert names(tmp_path / "out") == {
        f"call.channel{n}.{suffix}" for n in (0, 1) for suffix in ("srt", "json")
    }
    assert json.loads((tmp_path / "out" / "call.channel1.json").read_text())["channel"] == 1


def test_lines_are_as_long_as_asked_and_words_are_underlined_in_turn(run, folder):
    narrow = run(folder / "a.wav", "-f", "srt", "--max-line-width", 8, "--max-line-count", 1)
    assert all(len(cue.content) <= 8 for cue in srt.parse(narrow.stdout))
    marked = run(folder / "a.wav", "-f", "vtt", "--highlight-words").stdout
    assert marked.count("<u>") == marked.count(" --> ") >= 1


def test_a_folder_of_other_options_is_refused(run, folder, tmp_path):
    run(folder / "a.wav", "-o", tmp_path / "out")
    for option in (("--max-line-width", 20), ("--channels", "split"), ("--dtype", "bfloat16")):
        refused = run(folder / "a.wav", "-o", tmp_path / "out", *option, exit_code=2)
        assert "made with model" in refused.stderr
        assert "name another folder, or --overwrite its results" in refused.stderr


def test_a_folder_that_cannot_be_written_ends_the_command(run, folder, tmp_path):
    (tmp_path / "file").touch()
    run(folder, "-o", tmp_path / "file" / "out", exit_code=2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "day 2").write_text("in the way")
    stopped = run(folder, "-o", tmp_path / "out", "-f", "srt", exit_code=1)
    assert f"--output-dir {tmp_path / 'out'}: " in stopped.stderr
    assert "stopped with" in stopped.stderr
    assert "Traceback" not in stopped.stderr


def test_labels_are_lines(audio_classifier, folder, tmp_path):
    common = ("classify", folder / "a.wav", "--model", audio_classifier, "--device", "cpu")
    for given in (("-f", "srt"), ("-f", "all"), ("--output", tmp_path / "a.json")):
        refused = tritone_invoke(*common, *given)
        assert refused.exit_code == 2
    assert "labels have no json" in refused.stderr


# The English model's subtitles, as they were when they had been looked at over a video.


def assert_like_golden(found: Path) -> None:
    wanted = list(srt.parse((GOLDEN / found.name).read_text()))
    cues = list(srt.parse(found.read_text()))
    assert [cue.content for cue in cues] == [cue.content for cue in wanted]
    for cue, golden in zip(cues, wanted, strict=True):
        assert abs(cue.start - golden.start) < timedelta(seconds=0.1)
        assert abs(cue.end - golden.end) < timedelta(seconds=0.1)


@needs_english
def test_subtitles_of_sentences_are_those_that_were_looked_at(tmp_path):
    samples = [SAMPLES / name for name in ("weather_22k.flac", "garden_44k.mp3")]
    run = tritone_invoke("transcribe", *samples, "--model", "english", "--device", "cpu", "-o", tmp_path)
    assert run.exit_code == 0, run.stderr
    for sample in samples:
        found = tmp_path / sample.name
        assert_like_golden(found.with_suffix(".srt"))
        segments = json.loads(found.with_suffix(".json").read_text())["segments"]
        assert all(segment["words"] and segment["tokens"] for segment in segments)
        rows = found.with_suffix(".tsv").read_text().splitlines()[1:]
        assert [row.split("\t")[2] for row in rows] == [segment["text"].strip() for segment in segments]
        assert found.with_suffix(".txt").read_text().splitlines() == [row.split("\t")[2] for row in rows]
