"""Feature extractors of every family: bad audio, options and settings are named."""

import numpy as np
import pytest
import torch

from tritone import Speech2TextFeatureExtractor, Wav2Vec2FeatureExtractor

RATE = 16_000
BATCH = [np.random.default_rng(i).standard_normal(1_000 * (i + 1)).astype(np.float32) for i in range(3)]


@pytest.fixture(params=[Speech2TextFeatureExtractor, Wav2Vec2FeatureExtractor])
def kind(request) -> type:
    return request.param


def test_a_missing_sampling_rate_is_warned_about(kind):
    with pytest.warns(UserWarning, match="16000 Hz"):
        kind()(BATCH)


@pytest.mark.parametrize(
    ("kind", "samples", "least"),
    [(Speech2TextFeatureExtractor, 399, "a frame of 400"), (Wav2Vec2FeatureExtractor, 15, "16")],
)
def test_a_recording_that_is_too_short_is_named(kind, samples, least):
    with pytest.raises(ValueError, match=f"recording 1 has {samples} samples, less than {least}"):
        kind()([np.ones(400), np.ones(samples)], sampling_rate=RATE)


@pytest.mark.parametrize(
    ("message", "audio", "options"),
    [
        ("8000 Hz for a feature extractor of 16000 Hz", BATCH, {"sampling_rate": 8_000}),
        ("recording 1 is nan at sample 7", [np.ones(500), np.r_[np.ones(7), np.nan, np.ones(500)]], {}),
        ("recording 0 is -inf at sample 0", np.r_[-np.inf, np.ones(500)], {}),
        ("the list is empty", [], {}),
        ("recording 0 has 0 samples", np.zeros(0), {}),
        (r"shape \(2, 500\); give mono", [np.ones(500), np.ones((2, 500))], {}),
        ("recording 0 has 2 samples.*channels", np.ones((500, 2)), {}),
        (r"shape \(2, 2, 500\)", np.ones((2, 2, 500)), {}),
        (r"shape \(\)", np.array(1.0), {}),
        ("recording 0 is int16.*divided by 32768", np.ones(500, dtype=np.int16), {}),
        ("recording 0 is int64", torch.ones(500, dtype=torch.int64), {}),
        ("recording 0 is not a sequence of numbers", [["a"] * 500], {}),
        ("got str", "a.wav", {}),
        ("got NoneType", None, {}),
        ("padding must be", BATCH, {"padding": "widest"}),
        ("return_tensors must be", BATCH, {"return_tensors": "tf"}),
        ("need max_length, in (frames|samples)", BATCH, {"truncation": True}),
        ("need max_length", BATCH, {"padding": "max_length"}),
        ("at least 1 (frame|sample)", BATCH, {"max_length": 0, "truncation": True}),
        ("set padding=True", BATCH, {"return_tensors": "pt"}),
    ],
)
def test_audio_and_options_that_cannot_be_used_are_explained(kind, message, audio, options):
    with pytest.raises(ValueError, match=message):
        kind()(audio, **({"sampling_rate": RATE} | options))


@pytest.mark.parametrize("kind", [Speech2TextFeatureExtractor, Wav2Vec2FeatureExtractor])
def test_packed_integers_are_refused(kind):
    with pytest.raises(ValueError, match="int16"):
        kind().extract_packed(torch.zeros(500, dtype=torch.int16), torch.tensor([0, 500], dtype=torch.int32))


@pytest.mark.parametrize(
    ("kind", "error", "message", "settings"),
    [
        (Speech2TextFeatureExtractor, ValueError, "dither 4.0 is not supported", {"dither": 4.0}),
        (Speech2TextFeatureExtractor, ValueError, "padding_side 'left'", {"padding_side": "left"}),
        (
            Speech2TextFeatureExtractor,
            ValueError,
            "Wav2Vec2FeatureExtractor",
            {"feature_extractor_type": "Wav2Vec2FeatureExtractor"},
        ),
        (Speech2TextFeatureExtractor, ValueError, "sampling_rate must be", {"sampling_rate": 4_000}),
        (Speech2TextFeatureExtractor, ValueError, "num_mel_bins", {"num_mel_bins": 0}),
        (Speech2TextFeatureExtractor, TypeError, "no setting 'normalize_mean'", {"normalize_mean": False}),
        (Wav2Vec2FeatureExtractor, ValueError, "feature_size 80", {"feature_size": 80}),
        (Wav2Vec2FeatureExtractor, ValueError, "padding_side 'left'", {"padding_side": "left"}),
        (Wav2Vec2FeatureExtractor, ValueError, "sampling_rate must be", {"sampling_rate": 0}),
        (
            Wav2Vec2FeatureExtractor,
            ValueError,
            "Speech2Text",
            {"feature_extractor_type": "Speech2TextFeatureExtractor"},
        ),
        (Wav2Vec2FeatureExtractor, TypeError, "no setting 'normalize'", {"normalize": False}),
    ],
)
def test_a_setting_that_is_not_supported_is_named(kind, error, message, settings):
    with pytest.raises(error, match=message):
        kind(**settings)
