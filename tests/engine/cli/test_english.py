"""The English model of the extra on its samples, through the command: right text, and words with times."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import records, tritone_invoke
from word_errors import word_errors

from tritone.engine.builtin_models import ENGLISH

SAMPLES = Path(__file__).parents[3] / "samples" / "english"
SPOKEN = json.loads((SAMPLES / "transcripts.json").read_text())
SHORT = ["bakery_16k.wav", "weather_22k.flac", "library_8k.wav", "garden_44k.mp3"]
PAUSE, LONG = "pause_of_40_seconds.opus", "three_minutes.m4a"

pytestmark = pytest.mark.skipif(ENGLISH.find() is None, reason=f"needs the extra: {ENGLISH.remedy}")


def transcribed(output: Path, *names: str, model: tuple[str, ...] = ("--model", "english")) -> list[Any]:
    """Objects of the JSON lines for samples, in float32 on the CPU."""
    paths = [SAMPLES / name for name in names]
    run = tritone_invoke("transcribe", *paths, *model, "--device", "cpu", "--output", output)
    assert run.exit_code == 0, run.stderr
    if not model:
        assert run.stderr.startswith(
            "tritone: no --model given: using the English model, Whisper tiny.en (OpenAI's weights, MIT "
            "license), since the extra 'english' is installed\n"
        )
    return records(output)


def test_every_sample_is_here_and_has_its_words():
    assert set(SPOKEN) == {*SHORT, PAUSE, LONG}
    assert all((SAMPLES / name).is_file() for name in SPOKEN)


def test_sentences_are_transcribed_without_an_error_with_no_option_at_all(tmp_path):
    lines = transcribed(tmp_path / "out.jsonl", *SHORT, model=())
    for name, line in zip(SHORT, lines, strict=True):
        assert word_errors(SPOKEN[name], line["text"])[0] == 0, line["text"]
        assert (line["model"], line["finish_reason"]) == ("english", "stop")


@pytest.mark.slow
def test_a_pause_longer_than_a_window_hides_no_sentence_and_a_long_story_has_few_errors(tmp_path):
    pause, story = transcribed(tmp_path / "out.jsonl", PAUSE, LONG)
    assert word_errors(SPOKEN[PAUSE], pause["text"])[0] == 0, pause["text"]
    errors, words = word_errors(SPOKEN[LONG], story["text"])
    assert errors <= 0.05 * words, story["text"]  # the synthesizer's accent; 14 of 464, as in transformers


def test_words_have_times_that_rise_within_the_recording(tmp_path):
    for line in transcribed(tmp_path / "out.jsonl", SHORT[0], PAUSE):
        assert "".join(word["word"] for word in line["words"]) == line["text"].replace(" ", "")
        times = [time for word in line["words"] for time in (word["start"], word["end"])]
        assert times == sorted(times)
        assert 0 <= times[0] < times[-1] <= line["duration"] + 0.02
    starts = {word["word"]: word["start"] for word in line["words"]}
    assert starts["My"] > 40.0  # the second sentence, behind the pause
