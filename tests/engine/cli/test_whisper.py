"""Whisper's options of the command, and the segments of its JSON lines."""

import json

import numpy as np
import pytest
import soundfile
from commands import records, tritone_invoke
from whisper_checkpoints import recording, write_whisper_checkpoint

import tritone


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return write_whisper_checkpoint(tmp_path_factory.mktemp("whisper"))


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name, seconds in (("a", 0.6), ("b", 2.3)):
        soundfile.write(folder / f"{name}.wav", recording(seconds, seed=len(name)), 16_000, "FLOAT")
    return folder


def test_every_option_reaches_the_engine(whisper, recordings, tmp_path):
    output = tmp_path / "out.jsonl"
    given = (
        *("--language", "german", "--task", "translate", "--windows", "pauses", "--timestamps"),
        *("--prompt", "ask not", "--condition-on-prev-tokens", "--temperature", "0", "--temperature", "0.4"),
        *(
            "--compression-ratio-threshold",
            "2.4",
            "--logprob-threshold",
            "-9",
            "--no-speech-threshold",
            "0.6",
        ),
        *("--num-beams", "2", "--patience", "1.5"),
    )
    run = tritone_invoke(
        "transcribe", recordings, "--model", whisper, "--device", "cpu", *given, "--output", output
    )
    assert run.exit_code == 0, run.stderr
    options = {
        "language": "german",
        "task": "translate",
        "windows": "pauses",
        "return_timestamps": True,
        "prompt": "ask not",
        "condition_on_prev_tokens": True,
        "temperature": [0.0, 0.4],
        "compression_ratio_threshold": 2.4,
        "logprob_threshold": -9.0,
        "no_speech_threshold": 0.6,
        "num_beams": 2,
        "patience": 1.5,
    }
    lines = records(output)
    assert all(line["options"] == options | {"dtype": "float32"} for line in lines)
    with tritone.Engine(whisper, device="cpu") as engine:
        results = list(engine.transcribe(sorted(recordings.iterdir()), **options))
    for line, result in zip(lines, results, strict=True):
        assert (line["text"], line["language"]) == (result.text, "de")
        assert len(line["segments"]) == len(result.segments) > 0
        for found, segment in zip(line["segments"], result.segments, strict=True):
            assert (found["text"], found["token_ids"]) == (segment.text, list(segment.token_ids))
            assert (found["start"], found["end"]) == (round(segment.start, 3), round(segment.end, 3))
            assert found["score"] == segment.score
            assert found["compression_ratio"] == segment.compression_ratio
            assert found["no_speech_probability"] == segment.no_speech_probability
            assert found["temperature"] == segment.temperature
    again = tritone_invoke(
        "transcribe", recordings, "--model", whisper, "--device", "cpu", *given, "--output", output
    )
    assert "2 of 2 recordings are there" in again.stderr


def test_a_long_recording_is_one_line_of_text_and_a_short_one_has_no_segments(whisper, recordings):
    run = tritone_invoke("transcribe", recordings, "--model", whisper, "--device", "cpu")
    lines = run.stdout.splitlines()
    assert [line.partition("\t")[0] for line in lines] == [str(recordings / f"{name}.wav") for name in "ab"]
    run = tritone_invoke("transcribe", recordings, "--model", whisper, "--device", "cpu", "--format", "jsonl")
    short, long = map(json.loads, run.stdout.splitlines())
    assert "segments" not in short
    assert short["language"]
    assert "".join(segment["text"] for segment in long["segments"]) == long["text"]
    assert long["segments"][-1]["end"] <= long["duration"] == 2.3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--language", "klingon"), "klingon"),
        (("--task", "sing"), "--task"),
        (("--windows", "none"), "--windows"),
        (("--temperature", "-1"), "--temperature"),
        (("--prompt", "<|en|>"), "special token"),
    ],
    ids=str,
)
def test_a_wrong_option_is_incorrect_usage(whisper, recordings, given, message):
    run = tritone_invoke("transcribe", recordings, "--model", whisper, "--device", "cpu", *given)
    assert run.exit_code == 2
    assert message in run.stderr


def test_other_models_have_no_options_of_whisper(recordings, ctc_checkpoint, checkpoint):
    for model in (ctc_checkpoint, checkpoint):
        for given in (("--task", "translate"), ("--windows", "pauses"), ("--timestamps",)):
            run = tritone_invoke("transcribe", recordings, "--model", model, "--device", "cpu", *given)
            assert run.exit_code == 2
            assert given[0].removeprefix("--") in run.stderr.replace("return_timestamps", "timestamps")


def test_channels_of_a_long_recording_have_segments_each(whisper, tmp_path):
    stereo = np.stack([recording(1.8, 1), recording(1.8, 2)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 16_000, "FLOAT")
    arguments = ("--model", whisper, "--device", "cpu", "--channels", "split", "--format", "jsonl")
    run = tritone_invoke("transcribe", tmp_path / "a.wav", *arguments)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [line["channel"] for line in lines] == [0, 1]
    assert all(line["segments"] for line in lines)
