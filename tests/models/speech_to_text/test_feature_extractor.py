"""Feature extractor and processor of Speech2Text against transformers, and the bits of a batch."""

import json
import warnings
from pathlib import Path

import factories
import numpy as np
import pytest
import torch

from tritone.models.core.batches import BatchFeature
from tritone.models.speech_to_text.feature_extractor import (
    Speech2TextFeatureExtractor,
)
from tritone.models.speech_to_text.processor import Speech2TextProcessor
from tritone.models.speech_to_text.tokenizer import Speech2TextTokenizer

transformers = pytest.importorskip("transformers")

RATE = 16_000


def recording(samples: int, seed: int = 0) -> np.ndarray:
    """Noise that swells and fades under a few tones, so that no bin is constant or empty."""
    generator = np.random.default_rng(seed)
    time = np.arange(samples) / RATE
    loudness = 0.05 * (1.1 + np.sin(2 * np.pi * (1 + seed) * time))
    tones = np.sin(2 * np.pi * 300 * time) + np.sin(2 * np.pi * 2_500 * time)
    return (loudness * (generator.standard_normal(samples) + tones)).astype(np.float32)


BATCH = [recording(9_000, 1), recording(16_000, 2), recording(4_321, 3)]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Path:
    """A folder with vocab.json and sentencepiece.bpe.model."""
    folder = tmp_path_factory.mktemp("vocabulary")
    factories.write_vocabulary(folder, [])
    return folder


@pytest.fixture
def processor(vocabulary) -> Speech2TextProcessor:
    return Speech2TextProcessor(
        Speech2TextFeatureExtractor(padding_value=0.5), Speech2TextTokenizer.from_pretrained(vocabulary)
    )


def assert_same_batch(ours, theirs) -> None:
    assert list(ours) == list(theirs)
    for name in ours:
        assert len(ours[name]) == len(theirs[name])
        for row, expected in zip(ours[name], theirs[name], strict=True):
            assert row.dtype == expected.dtype
            # The quietest cells lie 95 dB below the peak of their frame, where float32 leaves three digits.
            np.testing.assert_allclose(np.asarray(row), np.asarray(expected), rtol=0, atol=1e-3)


@pytest.mark.parametrize("settings", [{}, {"padding_value": -3.5}, {"num_mel_bins": 40}], ids=str)
@pytest.mark.parametrize(
    "normalize",
    [
        {},
        {"do_ceptral_normalize": False},
        {"normalize_means": False},
        {"normalize_vars": False},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "options",
    [
        {"padding": True, "return_tensors": "pt"},
        {"padding": "longest", "return_tensors": "np", "pad_to_multiple_of": 16},
        {"padding": "max_length", "max_length": 120, "return_tensors": "pt"},
        {"padding": "max_length", "max_length": 30, "truncation": True, "return_tensors": "pt"},
        {"padding": True, "max_length": 50, "truncation": True, "pad_to_multiple_of": 32},
        {"padding": True, "max_length": 300, "truncation": True},
        {"padding": "do_not_pad"},
        {"max_length": 30, "truncation": True},
    ],
    ids=str,
)
def test_a_batch_has_the_numbers_of_transformers(settings, normalize, options):
    ours = Speech2TextFeatureExtractor(**settings, **normalize)
    theirs = transformers.Speech2TextFeatureExtractor(**settings, **normalize)
    assert_same_batch(
        ours(BATCH, sampling_rate=RATE, **options), theirs(BATCH, sampling_rate=RATE, **options)
    )


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        lambda x: x.tolist(),
        lambda x: tuple(x.tolist()),
        lambda x: list(x),
        lambda x: x.astype(np.float64),
        lambda x: torch.from_numpy(x),
        lambda x: torch.from_numpy(x).double().requires_grad_(),
        lambda x: x[None],
        lambda x: [x],
        lambda x: [x.tolist()],
        lambda x: [torch.from_numpy(x)],
        lambda x: torch.from_numpy(x)[None],
    ],
)
def test_every_form_of_a_recording_gives_the_same_bits(form):
    extractor, waveform = Speech2TextFeatureExtractor(), recording(5_000)
    expected = extractor([waveform], sampling_rate=RATE, return_tensors="pt").input_features
    assert torch.equal(
        extractor(form(waveform), sampling_rate=RATE, return_tensors="pt").input_features, expected
    )


def test_an_utterance_has_the_same_bits_alone_in_a_batch_and_packed():
    extractor = Speech2TextFeatureExtractor()
    cu_samples = torch.tensor([0, *map(len, BATCH)]).cumsum(0).to(torch.int32)
    features, cu_frames = extractor.extract_packed(torch.from_numpy(np.concatenate(BATCH)), cu_samples)
    batch = extractor(BATCH, sampling_rate=RATE, padding=True, return_tensors="pt")
    for i, waveform in enumerate(BATCH):
        alone = extractor(waveform, sampling_rate=RATE, return_tensors="pt").input_features[0]
        assert torch.equal(features[cu_frames[i] : cu_frames[i + 1]], alone)
        assert torch.equal(batch.input_features[i][batch.attention_mask[i].bool()], alone)


def test_packed_waveforms_too_short_for_a_frame_have_none():
    extractor = Speech2TextFeatureExtractor()
    cu_samples = torch.tensor([0, 399, 399, 1_399], dtype=torch.int32)
    features, cu_frames = extractor.extract_packed(torch.from_numpy(recording(1_399)), cu_samples)
    assert cu_frames.tolist() == [0, 0, 0, 4]
    assert features.shape == (4, 80)


def test_rows_longer_than_max_length_stay_whole_without_truncation():
    batch = Speech2TextFeatureExtractor()(BATCH, "max_length", max_length=60, sampling_rate=RATE)
    assert [len(row) for row in batch.input_features] == [60, 98, 60]
    assert [int(mask.sum()) for mask in batch.attention_mask] == [54, 98, 25]


def test_silence_and_a_single_frame_are_finite():
    extractor = Speech2TextFeatureExtractor()
    batch = extractor(
        [np.zeros(3_000), recording(400)], sampling_rate=RATE, padding=True, return_tensors="pt"
    )
    assert torch.equal(batch.input_features, torch.zeros_like(batch.input_features))


def test_another_rate_has_its_own_frames():
    batch = Speech2TextFeatureExtractor(sampling_rate=8_000)(
        recording(8_000), sampling_rate=8_000, return_tensors="np"
    )
    assert batch.input_features.shape == (1, 98, 80)


def test_the_mask_is_left_out_on_request():
    batch = Speech2TextFeatureExtractor()(
        BATCH, sampling_rate=RATE, padding=True, return_attention_mask=False
    )
    assert list(batch) == ["input_features"]


SETTINGS = {"num_mel_bins": 64, "feature_size": 64, "padding_value": 1.5, "normalize_vars": False}


def assert_same_settings(ours, theirs) -> None:
    for name in (*SETTINGS, "sampling_rate", "do_ceptral_normalize", "normalize_means"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_settings_go_from_either_to_the_other(tmp_path):
    ours = Speech2TextFeatureExtractor(**SETTINGS)
    ours.save_pretrained(tmp_path / "ours")
    assert_same_settings(transformers.Speech2TextFeatureExtractor.from_pretrained(tmp_path / "ours"), ours)
    assert_same_settings(transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "ours"), ours)
    transformers.Speech2TextFeatureExtractor(**SETTINGS).save_pretrained(tmp_path / "theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same_settings(Speech2TextFeatureExtractor.from_pretrained(tmp_path / "theirs"), ours)
    file = tmp_path / "theirs" / "preprocessor_config.json"
    assert_same_settings(Speech2TextFeatureExtractor.from_pretrained(file), ours)
    assert Speech2TextFeatureExtractor.from_pretrained(file, num_mel_bins=32).num_mel_bins == 32


def test_a_file_with_dither_is_refused_and_one_with_an_unknown_setting_warned_about(tmp_path):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"dither": 1.0}), encoding="utf-8")
    with pytest.raises(ValueError, match="dither"):
        Speech2TextFeatureExtractor.from_pretrained(tmp_path)
    path.write_text(json.dumps({"spice": 1.0}), encoding="utf-8")
    with pytest.warns(UserWarning, match="spice"):
        Speech2TextFeatureExtractor.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Speech2TextFeatureExtractor.from_pretrained(tmp_path / "nowhere")


def test_a_processor_loads_what_transformers_saved(tmp_path, vocabulary):
    theirs = transformers.Speech2TextProcessor(
        transformers.Speech2TextFeatureExtractor(**SETTINGS),
        transformers.Speech2TextTokenizer(
            str(vocabulary / "vocab.json"), str(vocabulary / "sentencepiece.bpe.model"), do_upper_case=True
        ),
    )
    theirs.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = Speech2TextProcessor.from_pretrained(tmp_path)
    assert_same_settings(ours.feature_extractor, theirs.feature_extractor)
    ids = ours(text="one two").input_ids
    assert ids == theirs(text="one two").input_ids
    assert ours.decode(ids) == theirs.decode(ids) == "ONE TWO</s>"


@pytest.mark.parametrize("over_files_of_transformers", [False, True])
def test_transformers_loads_what_a_processor_saved(tmp_path, processor, over_files_of_transformers):
    if over_files_of_transformers:
        transformers.Speech2TextProcessor(
            transformers.Speech2TextFeatureExtractor(padding_value=9.0),
            transformers.Speech2TextTokenizer(*map(str, processor.tokenizer.save_vocabulary(tmp_path))),
        ).save_pretrained(tmp_path)
    paths = processor.save_pretrained(tmp_path)
    assert all(Path(path).is_file() for path in paths)
    (tmp_path / "config.json").write_text('{"model_type": "speech_to_text"}', encoding="utf-8")
    for kind in (transformers.Speech2TextProcessor, transformers.AutoProcessor):
        theirs = kind.from_pretrained(tmp_path)
        assert isinstance(theirs, transformers.Speech2TextProcessor)
        assert theirs.feature_extractor.padding_value == 0.5
        assert theirs(text="one two").input_ids == processor(text="one two").input_ids
    assert Speech2TextProcessor.from_pretrained(tmp_path).feature_extractor.padding_value == 0.5


def test_a_processor_takes_audio_text_or_both(processor):
    features = processor(BATCH[0], sampling_rate=RATE, return_tensors="pt")
    assert list(features) == ["input_features", "attention_mask"]
    assert torch.equal(
        processor(audio=BATCH[0], sampling_rate=RATE, return_tensors="pt").input_features,
        features.input_features,
    )
    assert processor(text="one").input_ids == processor.tokenizer("one").input_ids
    texts = ["one", "two three four", "five"]
    both = processor(BATCH, sampling_rate=RATE, text=texts, padding=True, return_tensors="pt")
    assert list(both) == ["input_features", "attention_mask", "labels"]
    assert torch.equal(both.labels, processor.tokenizer(texts, padding=True, return_tensors="pt").input_ids)
    with pytest.raises(ValueError, match="audio, text or both"):
        processor(sampling_rate=RATE)


def test_within_its_target_context_a_processor_is_the_tokenizer(processor):
    with processor.as_target_processor():
        assert processor(["one", "two"], padding=True) == processor.tokenizer(["one", "two"], padding=True)
        assert processor(text="one") == processor.tokenizer("one")
    with pytest.raises(RuntimeError), processor.as_target_processor():
        raise RuntimeError
    assert "input_features" in processor(BATCH, sampling_rate=RATE)


def test_a_processor_decodes_with_its_tokenizer(processor):
    ids = processor.tokenizer(["one two", "three"], padding=True, return_tensors="pt").input_ids
    assert processor.batch_decode(ids, skip_special_tokens=True) == ["one two", "three"]
    assert processor.decode(ids[1], skip_special_tokens=True) == "three"


def test_a_batch_is_a_dict_with_attributes_that_moves_to_devices_and_dtypes():
    batch = BatchFeature(input_features=torch.ones(2), attention_mask=torch.ones(2, dtype=torch.int32))
    assert {**batch}.keys() == {"input_features", "attention_mask"}
    assert batch.to("cpu", torch.float16).input_features.dtype == torch.float16
    assert batch.to(torch.float64).input_features.dtype == torch.float64
    assert batch.attention_mask.dtype == torch.int32
    assert batch.to("meta").attention_mask.device.type == "meta"
    with pytest.raises(AttributeError, match="no 'labels'; it has: input_features"):
        _ = batch.labels
