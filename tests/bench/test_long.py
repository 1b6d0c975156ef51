"""The benchmark of long recordings: its speech, its comparison, and a run on tones."""

import numpy as np
import pytest
import soundfile

pytest.importorskip("jiwer")


@pytest.fixture
def digits(bench, tmp_path, monkeypatch):
    """Strings of tones, one pitch a digit, in place of FSDD's recordings."""
    (tmp_path / "test").mkdir()
    for digit in range(10):
        tone = 0.3 * np.sin(np.arange(2400) * (0.2 + digit / 10))
        soundfile.write(tmp_path / f"test/{digit}_sine_0.wav", tone, 8_000)
    monkeypatch.setattr(bench["joined_speech"], "FSDD", tmp_path)
    return bench["joined_speech"].digit_strings(20, seed=0)


def transcribed(bench, texts, words=(), duration=10.0):
    spans = [(word.start, word.end) for word in words]
    return bench["long"].Transcribed(texts, list(words), spans, duration, 2.0, 100, 200, 300)


def test_words_are_where_they_are_put(bench, digits, tmp_path):
    put, duration = bench["joined_speech"].write_joined(digits, tmp_path / "long.wav", seed=1)
    samples, rate = soundfile.read(tmp_path / "long.wav")
    assert len(samples) / rate == pytest.approx(duration)
    loud = np.zeros(len(samples), bool)
    for word in put:
        loud[round(word.start * rate) : round(word.end * rate)] = True
    assert np.abs(samples[~loud]).max() < 0.01
    assert np.square(samples[loud]).mean() == pytest.approx(0.01, rel=0.2)
    assert [word.text for word in put] == " ".join(one.text for one in digits).split()


def test_errors_memory_and_offsets_are_those_of_the_transcripts(bench, digits):
    word = bench["joined_speech"].Word
    put = [word("one", 1.0, 1.5), word("two", 2.0, 2.5), word("three", 3.0, 3.5)]
    sentences = [bench["joined_speech"].Sentence(np.zeros(0, np.float32), (one,)) for one in put]
    heard = [word("one", 1.1, 1.5), word("six", 2.2, 2.6), word("three", 2.9, 3.8)]
    short = transcribed(bench, ["one", "two", "three"])
    long = transcribed(bench, ["one six three"], heard)
    found = bench["long"].compare(sentences, put, short, long, str.lower)
    assert (found.wer_alone, found.wer_long) == (0.0, pytest.approx(1 / 3))
    assert (found.memory, found.memory_of_length, found.rtfx) == (2e-4, 1e-4, 5.0)
    assert found.starts == {"50%": pytest.approx(0.1), "95%": pytest.approx(0.1), "signed median": 0.0}
    assert found.ends["signed median"] == pytest.approx(0.15)
    assert found.rising
    assert "WER alone 0.00 %, long 33.33 %: +33.33 points" in list(bench["long"].report(found))


@pytest.mark.parametrize("spans", [[(1, 2), (1.5, 3)], [(1, 11)], [(2, 1)], [(-1, 1)]])
def test_times_that_overlap_or_leave_the_recording_are_told(bench, spans):
    words = [bench["joined_speech"].Word("one", *span) for span in spans]
    found = bench["long"].compare(
        [], words, transcribed(bench, ["one"]), transcribed(bench, ["one"], words), str
    )
    assert not found.rising
