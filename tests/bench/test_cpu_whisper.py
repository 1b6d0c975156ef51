"""Whisper's part of the CPU's benchmark: a smoke run, its recordings, and rows of engines that cannot run."""

import json

import numpy as np
import pytest
from cpu_bench import smoke

pytest.importorskip("transformers")


@pytest.mark.slow
def test_whisper_is_timed_beside_transformers_in_processes_of_their_own(tmp_path):
    file = tmp_path / "whisper.json"
    printed = smoke("whisper", "--tasks", "files", "--json", str(file))
    found = json.loads(file.read_text())["results"]["files, 1 beams"]
    peers = ["transformers, float32", "faster-whisper, float32", "faster-whisper, int8"]
    assert list(found) == ["tritone, float32", *peers]
    ours, theirs = found["tritone, float32"], found["transformers, float32"]
    assert ours["texts"] == theirs["texts"]
    assert f"tritone, float32 is {ours['rtfx'] / theirs['rtfx']:.2f} times transformers, float32" in printed
    assert set(theirs["tried"]) == {"batch 1", "batch 4", "batch 8"}
    assert found["faster-whisper, int8"] == {"not_run": "no checkpoint in its format"}


def test_recordings_have_even_lengths_and_the_texts_of_their_samples(bench):
    audio = bench["whisper_audio"]
    recordings = audio.short_recordings(1, 30, 6)
    assert sorted(one.seconds for one in recordings) == pytest.approx(np.linspace(1, 30, 6), abs=1e-3)
    texts = [one.text for one in audio.samples("english") + audio.samples("digits")]
    assert all(any(text in one.text for text in texts) or audio.JFK_TEXT in one.text for one in recordings)
    assert all(np.isfinite(one.waveform).all() for one in recordings)


def test_a_recording_shorter_than_all_samples_is_refused(bench):
    with pytest.raises(ValueError, match="no sample is as short as"):
        bench["whisper_audio"].short_recordings(0.1, 0.2, 2)


def test_an_engine_that_fails_has_its_error_in_its_row(bench):
    whisper = bench["whisper"]

    class Broken:
        def ask(self, *request):
            raise whisper.ContestantError("ModuleNotFoundError: No module named 'faster_whisper'")

    spoken = bench["whisper_audio"].Spoken(np.zeros(16_000, np.float32), "one")
    (row,) = whisper.compete({"faster-whisper, int8": Broken()}, "files", 1, [spoken], 2)
    assert row.result(1.0, ["one"]) == {"not_run": "not installed: pip install 'tritone[peers]'"}


def test_word_errors_are_counted_in_normalized_texts(bench):
    pytest.importorskip("jiwer")
    rate = bench["whisper"].word_error_rate
    assert rate(["Mr. Smith isn't here."], [" mister smith is not here"]) == 0
    assert rate(["one two three four"], ["one two three"]) == pytest.approx(1)  # "1234" and "123"
    assert rate([""], ["anything"]) is None
