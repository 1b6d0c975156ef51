"""Downmix: the mean of the channels, and the louder one where they cancel each other."""

import io
import itertools

import numpy as np
import pytest
import soundfile
import torch

from tritone.engine.audio import libsndfile
from tritone.engine.audio.reader import audio_blocks, load_audio

RATE = 16_000
SAMPLES = [
    "samples/digits/six_digits_16k.flac",
    "samples/digits/two_digits_16k.wav",
    "samples/digits/three_digits_22k.flac",
]


def speech(number: int = 0) -> np.ndarray:
    return load_audio(SAMPLES[number], RATE).samples


def channels(*columns: np.ndarray) -> np.ndarray:
    size = min(map(len, columns))
    return np.stack([column[:size] for column in columns], axis=1).astype(np.float32)


@pytest.mark.parametrize("share", [1.0, 0.9, 0.5])
@pytest.mark.parametrize("louder", [0, 1])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_of_two_channels_that_cancel_each_other_the_louder_is_taken(share, louder, convert):
    x = speech()
    columns = [x, -share * x] if louder == 0 or share == 1 else [-share * x, x]
    audio = load_audio(convert(channels(*columns)), RATE)
    assert np.array_equal(audio.samples, x)
    assert f"channel {0 if share == 1 else louder} (counted from 0), the louder one" in audio.warnings[0]


@pytest.mark.parametrize("offsets", [(0.3, 0.0), (-0.2, 0.4)])
def test_a_constant_offset_hides_nothing(offsets):
    x = speech()
    audio = load_audio(channels(x + offsets[0], -x + offsets[1]), RATE)
    assert np.abs(audio.samples - audio.samples.mean()).max() > 0.9 * np.abs(x - x.mean()).max()
    assert len(audio.warnings) == 1


def test_noise_of_each_channel_hides_nothing():
    x, random = speech(), np.random.default_rng(0)
    noise = 0.2 * x.std() * random.standard_normal((2, len(x)))
    audio = load_audio(channels(x + noise[0], -x + noise[1]), RATE)
    assert np.corrcoef(np.abs(audio.samples), np.abs(x))[0, 1] > 0.9


def test_a_stretch_of_opposite_polarity_is_heard_and_the_rest_is_the_mean():
    x = np.tile(speech(), 2)
    other = x.copy()
    start, stop = RATE, 2 * RATE
    other[start:stop] *= -1
    audio = load_audio(channels(x, other), RATE)
    assert np.abs(audio.samples - x).max() < 1e-6
    assert "cancel each other in 1.0 of" in audio.warnings[0]


def test_of_several_channels_those_that_cancel_none_stay():
    x, y = speech(0), speech(1)
    audio = load_audio(channels(x, -x, y, y), RATE)
    size = len(audio.samples)
    assert np.allclose(audio.samples, (x[:size] + 2 * y[:size]) / 3, atol=1e-6)
    assert "channel 1 (counted from 0) was left out" in audio.warnings[0]
    assert np.array_equal(load_audio(channels(x, -x / 2, -x / 2), RATE).samples, x)


@pytest.mark.parametrize("count", [2, 3, 4, 6, 9])
def test_channels_that_do_not_cancel_are_averaged_to_the_bit(count):
    x, random = speech(), np.random.default_rng(0)
    silence = np.zeros_like(x)
    noise = [random.standard_normal(len(x)) / 10 for _ in range(count)]
    for columns in ([x] * count, [x] + [silence] * (count - 1), noise):
        given = channels(*columns)
        audio = load_audio(given, RATE)
        assert audio.warnings == ()
        assert np.allclose(audio.samples, given.mean(axis=1, dtype=np.float32), rtol=0, atol=1e-7)
        if count < 8:
            assert np.array_equal(audio.samples, given.mean(axis=1, dtype=np.float32))


def test_two_speakers_do_not_cancel_each_other():
    for first, second in itertools.permutations(range(len(SAMPLES)), 2):
        for delay in range(0, 4000, 500):
            assert load_audio(channels(speech(first), speech(second)[delay:]), RATE).warnings == ()


def test_the_result_does_not_depend_on_blocks_nor_on_the_source(monkeypatch):
    x = np.tile(speech(), 4)
    given = channels(x, -x)
    given[70_000:90_000, 1] *= -1
    file = io.BytesIO()
    soundfile.write(file, given, 44_100, format="WAV", subtype="FLOAT")
    wanted = load_audio(given, RATE, source_rate=44_100)
    for size in (1 << 16, 1 << 12, 1554, 1 << 20):
        monkeypatch.setattr(libsndfile, "BLOCK", size)
        blocks = audio_blocks(file.getvalue(), RATE)
        assert np.array_equal(np.concatenate(list(blocks)), wanted.samples)
        assert tuple(blocks.warnings) == wanted.warnings


def test_a_channel_that_is_asked_for_is_taken_as_it_is():
    x = speech()
    audio = load_audio(channels(x, -x), RATE, channel=1)
    assert np.array_equal(audio.samples, -x)
    assert audio.warnings == ()
