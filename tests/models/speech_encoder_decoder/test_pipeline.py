"""From a recording to text with an encoder and a decoder of different families: processor and engine."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from encoder_decoders import BERT, WAVE, join
from factories import WORDS

import tritone
from tritone.models.bert.tokenizer import BertTokenizer
from tritone.models.processors.processor import SpeechProcessor
from tritone.models.speech_encoder_decoder.model import SpeechEncoderDecoderModel
from tritone.models.speech_to_text.feature_extractor import Speech2TextFeatureExtractor
from tritone.models.wav2vec2.feature_extractor import Wav2Vec2FeatureExtractor
from tritone.models.wav2vec2.processor import Wav2Vec2Processor

RATE = 16_000
NAMED = ("processor_class", "tokenizer_class", "feature_extractor_type")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wav2vec 2.0 encoder with a BERT decoder, and what they need, as a repository has it."""
    folder = tmp_path_factory.mktemp("wav2vec2-2-bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    torch.manual_seed(5)
    sizes = {"conv_dim": (8, 8), "conv_stride": (16, 20), "conv_kernel": (20, 20)}
    config = join(
        tritone.Wav2Vec2Config(**WAVE | sizes),
        tritone.BertConfig(**BERT | {"vocab_size": len(vocabulary)}),
        decoder_start_token_id=2,
        eos_token_id=3,
    )
    model = SpeechEncoderDecoderModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(2 * torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of it, to be edited."""
    return shutil.copytree(folder, tmp_path, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def recordings() -> list[np.ndarray]:
    """Waveforms of different pitch and length."""
    draw = np.random.default_rng(2)
    lengths = (9000, 5000, 16000, 7001, 12345, 3200)
    return [
        (0.2 * np.sin(np.arange(n) * (0.02 + 0.1 * draw.random())) + 0.02 * draw.standard_normal(n)).astype(
            np.float32
        )
        for n in lengths
    ]


def forget(folder: Path, *fields: str) -> None:
    """Drop fields from all that is beside the model."""
    for name in ("preprocessor_config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        kept = {field: value for field, value in content.items() if field not in fields}
        (folder / name).write_text(json.dumps(kept))


def test_the_processor_is_put_together_where_no_file_names_one(copied):
    processor = tritone.AutoProcessor.from_pretrained(copied)
    assert type(processor) is SpeechProcessor
    assert type(processor.feature_extractor) is Wav2Vec2FeatureExtractor
    assert type(processor.tokenizer) is BertTokenizer
    assert processor.batch_decode([[2, 6, 7, 3]], skip_special_tokens=True) == ["one two"]


def test_a_part_without_a_name_is_that_of_the_encoders_or_decoders_family(copied):
    forget(copied, *NAMED)
    assert type(tritone.AutoFeatureExtractor.from_pretrained(copied)) is Wav2Vec2FeatureExtractor
    assert type(tritone.AutoTokenizer.from_pretrained(copied)) is BertTokenizer
    config = tritone.AutoConfig.from_pretrained(copied)
    assert type(tritone.AutoTokenizer.from_pretrained(copied, config=config)) is BertTokenizer
    assert type(tritone.AutoProcessor.from_pretrained(copied, config=config)) is SpeechProcessor
    assert type(tritone.AutoProcessor.from_pretrained(copied)) is SpeechProcessor
    spectrum = join(tritone.Speech2TextConfig(), tritone.GPT2Config())
    with pytest.warns(UserWarning, match="sets do_normalize, which Tritone does not use"):
        found = tritone.AutoFeatureExtractor.from_pretrained(copied, config=spectrum, padding_value=1.0)
    assert type(found) is Speech2TextFeatureExtractor


def test_a_processor_that_is_named_is_that_one_with_the_repositorys_tokenizer(copied):
    tritone.AutoProcessor.from_pretrained(copied).save_pretrained(copied)
    assert json.loads((copied / "preprocessor_config.json").read_text())["processor_class"]
    processor = tritone.AutoProcessor.from_pretrained(copied)
    assert type(processor) is Wav2Vec2Processor
    assert type(processor.tokenizer) is BertTokenizer
    theirs = transformers.Wav2Vec2Processor.from_pretrained(copied)
    assert theirs.tokenizer("two nine").input_ids == processor.tokenizer("two nine")["input_ids"]


def test_the_training_example_of_the_documentation_runs(folder, recordings):
    extractor = tritone.AutoFeatureExtractor.from_pretrained(folder)
    tokenizer = tritone.AutoTokenizer.from_pretrained(folder)
    model = SpeechEncoderDecoderModel.from_pretrained(folder)
    model.config.decoder_start_token_id = tokenizer.cls_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    inputs = extractor(recordings[0], sampling_rate=RATE, return_tensors="pt").input_values
    labels = tokenizer("five six seven", return_tensors="pt").input_ids
    assert labels.tolist() == [[2, 10, 11, 12, 3]]
    loss = model(input_values=inputs, labels=labels).loss
    loss.backward()
    assert loss.isfinite()
    assert model.encoder.feature_projection.projection.weight.grad.any()
    processor = tritone.AutoProcessor.from_pretrained(folder)
    again = processor(text="five six seven", return_tensors="pt").input_ids
    assert torch.equal(model(inputs, labels=again).loss, loss)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=str)
def test_the_engine_says_what_generate_says(folder, recordings, options: dict[str, Any]):
    model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(folder)
    processor = tritone.AutoProcessor.from_pretrained(folder)
    wanted = []
    for recording in recordings:
        inputs = processor(recording, sampling_rate=RATE, return_tensors="pt")
        ids = model.generate(inputs.input_values, max_length=12, **options)
        wanted += processor.batch_decode(ids, skip_special_tokens=True)
    with tritone.Engine(str(folder), device="cpu") as engine:
        results = list(engine.transcribe(recordings, max_length=12, **options))
    assert [result.text for result in results] == wanted
    assert len(set(wanted)) > 2


def test_the_engine_names_what_is_wrong_with_a_recording(folder):
    with (
        tritone.Engine(str(folder), device="cpu") as engine,
        pytest.raises(ValueError, match="samples"),
    ):
        engine.submit(np.zeros(100, np.float32)).result(60)
