# ruff: noqa: E501 - the examples stand as they are documented
"""The examples of transformers' Speech2Text documentation, with `tritone` instead of `transformers`.

Three things stand in for what a machine without a network lacks: checkpoints of the named shapes with random
weights, under the documented names, in the working folder; a module `datasets` whose `load_dataset` gives a
recording from `samples/`; and no more. docs/examples.md has the table.
"""

import io
import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import soundfile
import torch

import tritone

ROOT = Path(__file__).parents[1]
ASR, TRANSLATION = "facebook/s2t-small-librispeech-asr", "facebook/s2t-medium-mustc-multilingual-st"
SMALL = {
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "conv_channels": 64,
    "max_target_positions": 64,
}


def write_checkpoint(folder: Path, languages: tuple[str, ...] = ()) -> None:
    """A small Speech2Text with random weights, d_model 256 as the documented one, and its processor."""
    symbols = [f"<lang:{language}>" for language in languages]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["one two three four five six seven eight nine zero"] * 20),
        model_writer=model,
        model_type="word",
        vocab_size=13 + len(symbols),
        user_defined_symbols=symbols,
        minloglevel=2,
    )
    folder.mkdir(parents=True)
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    if languages:  # as the multilingual checkpoints: the ids of SentencePiece itself
        vocabulary = {}
    for index in range(pieces.get_piece_size()):
        vocabulary.setdefault(pieces.id_to_piece(index), len(vocabulary))
    vocabulary.setdefault("<pad>", len(vocabulary))
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = tritone.Speech2TextTokenizer(
        str(folder / "vocab.json"),
        str(folder / "sentencepiece.bpe.model"),
        **({"lang_codes": "mustc", "tgt_lang": "fr"} if languages else {}),
    )
    torch.manual_seed(0)
    config = tritone.Speech2TextConfig(vocab_size=len(vocabulary), pad_token_id=vocabulary["<pad>"], **SMALL)
    tritone.Speech2TextForConditionalGeneration(config).save_pretrained(folder)
    tritone.Speech2TextProcessor(tritone.Speech2TextFeatureExtractor(), tokenizer).save_pretrained(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints under their documented names."""
    folder = tmp_path_factory.mktemp("hub")
    write_checkpoint(folder / ASR)
    write_checkpoint(folder / TRANSLATION, ("pt", "fr", "ru", "nl", "ro", "it", "es", "de"))
    shutil.copytree(folder / ASR, folder / "speech-to-text-model")
    (folder / "bert-base-cased").mkdir()
    (folder / "bert-base-cased" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return folder


@pytest.fixture
def run(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run an example in the folder of the checkpoints; returns what it leaves behind."""
    waveform, rate = soundfile.read(ROOT / "samples" / "two_digits_16k.wav", dtype="float32")

    def load_dataset(*_: str, **__: str) -> list[dict[str, Any]]:
        return [{"audio": {"array": waveform, "sampling_rate": rate}}]

    datasets = types.ModuleType("datasets")
    datasets.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    monkeypatch.chdir(checkpoints)

    def run(code: str) -> dict[str, Any]:
        names: dict[str, Any] = {}
        exec(code, names)
        return names

    return run


def test_recognition(run: Any) -> None:
    names = run("""
import torch
from tritone import Speech2TextProcessor, Speech2TextForConditionalGeneration
from datasets import load_dataset

model = Speech2TextForConditionalGeneration.from_pretrained("facebook/s2t-small-librispeech-asr")
processor = Speech2TextProcessor.from_pretrained("facebook/s2t-small-librispeech-asr")

ds = load_dataset("hf-internal-testing/librispeech_asr_demo", "clean", split="validation")

inputs = processor(ds[0]["audio"]["array"], sampling_rate=ds[0]["audio"]["sampling_rate"], return_tensors="pt")
generated_ids = model.generate(inputs["input_features"], attention_mask=inputs["attention_mask"])

transcription = processor.batch_decode(generated_ids, skip_special_tokens=True)
""")
    assert len(names["transcription"]) == 1
    assert names["generated_ids"][0, 0] == 2


def test_translation_with_a_forced_language(run: Any) -> None:
    names = run("""
import torch
from tritone import Speech2TextProcessor, Speech2TextForConditionalGeneration
from datasets import load_dataset

model = Speech2TextForConditionalGeneration.from_pretrained("facebook/s2t-medium-mustc-multilingual-st")
processor = Speech2TextProcessor.from_pretrained("facebook/s2t-medium-mustc-multilingual-st")

ds = load_dataset("hf-internal-testing/librispeech_asr_demo", "clean", split="validation")

inputs = processor(ds[0]["audio"]["array"], sampling_rate=ds[0]["audio"]["sampling_rate"], return_tensors="pt")
generated_ids = model.generate(
    inputs["input_features"],
    attention_mask=inputs["attention_mask"],
    forced_bos_token_id=processor.tokenizer.lang_code_to_id["fr"],
)

translation = processor.batch_decode(generated_ids, skip_special_tokens=True)
""")
    tokenizer = names["processor"].tokenizer
    assert names["generated_ids"][0, 1] == tokenizer.convert_tokens_to_ids("<lang:fr>")
    assert "<lang:fr>" not in names["translation"][0]


def test_configuration(run: Any) -> None:
    names = run("""
from tritone import Speech2TextConfig, Speech2TextModel

configuration = Speech2TextConfig()

model = Speech2TextModel(configuration)

configuration = model.config
""")
    assert names["configuration"].d_model == 256
    assert names["configuration"].vocab_size == 10000


def test_the_bare_model(run: Any) -> None:
    names = run("""
import torch
from tritone import Speech2TextModel, AutoFeatureExtractor
from datasets import load_dataset

model = Speech2TextModel.from_pretrained("facebook/s2t-small-librispeech-asr")
feature_extractor = AutoFeatureExtractor.from_pretrained("facebook/s2t-small-librispeech-asr")
ds = load_dataset("hf-internal-testing/librispeech_asr_dummy", "clean", split="validation")
inputs = feature_extractor(
    ds[0]["audio"]["array"], sampling_rate=ds[0]["audio"]["sampling_rate"], return_tensors="pt"
)
input_features = inputs.input_features
decoder_input_ids = torch.tensor([[1, 1]]) * model.config.decoder_start_token_id
last_hidden_state = model(input_features, decoder_input_ids=decoder_input_ids).last_hidden_state
""")
    assert list(names["last_hidden_state"].shape) == [1, 2, 256]


def test_generation_by_the_name_of_inputs(run: Any) -> None:
    names = run("""
import torch
from tritone import Speech2TextProcessor, Speech2TextForConditionalGeneration
from datasets import load_dataset

model = Speech2TextForConditionalGeneration.from_pretrained("facebook/s2t-small-librispeech-asr")
processor = Speech2TextProcessor.from_pretrained("facebook/s2t-small-librispeech-asr")

ds = load_dataset("hf-internal-testing/librispeech_asr_dummy", "clean", split="validation")

inputs = processor(
    ds[0]["audio"]["array"], sampling_rate=ds[0]["audio"]["sampling_rate"], return_tensors="pt"
)
input_features = inputs.input_features

generated_ids = model.generate(inputs=input_features)

transcription = processor.batch_decode(generated_ids, skip_special_tokens=True)[0]
""")
    assert isinstance(names["transcription"], str)


def test_a_bert_configuration_is_no_speech_model(run: Any) -> None:
    with pytest.raises(ValueError, match="bert"):
        run("""
from tritone import AutoConfig, AutoModelForSpeechSeq2Seq

config = AutoConfig.from_pretrained('bert-base-cased')

model = AutoModelForSpeechSeq2Seq.from_config(config)
""")


def test_the_factory_with_a_field_overridden(run: Any) -> None:
    names = run("""
from tritone import AutoConfig, AutoModelForSpeechSeq2Seq

model = AutoModelForSpeechSeq2Seq.from_pretrained('speech-to-text-model')

model = AutoModelForSpeechSeq2Seq.from_pretrained('speech-to-text-model', output_attentions=True)
""")
    assert names["model"].config.output_attentions is True
    assert not names["model"].training


def test_a_tensorflow_checkpoint_is_refused_clearly_for_now(run: Any) -> None:
    with pytest.raises((ValueError, NotImplementedError), match=r"(?i)tensorflow|from_tf"):
        run("""
from tritone import AutoConfig, AutoModelForSpeechSeq2Seq

config = AutoConfig.from_pretrained('speech-to-text-model')
model = AutoModelForSpeechSeq2Seq.from_pretrained(
    './tf_model/speech_model_checkpoint.ckpt.index', from_tf=True, config=config
)
""")
