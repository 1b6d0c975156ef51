"""Documented checkpoints for the examples of transformers' documentation of speech models.

Two things stand in for the network: small checkpoints with random weights, in a folder under the documented
names, and a module `datasets` whose `load_dataset` gives a recording from samples/digits/. docs/examples.md
has the table of examples.
"""

import json
import shutil
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import soundfile
import torch
from factories import seeded, tiny_bert_config, tiny_wav2vec2_config, write_checkpoint

import tritone

ROOT = Path(__file__).parents[2]
ENCODER = {"hidden_size": 36}  # other than the decoders', so that encoder and decoder meet in a projection
# As the published large encoders, whose batches need a mask.
LARGE = {**ENCODER, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
DECODER = {
    "d_model": 24,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 40,
    "tie_word_embeddings": False,  # tied random weights would give the end token after itself
}
WORDS = "mister quilter is the apostle of the middle classes and we are glad to welcome his gospel"


def write_speech_to_text(hub: Path) -> None:
    """Speech2Text, English and multilingual, of the documented d_model of 256."""
    for name, lang_codes in (
        ("s2t-small-librispeech-asr", None),
        ("s2t-medium-mustc-multilingual-st", "mustc"),
    ):
        folder = hub / "facebook" / name
        folder.mkdir(parents=True)
        write_checkpoint(folder, lang_codes, d_model=256)
    shutil.copytree(hub / "facebook/s2t-small-librispeech-asr", hub / "speech-to-text-model")


def write_encoders(hub: Path) -> None:
    """wav2vec 2.0 with a CTC head, and a HuBERT and a wav2vec 2.0 without one."""
    seeded(tritone.Wav2Vec2ForCTC, tiny_wav2vec2_config(**ENCODER)).save_pretrained(
        hub / "facebook/wav2vec2-base-960h"
    )
    extractor = tritone.Wav2Vec2FeatureExtractor(return_attention_mask=False)
    extractor.save_pretrained(hub / "facebook/wav2vec2-base-960h")
    hubert = tiny_wav2vec2_config(tritone.HubertConfig, **LARGE)
    seeded(tritone.HubertModel, hubert).save_pretrained(hub / "facebook/hubert-large-ll60k")
    large = tiny_wav2vec2_config(**LARGE)
    seeded(tritone.Wav2Vec2Model, large).save_pretrained(hub / "facebook/wav2vec2-large-lv60")


def write_decoders(hub: Path) -> None:
    """BERT with its tokenizer and without, and BART, none of which has cross-attention yet."""
    folder = hub / "bert-base-uncased"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(WORDS.split())]
    bert = tiny_bert_config(vocab_size=len(vocabulary))
    seeded(tritone.BertModel, bert).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    seeded(tritone.BertLMHeadModel, tiny_bert_config()).save_pretrained(hub / "bert-base-cased")
    bart = tritone.BartConfig(vocab_size=40, is_decoder=True, **DECODER)
    seeded(tritone.BartForCausalLM, bart).save_pretrained(hub / "facebook/bart-large")


def write_speech_translation(hub: Path) -> None:
    """wav2vec 2.0 with MBart, its tokenizer and special tokens; with BART, without either; as published."""
    folder = hub / "facebook/wav2vec2-xls-r-300m-en-to-15"
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([WORDS] * 20),
        model_prefix=str(folder / "sentencepiece.bpe"),
        vocab_size=30,
        minloglevel=2,
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MBart50Tokenizer"}))
    extractor = tritone.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    tokenizer = tritone.MBart50Tokenizer.from_pretrained(folder)
    tritone.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    tokens = {"decoder_start_token_id": 2, "pad_token_id": 1, "eos_token_id": 2}
    mbart = tritone.MBartConfig(vocab_size=len(tokenizer), **DECODER)
    bart = tritone.BartConfig(vocab_size=40, **DECODER)
    bart_folder = hub / "patrickvonplaten/wav2vec2-2-bart-large"
    for path, decoder, options in ((folder, mbart, tokens), (bart_folder, bart, {})):
        config = tritone.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
            tiny_wav2vec2_config(**LARGE), decoder, **options
        )
        torch.manual_seed(2)
        tritone.SpeechEncoderDecoderModel(config).save_pretrained(path)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints under their documented names."""
    hub = tmp_path_factory.mktemp("hub")
    write_speech_to_text(hub)
    write_encoders(hub)
    write_decoders(hub)
    write_speech_translation(hub)
    return hub


@pytest.fixture
def run(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run an example in the folder of the checkpoints; returns its variables."""
    waveform, rate = soundfile.read(ROOT / "samples" / "digits" / "two_digits_16k.wav", dtype="float32")

    def load_dataset(*_: str, **__: str) -> list[dict[str, Any]]:
        return [{"audio": {"array": waveform, "sampling_rate": rate}, "text": WORDS.upper()}]

    datasets = types.ModuleType("datasets")
    datasets.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    monkeypatch.chdir(checkpoints)

    def run(code: str) -> dict[str, Any]:
        names: dict[str, Any] = {}
        exec(code, names)
        return names

    return run


@pytest.fixture
def unpack_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], Path]:
    """Unpack a checkpoint that TensorFlow wrote under a documented name; returns its config.json."""

    def unpack(name: str, index: str, renamed: str) -> Path:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "tf_model").mkdir()
        with zipfile.ZipFile(ROOT / "tests/conformance/golden/tensorflow_checkpoints.zip") as archive:
            archive.extract(f"{name}/config.json", tmp_path)
            for member in archive.namelist():
                if member.startswith(f"{name}/{index}"):
                    target = member.removeprefix(f"{name}/{index}")
                    (tmp_path / "tf_model" / f"{renamed}{target}").write_bytes(archive.read(member))
        return tmp_path / name / "config.json"

    return unpack
