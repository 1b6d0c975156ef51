"""Whisper's feature extractor against transformers, its files, and its packed form for an engine."""

import json

import numpy as np
import pytest
import torch

from tritone.kernels.features.log_mel import Excerpt
from tritone.kernels.runtime.packing import cumulative
from tritone.models.whisper.feature_extractor import WhisperFeatureExtractor
from tritone.scheduler.inputs import ExcerptFrontEnd, pack_inputs
from tritone.scheduler.request import AudioExcerpt, Request

transformers = pytest.importorskip("transformers")

RATE = 16_000
SHORT = {"chunk_length": 1}  # second of the model's input, so that tests are fast


def recording(samples: int, seed: int = 0) -> np.ndarray:
    """Noise that swells and fades under a few tones, so that no bin is constant or empty."""
    generator = np.random.default_rng(seed)
    time = np.arange(samples) / RATE
    loudness = 0.05 * (1.1 + np.sin(2 * np.pi * (1 + seed) * time))
    tones = np.sin(2 * np.pi * 300 * time) + np.sin(2 * np.pi * 2_500 * time)
    return (loudness * (generator.standard_normal(samples) + tones)).astype(np.float32)


BATCH = [recording(9_000, 1), recording(16_000, 2), recording(4_321, 3), recording(20_007, 4)]


def assert_same_batch(ours, theirs, tolerance: float = 1e-4) -> None:
    assert list(ours) == list(theirs)
    for name in ours:
        assert len(ours[name]) == len(theirs[name])
        for row, expected in zip(ours[name], theirs[name], strict=True):
            assert row.dtype == expected.dtype
            np.testing.assert_allclose(np.asarray(row), np.asarray(expected), rtol=0, atol=tolerance)


@pytest.mark.parametrize("settings", [SHORT, SHORT | {"feature_size": 128, "hop_length": 200}], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"return_tensors": "pt"},
        {"return_tensors": "np", "return_attention_mask": True},
        {},
        {"padding": "longest", "return_tensors": "pt", "return_attention_mask": True},
        {"padding": "longest", "truncation": False, "return_tensors": "pt", "return_attention_mask": True},
        {"padding": True, "truncation": False, "pad_to_multiple_of": 1_000, "return_attention_mask": True},
        {"max_length": 12_345, "return_tensors": "pt", "return_attention_mask": True},
        {"max_length": 12_345, "pad_to_multiple_of": 160, "return_tensors": "pt"},
        {"do_normalize": True, "return_tensors": "pt"},
    ],
    ids=str,
)
def test_batches_are_those_of_transformers(settings, options):
    ours = WhisperFeatureExtractor(**settings)(BATCH, sampling_rate=RATE, **options)
    given = transformers.WhisperFeatureExtractor(**settings)(BATCH, sampling_rate=RATE, **options)
    if options.get("do_normalize"):
        given.pop("attention_mask", None)  # theirs, in samples, where none was asked for
    assert_same_batch(ours, given)


def test_thirty_seconds_are_those_of_transformers():
    audio = recording(40 * RATE)
    options = {"sampling_rate": RATE, "return_tensors": "pt"}
    ours = WhisperFeatureExtractor()(audio, **options)
    theirs = transformers.WhisperFeatureExtractor()(audio, **options)
    assert ours.input_features.shape == (1, 80, 3_000)
    assert_same_batch(ours, theirs)

    whole = options | {"truncation": False, "padding": "longest"}
    ours = WhisperFeatureExtractor()(audio, **whole)
    assert ours.input_features.shape == (1, 80, 4_000)
    assert_same_batch(ours, transformers.WhisperFeatureExtractor()(audio, **whole))


def test_recordings_without_padding_keep_their_lengths():
    features = WhisperFeatureExtractor(**SHORT)(BATCH, sampling_rate=RATE, padding=False, truncation=False)
    assert [one.shape for one in features.input_features] == [(80, len(one) // 160) for one in BATCH]
    with pytest.raises(ValueError, match=r"recordings of \[27, 56, 100, 125\] frames make no tensor"):
        WhisperFeatureExtractor()(
            BATCH, sampling_rate=RATE, padding=False, truncation=False, return_tensors="pt"
        )


def test_a_recording_in_a_batch_has_the_bits_that_it_has_alone():
    extractor = WhisperFeatureExtractor(**SHORT)
    together = extractor(BATCH, sampling_rate=RATE)["input_features"]
    for audio, own in zip(BATCH, together, strict=True):
        assert np.array_equal(extractor(audio, sampling_rate=RATE)["input_features"][0], own)


def test_dither_adds_noise_from_the_generator_of_torch():
    extractor = WhisperFeatureExtractor(**SHORT, dither=1e-3)
    torch.manual_seed(0)
    first = extractor(BATCH[2], sampling_rate=RATE)["input_features"][0]
    torch.manual_seed(0)
    assert np.array_equal(extractor(BATCH[2], sampling_rate=RATE)["input_features"][0], first)
    assert not np.array_equal(extractor(BATCH[2], sampling_rate=RATE)["input_features"][0], first)
    assert first[:, 60:].std() > 0.01  # the padding is noise too
    with pytest.raises(ValueError, match=r"dither 0.001 would make results random"):
        extractor.extract_packed(torch.zeros(1_000), cumulative([1_000]))


@pytest.mark.parametrize("settings", [{}, {"feature_size": 128, "chunk_length": 20, "dither": 0.5}], ids=str)
def test_files_go_both_ways(settings, tmp_path):
    transformers.WhisperFeatureExtractor(**settings).save_pretrained(tmp_path / "theirs")
    ours = WhisperFeatureExtractor.from_pretrained(tmp_path / "theirs")
    for name, value in settings.items():
        assert getattr(ours, name) == value
    ours.save_pretrained(tmp_path / "ours")
    back = transformers.WhisperFeatureExtractor.from_pretrained(tmp_path / "ours")
    theirs = transformers.WhisperFeatureExtractor(**settings)
    for name in (*WhisperFeatureExtractor.settings, "n_samples", "nb_max_frames", "padding_side"):
        assert getattr(back, name) == getattr(theirs, name)
    assert (ours.n_samples, ours.nb_max_frames) == (theirs.n_samples, theirs.nb_max_frames)


@pytest.mark.filterwarnings("error")
def test_a_file_of_the_first_checkpoints_with_the_mel_filters_loads(tmp_path):
    settings = {
        "chunk_length": 30,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": 80,
        "hop_length": 160,
        "mel_filters": [[0.0] * 3] * 2,
        "n_fft": 400,
        "n_samples": 480_000,
        "nb_max_frames": 3_000,
        "padding_side": "right",
        "padding_value": 0.0,
        "processor_class": "WhisperProcessor",
        "return_attention_mask": False,
        "sampling_rate": 16_000,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    assert WhisperFeatureExtractor.from_pretrained(tmp_path).nb_max_frames == 3_000


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        ("n_fft 512 is not supported, only 400", {"n_fft": 512}),
        ("padding_value 1.0 is not supported, only 0", {"padding_value": 1.0}),
        ("padding_side 'left' is not supported", {"padding_side": "left"}),
        ("sampling_rate must be a whole number from 16,000", {"sampling_rate": 8_000}),
        ("feature_size must be", {"feature_size": 0}),
        ("chunk_length must be", {"chunk_length": 0}),
    ],
)
def test_a_bad_setting_is_named(message, settings):
    with pytest.raises(ValueError, match=message):
        WhisperFeatureExtractor(**settings)


@pytest.mark.parametrize(
    ("message", "audio", "options"),
    [
        ("8000 Hz for a feature extractor of 16000 Hz", BATCH, {"sampling_rate": 8_000}),
        ("recording 0 has 0 samples", np.zeros(0), {}),
        ("recording 1 is nan at sample 7", [np.ones(500), np.r_[np.ones(7), np.nan]], {}),
        ("padding must be", BATCH, {"padding": "widest"}),
        ("return_tensors must be", BATCH, {"return_tensors": "tf"}),
        ("at least 1 sample", BATCH, {"max_length": 0}),
        ("more than 200 samples", recording(200), {"padding": False}),
    ],
)
def test_audio_and_options_that_cannot_be_used_are_explained(message, audio, options):
    with pytest.raises(ValueError, match=message):
        WhisperFeatureExtractor()(audio, **({"sampling_rate": RATE} | options))


def test_one_sample_makes_a_whole_input():
    ours = WhisperFeatureExtractor(**SHORT)(np.ones(1), sampling_rate=RATE, return_tensors="pt")
    theirs = transformers.WhisperFeatureExtractor(**SHORT)(
        np.ones(1), sampling_rate=RATE, return_tensors="pt"
    )
    assert_same_batch(ours, theirs)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 100), (16_000, 100), (16_001, 101)])
def test_frames_are_those_of_the_input_and_more_for_what_does_not_fit(samples, frames):
    assert WhisperFeatureExtractor(**SHORT).frame_count(samples) == frames


def test_an_engine_packs_recordings_and_parts_of_them(kernels_on):
    extractor = WhisperFeatureExtractor(**SHORT, feature_size=40)
    assert isinstance(extractor, ExcerptFrontEnd)
    short, long = torch.from_numpy(BATCH[2]), torch.from_numpy(BATCH[3])
    part = AudioExcerpt(long[4_000:], Excerpt(98, 100, context=800, maximum=2.0, fill=0.0))
    requests = [Request(0, short), Request(1, part), Request(2, torch.ones(7, 40))]
    features, cu_frames = pack_inputs(requests, extractor, torch.device(kernels_on), torch.float32)
    assert cu_frames.tolist() == [0, 100, 200, 207]
    alone = extractor(BATCH[2], sampling_rate=RATE, return_tensors="pt").input_features[0].T
    torch.testing.assert_close(features[:100].cpu(), alone, rtol=0, atol=2e-5)
    assert not features[198:200].any()


def test_a_recording_that_is_too_long_for_one_input_is_named():
    with pytest.raises(ValueError, match="16001 samples is longer than 1 s; cut it to windows"):
        WhisperFeatureExtractor(**SHORT).extract_packed(torch.zeros(16_001), cumulative([16_001]))
