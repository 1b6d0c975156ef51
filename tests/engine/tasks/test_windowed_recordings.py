"""The longest window of a recording: where it comes from, its bounds, and the options that refuse it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import records, tritone_invoke
from factories import edit_json
from whisper_checkpoints import recording, write_whisper_checkpoint

import tritone
from tritone.engine.audio.segments import cut_at_pauses
from tritone.engine.config import EngineConfig

SOON = 60  # seconds
RATE = 16_000


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A checkpoint with windows of one second."""
    return write_whisper_checkpoint(tmp_path_factory.mktemp("whisper"))


def test_shorter_windows_of_whisper_are_pieces_that_are_decoded_alone(whisper):
    audio = recording(1.9, seed=3)
    with tritone.Engine(whisper, device="cpu", num_rows=8) as engine:
        found = engine.submit(audio, windows="pauses", max_window=0.5, language="en").result(SOON)
        pieces = list(cut_at_pauses([audio], RATE, 0.5, 0.375))
        alone = [engine.submit(one.samples, language="en").result(SOON) for one in pieces]
    assert found.text == "".join(one.text for one in alone)
    assert [one.start for one in found.segments] == [piece.start / RATE for piece in pieces]


def test_the_configurations_window_is_the_default_of_calls(whisper):
    audio = recording(1.9, seed=3)
    with tritone.Engine(whisper, device="cpu", num_rows=8, config=EngineConfig(max_window=0.5)) as engine:
        shorter = engine.submit(audio, windows="pauses").result(SOON)
        usual = engine.submit(audio, windows="pauses", max_window=1.0).result(SOON)
    assert len(shorter.segments) > len(usual.segments) > 1


@pytest.mark.parametrize("seconds", [0, -1.0, 0.05, 1.01, 30, float("nan"), float("inf"), "9", True])
def test_a_window_that_the_model_does_not_take_is_refused_with_the_limits(whisper, seconds):
    refusal = (
        r"max_window is .*; it must be a number of seconds from 0\.08 to 1, the longest window that this Wh"
    )
    with (
        tritone.Engine(whisper, device="cpu", num_rows=4) as engine,
        pytest.raises(ValueError, match=refusal),
    ):
        engine.submit(np.zeros(RATE, np.float32), windows="pauses", max_window=seconds)


def test_a_configured_window_that_the_model_does_not_take_is_refused(whisper):
    with pytest.raises(
        ValueError, match=r"max_window of EngineConfig is 2\.5; it must be .* to 1, the longest"
    ):
        tritone.Engine(whisper, device="cpu", config=EngineConfig(max_window=2.5))
    for seconds in (0, -2.0, float("nan")):
        with pytest.raises(ValueError, match="max_window is"):
            EngineConfig(max_window=seconds)


def test_sequential_windows_have_no_other_length(whisper):
    refusal = r"max_window 0\.5 is for windows cut at pauses; .*--windows pauses"
    with (
        tritone.Engine(whisper, device="cpu", num_rows=4) as engine,
        pytest.raises(ValueError, match=refusal),
    ):
        engine.submit(recording(1.0), max_window=0.5)


def test_a_checkpoint_may_have_a_window_of_its_own(checkpoint, tmp_path):
    folder = Path(shutil.copytree(checkpoint, tmp_path / "own"))
    audio = recording(4.0, seed=5)
    edit_json(folder / "config.json", max_window=1.5)
    with tritone.Engine(folder, device="cpu", num_rows=4) as engine:
        own = engine.submit(audio).result(SOON)
        assert engine.submit(audio, max_window=4.0).result(SOON).segments is None
        engine.model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["max_window"] == 1.5
    with tritone.Engine(checkpoint, device="cpu", num_rows=4) as engine:
        assert engine.submit(audio).result(SOON).segments is None
        assert engine.submit(audio, max_window=1.5).result(SOON) == own
    with tritone.Engine(folder, device="cpu", num_rows=4, config=EngineConfig(max_window=4.0)) as engine:
        assert engine.submit(audio).result(SOON).segments is None
    edit_json(folder / "config.json", max_window="long")
    with pytest.raises(
        ValueError, match=r"max_window of the checkpoint's config\.json is 'long'; it must be"
    ):
        tritone.Engine(folder, device="cpu")


def test_the_command_gives_the_window_to_the_engine(checkpoint, tmp_path):
    path, output = tmp_path / "long.wav", tmp_path / "out.jsonl"
    soundfile.write(path, recording(4.0, seed=5), RATE)
    given = ("--model", checkpoint, "--device", "cpu", "--output", output)
    run = tritone_invoke("transcribe", path, *given, "--max-window", "1.5")
    assert run.exit_code == 0, run.stderr
    (line,) = records(output)
    assert line["options"] == {"max_window": 1.5, "dtype": "float32"}
    assert len(line["segments"]) > 2
    refused = tritone_invoke("transcribe", path, *given[:4], "--max-window", "9")
    assert refused.exit_code == 2
    assert "max_window is 9.0; it must be a number of seconds from 0.1 to 8" in refused.stderr
