"""Feature extractor and processor of waveform models against transformers, and the bits of a batch."""

import json
import warnings
from pathlib import Path

import factories
import numpy as np
import pytest
import torch

from tritone import AutoFeatureExtractor, AutoProcessor, AutoTokenizer
from tritone.kernels.runtime.packing import cumulative
from tritone.models.mbart.tokenizer import LANGUAGES_50, MBart50Tokenizer
from tritone.models.processors.processor import SpeechProcessor
from tritone.models.wav2vec2.feature_extractor import Wav2Vec2FeatureExtractor
from tritone.models.wav2vec2.processor import Wav2Vec2Processor
from tritone.models.wav2vec2.tokenizer import Wav2Vec2CTCTokenizer

transformers = pytest.importorskip("transformers")

RATE = 16_000
SETTINGS = {
    "padding_value": -1.5,
    "return_attention_mask": True,
    "do_normalize": False,
    "sampling_rate": 8_000,
}


def recording(samples: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (0.05 * generator.standard_normal(samples) + 0.01 * (seed + 1)).astype(np.float32)


BATCH = [recording(900, 1), recording(1_600, 2), recording(433, 3)]


@pytest.fixture
def vocabulary(tmp_path) -> Path:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({letter: i for i, letter in enumerate(factories.LETTERS)}), encoding="utf-8")
    return path


@pytest.fixture
def processor(vocabulary) -> Wav2Vec2Processor:
    return Wav2Vec2Processor(
        Wav2Vec2FeatureExtractor(padding_value=0.5), Wav2Vec2CTCTokenizer(vocabulary, do_lower_case=True)
    )


def theirs_of(processor: Wav2Vec2Processor, vocabulary: Path):
    return transformers.Wav2Vec2Processor(
        transformers.Wav2Vec2FeatureExtractor(padding_value=0.5),
        transformers.Wav2Vec2CTCTokenizer(str(vocabulary), do_lower_case=True),
    )


@pytest.mark.parametrize("settings", [{}, {"padding_value": -3.5}, {"do_normalize": False}], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"padding": True, "return_tensors": "pt"},
        {"padding": "longest", "return_tensors": "np", "pad_to_multiple_of": 128},
        {"padding": "max_length", "max_length": 1_700, "return_tensors": "pt"},
        {"padding": "max_length", "max_length": 700, "truncation": True, "return_tensors": "pt"},
        {"padding": True, "max_length": 500, "truncation": True, "pad_to_multiple_of": 64},
        {"padding": "do_not_pad"},
        {"max_length": 600, "truncation": True},
    ],
    ids=str,
)
def test_a_batch_has_the_numbers_of_transformers_with_its_mask(settings, options):
    ours = Wav2Vec2FeatureExtractor(**settings, return_attention_mask=True)
    theirs = transformers.Wav2Vec2FeatureExtractor(**settings, return_attention_mask=True)
    batch, expected = ours(BATCH, sampling_rate=RATE, **options), theirs(BATCH, sampling_rate=RATE, **options)
    assert list(batch) == list(expected)
    for name in batch:
        for row, wanted in zip(batch[name], expected[name], strict=True):
            assert row.dtype == wanted.dtype
            np.testing.assert_allclose(np.asarray(row), np.asarray(wanted), rtol=1e-5, atol=1e-5)


def test_a_padded_batch_has_a_mask_even_where_transformers_has_none():
    ours, theirs = Wav2Vec2FeatureExtractor(), transformers.Wav2Vec2FeatureExtractor()
    options = {"sampling_rate": RATE, "return_tensors": "pt"}
    assert list(theirs(BATCH, padding=True, **options)) == ["input_values"]
    batch = ours(BATCH, padding=True, **options)
    assert batch.attention_mask.sum(1).tolist() == [900, 1_600, 433]
    assert list(ours(BATCH, padding=True, return_attention_mask=False, **options)) == ["input_values"]
    assert list(ours(BATCH[0], **options)) == list(theirs(BATCH[0], **options)) == ["input_values"]
    assert list(ours(BATCH[0], return_attention_mask=True, **options)) == ["input_values", "attention_mask"]


@pytest.mark.parametrize("normalize", [True, False])
def test_a_row_of_a_batch_has_the_bits_of_the_recording_alone(normalize):
    extractor = Wav2Vec2FeatureExtractor(do_normalize=normalize)
    recordings = [recording(400 + 211 * i, i) for i in range(8)]
    batch = extractor(recordings, sampling_rate=RATE, padding=True, return_tensors="pt")
    packed, cu_samples = extractor.extract_packed(
        torch.from_numpy(np.concatenate(recordings)), cumulative([len(one) for one in recordings])
    )
    assert packed.shape == (sum(map(len, recordings)), 1)
    for i, one in enumerate(recordings):
        alone = extractor(one, sampling_rate=RATE, return_tensors="pt").input_values[0]
        assert torch.equal(batch.input_values[i, : len(one)], alone)
        assert torch.equal(packed[cu_samples[i] : cu_samples[i + 1], 0], alone)
        assert extractor.frame_count(len(one)) == len(one)


def test_silence_stays_silent():
    extractor = Wav2Vec2FeatureExtractor()
    batch = extractor(
        [np.zeros(500), np.full(300, 0.3)], sampling_rate=RATE, padding=True, return_tensors="pt"
    )
    assert torch.equal(batch.input_values, torch.zeros(2, 500))


def test_settings_go_from_either_to_the_other(tmp_path):
    ours = Wav2Vec2FeatureExtractor(**SETTINGS)
    ours.save_pretrained(tmp_path / "ours")
    transformers.Wav2Vec2FeatureExtractor(**SETTINGS).save_pretrained(tmp_path / "theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = [
            transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "ours"),
            AutoFeatureExtractor.from_pretrained(tmp_path / "ours"),
            Wav2Vec2FeatureExtractor.from_pretrained(tmp_path / "theirs"),
            Wav2Vec2FeatureExtractor.from_pretrained(tmp_path / "theirs" / "preprocessor_config.json"),
        ]
    for one in loaded:
        assert type(one).__name__ == "Wav2Vec2FeatureExtractor"
        assert {name: getattr(one, name) for name in SETTINGS} == SETTINGS
    file = tmp_path / "theirs" / "preprocessor_config.json"
    assert Wav2Vec2FeatureExtractor.from_pretrained(file, padding_value=2.0).padding_value == 2.0


def test_files_go_from_either_processor_to_the_other(tmp_path, processor, vocabulary):
    processor.save_pretrained(tmp_path / "ours")
    theirs_of(processor, vocabulary).save_pretrained(tmp_path / "theirs")
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        (folder / "config.json").write_text('{"model_type": "wav2vec2"}', encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ours = Wav2Vec2Processor.from_pretrained(folder)
            assert isinstance(AutoProcessor.from_pretrained(folder), Wav2Vec2Processor)
            assert isinstance(AutoTokenizer.from_pretrained(folder), Wav2Vec2CTCTokenizer)
        for kind in (transformers.Wav2Vec2Processor, transformers.AutoProcessor):
            theirs = kind.from_pretrained(folder)
            assert isinstance(theirs, transformers.Wav2Vec2Processor)
            assert ours.feature_extractor.padding_value == theirs.feature_extractor.padding_value == 0.5
            ids = theirs(text="hello world").input_ids
            assert ours(text="hello world").input_ids == ids
            assert ours.decode(ids) == theirs.decode(ids) == "helo world"


def test_a_processor_of_differing_families_takes_what_the_files_name(tmp_path, processor):
    processor.save_pretrained(tmp_path)
    loaded = SpeechProcessor.from_pretrained(tmp_path, padding_value=3.0, do_lower_case=False)
    assert isinstance(loaded.feature_extractor, Wav2Vec2FeatureExtractor)
    assert isinstance(loaded.tokenizer, Wav2Vec2CTCTokenizer)
    assert loaded.feature_extractor.padding_value == 3.0
    assert loaded.tokenizer.do_lower_case is False


def test_a_waveform_encoder_with_a_text_decoders_tokenizer_goes_to_transformers_and_back(tmp_path):
    pieces = [*((token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")), ("▁", -2.0), ("▁one", -3.0)]
    vocab = [*pieces, *((code, 0.0) for code in LANGUAGES_50), ("<mask>", 0.0)]
    tokenizer = MBart50Tokenizer(vocab, tgt_lang="de_DE")
    written = SpeechProcessor(Wav2Vec2FeatureExtractor(return_attention_mask=True), tokenizer)
    written.save_pretrained(tmp_path)
    fields = {"model_type": "speech-encoder-decoder", "encoder": {"model_type": "wav2vec2"}}
    fields["decoder"] = {"model_type": "mbart"}
    (tmp_path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    theirs = transformers.AutoProcessor.from_pretrained(tmp_path)
    for ours in (AutoProcessor.from_pretrained(tmp_path), SpeechProcessor.from_pretrained(tmp_path)):
        assert type(ours.tokenizer).__name__ == type(theirs.tokenizer).__name__ == "MBart50Tokenizer"
        assert type(ours.feature_extractor).__name__ == type(theirs.feature_extractor).__name__
        ids = theirs(text="one one", return_tensors="pt").input_ids
        assert torch.equal(ours(text="one one", return_tensors="pt").input_ids, ids)
        assert ours.batch_decode(ids) == theirs.batch_decode(ids)
        assert ours.tokenizer.lang_code_to_id["de_DE"] == theirs.tokenizer.lang_code_to_id["de_DE"]


def test_a_processor_takes_audio_text_or_both(processor, vocabulary):
    theirs = theirs_of(processor, vocabulary)
    texts = ["one", "two three four", "five"]
    options = {"sampling_rate": RATE, "padding": True, "return_tensors": "pt"}
    both, expected = processor(BATCH, text=texts, **options), theirs(BATCH, text=texts, **options)
    assert list(both) == ["input_values", "attention_mask", "labels"]
    assert torch.equal(both.labels, expected.labels)
    assert processor.batch_decode(both.labels, group_tokens=False) == texts
    with pytest.raises(ValueError, match="audio, text or both"):
        processor(sampling_rate=RATE)
    with processor.as_target_processor():
        assert processor(texts) == processor.tokenizer(texts)


def test_rows_made_one_by_one_are_padded_as_in_transformers(processor, vocabulary):
    theirs = theirs_of(processor, vocabulary)
    theirs.feature_extractor.return_attention_mask = True
    texts = ["one", "two three four", "five"]
    for options in ({}, {"pad_to_multiple_of": 64}, {"padding": "max_length", "max_length": 1_700}):
        batches = []
        for one in (processor, theirs):
            features = [{"input_values": one(row, sampling_rate=RATE).input_values[0]} for row in BATCH]
            labels = [{"input_ids": one(text=text).input_ids} for text in texts]
            options = options | {"return_tensors": "pt"}
            both = one.pad(features, labels=labels, **options)
            batches.append([one.pad(features, **options), one.pad(labels=labels, **options), both])
        for batch, expected in zip(*batches, strict=True):
            assert batch.keys() == expected.keys()
            for name in batch:
                torch.testing.assert_close(batch[name], expected[name], rtol=1e-5, atol=1e-5)
    columns = {"input_values": [recording(50), recording(20)]}
    assert processor.pad(columns).attention_mask[1].sum() == 20
    assert list(processor.pad(labels={"input_ids": torch.tensor([[5, 6]])})) == [
        "input_ids",
        "attention_mask",
    ]
    with pytest.raises(ValueError, match="list of input_values"):
        processor.pad([{"input_features": [1.0]}])
    with pytest.raises(ValueError, match="input_features, labels or both"):
        processor.pad()
