# ruff: noqa: E501 - the examples stand as they are documented
"""The examples of transformers' documentation of speech models, with `tritone` instead of `transformers`.

Three things stand in for what a machine without a network lacks: checkpoints of the named shapes with random
weights, under the documented names, in the working folder; a module `datasets` whose `load_dataset` gives a
recording from `samples/`; and no more. docs/examples.md has the table.
"""

import io
import json
import shutil
import sys
import types
import zipfile
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
ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (12, 9, 4),
    "conv_stride": (10, 8, 4),
    "num_conv_pos_embeddings": 9,
    "num_conv_pos_embedding_groups": 2,
}
BERT = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
# As the published large encoders have it, whose batches need a mask.
LARGE_ENCODER = {**ENCODER, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
DECODER = {
    "d_model": 24,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 40,
    "tie_word_embeddings": False,  # or random weights would say the end token at once, after itself
}
WORDS = "mister quilter is the apostle of the middle classes and we are glad to welcome his gospel"


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


def write_encoders(hub: Path) -> None:
    """wav2vec 2.0 with a CTC head, and a HuBERT and a wav2vec 2.0 without one."""
    torch.manual_seed(1)
    ctc = tritone.Wav2Vec2ForCTC(tritone.Wav2Vec2Config(vocab_size=32, **ENCODER))
    ctc.save_pretrained(hub / "facebook/wav2vec2-base-960h")
    extractor = tritone.Wav2Vec2FeatureExtractor(return_attention_mask=False)
    extractor.save_pretrained(hub / "facebook/wav2vec2-base-960h")
    hubert = tritone.HubertModel(tritone.HubertConfig(**LARGE_ENCODER))
    hubert.save_pretrained(hub / "facebook/hubert-large-ll60k")
    large = tritone.Wav2Vec2Model(tritone.Wav2Vec2Config(**LARGE_ENCODER))
    large.save_pretrained(hub / "facebook/wav2vec2-large-lv60")


def write_decoders(hub: Path) -> None:
    """BERT with its tokenizer, and BART, neither of which has attended to an encoder yet."""
    folder = hub / "bert-base-uncased"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(WORDS.split())]
    config = tritone.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=40,
    )
    tritone.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    bart = tritone.BartForCausalLM(tritone.BartConfig(vocab_size=40, is_decoder=True, **DECODER))
    bart.save_pretrained(hub / "facebook/bart-large")


def write_speech_translation(folder: Path, decoder: str) -> None:
    """wav2vec 2.0 with MBart and its tokenizer, or with BART and none, special tokens set as published."""
    folder.mkdir(parents=True)
    vocabulary = 40
    if decoder == "MBart":
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([WORDS] * 20), model_writer=model, vocab_size=30, minloglevel=2
        )
        (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MBart50Tokenizer"}))
        extractor = tritone.Wav2Vec2FeatureExtractor(return_attention_mask=True)
        tokenizer = tritone.MBart50Tokenizer.from_pretrained(folder)
        tritone.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
        vocabulary = len(tokenizer)
    config = tritone.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        tritone.Wav2Vec2Config(**LARGE_ENCODER),
        getattr(tritone, f"{decoder}Config")(vocab_size=vocabulary, **DECODER),
        **({"decoder_start_token_id": 2, "pad_token_id": 1, "eos_token_id": 2} if decoder == "MBart" else {}),
    )
    torch.manual_seed(2)
    tritone.SpeechEncoderDecoderModel(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints under their documented names."""
    folder = tmp_path_factory.mktemp("hub")
    write_checkpoint(folder / ASR)
    write_checkpoint(folder / TRANSLATION, ("pt", "fr", "ru", "nl", "ro", "it", "es", "de"))
    shutil.copytree(folder / ASR, folder / "speech-to-text-model")
    torch.manual_seed(3)
    tritone.BertLMHeadModel(tritone.BertConfig(**BERT)).save_pretrained(folder / "bert-base-cased")
    write_encoders(folder)
    write_decoders(folder)
    write_speech_translation(folder / "facebook/wav2vec2-xls-r-300m-en-to-15", "MBart")
    write_speech_translation(folder / "patrickvonplaten/wav2vec2-2-bart-large", "Bart")
    return folder


@pytest.fixture
def run(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run an example in the folder of the checkpoints; returns what it leaves behind."""
    waveform, rate = soundfile.read(ROOT / "samples" / "two_digits_16k.wav", dtype="float32")

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


def unpack_tensorflow(folder: Path, name: str, index: str, renamed: str) -> Path:
    """Put a checkpoint that TensorFlow wrote where the examples have theirs; returns its config.json."""
    (folder / "tf_model").mkdir()
    with zipfile.ZipFile(ROOT / "tests" / "conformance" / "golden" / "tensorflow_checkpoints.zip") as archive:
        archive.extract(f"{name}/config.json", folder)
        for member in archive.namelist():
            if member.startswith(f"{name}/{index}"):
                target = member.removeprefix(f"{name}/{index}")
                (folder / "tf_model" / f"{renamed}{target}").write_bytes(archive.read(member))
    return folder / name / "config.json"


def test_the_factory_with_a_tensorflow_checkpoint(run: Any, tmp_path: Path, monkeypatch: Any) -> None:
    config = unpack_tensorflow(
        tmp_path, "speech_to_text", "index/speech_model_checkpoint", "speech_model_checkpoint"
    )
    shutil.copytree(config.parent, tmp_path / "speech-to-text-model")
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="not tied"):  # in TensorFlow the head has weights of its own
        names = run("""
from tritone import AutoConfig, AutoModelForSpeechSeq2Seq

config = AutoConfig.from_pretrained('speech-to-text-model')
model = AutoModelForSpeechSeq2Seq.from_pretrained(
    './tf_model/speech_model_checkpoint.ckpt.index', from_tf=True, config=config
)
""")
    assert type(names["model"]) is tritone.Speech2TextForConditionalGeneration


@pytest.mark.parametrize(
    ("factory", "name", "index", "cls"),
    [
        (
            "AutoModelForSequenceClassification",
            "bert",
            "original/bert_model",
            "BertForSequenceClassification",
        ),
        (
            "AutoModelForAudioClassification",
            "wav2vec2",
            "index/wav2vec2",
            "Wav2Vec2ForSequenceClassification",
        ),
    ],
)
def test_the_factories_of_classifiers_with_a_tensorflow_checkpoint(
    factory: str, name: str, index: str, cls: str, run: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    config = unpack_tensorflow(tmp_path, name, index, "bert_tf_checkpoint")
    shutil.copy(config, tmp_path / "tf_model" / "bert_tf_model_config.json")
    monkeypatch.chdir(tmp_path)
    names = run(f"""
from tritone import AutoConfig, {factory}

config = AutoConfig.from_pretrained('./tf_model/bert_tf_model_config.json')
model = {factory}.from_pretrained('./tf_model/bert_tf_checkpoint.ckpt.index', from_tf=True, config=config)
""")
    assert type(names["model"]) is getattr(tritone, cls)
    assert not names["model"].training


def test_a_classifier_of_texts_from_a_configuration(run: Any) -> None:
    names = run("""
from tritone import AutoConfig, AutoModelForSequenceClassification

# Download and load configuration
config = AutoConfig.from_pretrained('bert-base-cased')
model = AutoModelForSequenceClassification.from_config(config)
""")
    assert type(names["model"]) is tritone.BertForSequenceClassification


def test_a_classifier_of_texts_from_a_checkpoint_with_a_field_overridden(run: Any) -> None:
    with pytest.warns(UserWarning, match=r"these are fresh.*classifier\.weight"):
        names = run("""
from tritone import AutoModelForSequenceClassification

# Load pretrained model
model = AutoModelForSequenceClassification.from_pretrained('bert-base-cased')

# Load with updated configuration
model = AutoModelForSequenceClassification.from_pretrained('bert-base-cased', output_attentions=True)
print(model.config.output_attentions)  # True
""")
    assert type(names["model"]) is tritone.BertForSequenceClassification
    assert names["model"].config.output_attentions is True
    assert not names["model"].training


def test_a_bert_is_no_classifier_of_recordings(run: Any) -> None:
    with pytest.raises(ValueError, match="AutoModelForAudioClassification has nothing for a BertConfig"):
        run("""
from tritone import AutoConfig, AutoModelForAudioClassification

# Download configuration from huggingface.co and cache.
config = AutoConfig.from_pretrained('bert-base-cased')
model = AutoModelForAudioClassification.from_config(config)
""")
    for arguments in ("", ", output_attentions=True"):
        with pytest.raises(ValueError, match=r"has model_type 'bert'; supported here: .*wav2vec2"):
            run(f"""
from tritone import AutoConfig, AutoModelForAudioClassification

# Download model and configuration from huggingface.co and cache.
model = AutoModelForAudioClassification.from_pretrained('bert-base-cased'{arguments})
""")


# A speech encoder with a text decoder.


def test_an_encoder_with_a_decoder_from_configurations(run: Any) -> None:
    names = run("""
from tritone import BertConfig, Wav2Vec2Config, SpeechEncoderDecoderConfig, SpeechEncoderDecoderModel

config_encoder = Wav2Vec2Config()
config_decoder = BertConfig()

config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(config_encoder, config_decoder)
model = SpeechEncoderDecoderModel(config=config)
""")
    assert names["model"].decoder.get_decoder().has_cross_attention
    assert names["model"].enc_to_dec_proj is None  # 768 numbers on both sides


def test_an_encoder_with_a_decoder_from_a_checkpoint_each(run: Any) -> None:
    with pytest.warns(UserWarning, match="crossattention"):  # which BERT's checkpoint has not
        names = run("""
from tritone import SpeechEncoderDecoderModel

model = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(
    "facebook/hubert-large-ll60k", "bert-base-uncased"
)
""")
    assert isinstance(names["model"].encoder, tritone.HubertModel)


def test_speech_translation(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    names = run("""
from tritone import Wav2Vec2Processor, SpeechEncoderDecoderModel
from datasets import load_dataset
import torch

# load a fine-tuned speech translation model and corresponding processor
model = SpeechEncoderDecoderModel.from_pretrained("facebook/wav2vec2-xls-r-300m-en-to-15")
processor = Wav2Vec2Processor.from_pretrained("facebook/wav2vec2-xls-r-300m-en-to-15")

# let's perform inference on a piece of English speech (which we'll translate to German)
ds = load_dataset("hf-internal-testing/librispeech_asr_dummy", "clean", split="validation")
input_values = processor(ds[0]["audio"]["array"], return_tensors="pt").input_values

# autoregressively generate transcription (uses greedy decoding by default)
generated_ids = model.generate(input_values)
generated_text = processor.batch_decode(generated_ids, skip_special_tokens=True)[0]
print(generated_text)
""")
    assert names["generated_ids"][0, 0] == 2
    assert names["generated_ids"].shape[1] > 2
    assert capsys.readouterr().out == names["generated_text"] + "\n"


def test_training_an_encoder_and_a_decoder_that_have_not_met(run: Any) -> None:
    names = run("""
from tritone import AutoTokenizer, AutoFeatureExtractor, SpeechEncoderDecoderModel
from datasets import load_dataset

encoder_id = "facebook/wav2vec2-base-960h"  # acoustic model encoder
decoder_id = "bert-base-uncased"  # text decoder

feature_extractor = AutoFeatureExtractor.from_pretrained(encoder_id)
tokenizer = AutoTokenizer.from_pretrained(decoder_id)
# Combine pre-trained encoder and pre-trained decoder to form a Seq2Seq model
model = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(encoder_id, decoder_id)

model.config.decoder_start_token_id = tokenizer.cls_token_id
model.config.pad_token_id = tokenizer.pad_token_id

# load an audio input and pre-process (normalize mean/std to 0/1)
ds = load_dataset("hf-internal-testing/librispeech_asr_dummy", "clean", split="validation")
input_values = feature_extractor(ds[0]["audio"]["array"], return_tensors="pt").input_values

# load its corresponding transcription and tokenize to generate labels
labels = tokenizer(ds[0]["text"], return_tensors="pt").input_ids

# the forward function automatically creates the correct decoder_input_ids
loss = model(input_values=input_values, labels=labels).loss
loss.backward()
""")
    assert names["labels"].shape == (1, len(WORDS.split()) + 2)
    assert 1 not in names["labels"]  # no word was unknown
    assert names["loss"].isfinite()
    assert names["model"].encoder.feature_projection.projection.weight.grad.any()


def test_a_configuration_saved_and_loaded_with_its_model(run: Any, checkpoints: Path) -> None:
    names = run("""
from tritone import BertConfig, Wav2Vec2Config, SpeechEncoderDecoderConfig, SpeechEncoderDecoderModel

# Initializing a Wav2Vec2 & BERT style configuration
config_encoder = Wav2Vec2Config()
config_decoder = BertConfig()

config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(config_encoder, config_decoder)

# Initializing a Wav2Vec2Bert model from a Wav2Vec2 & bert-base-uncased style configurations
model = SpeechEncoderDecoderModel(config=config)

# Accessing the model configuration
config_encoder = model.config.encoder
config_decoder = model.config.decoder
# set decoder config to causal lm
config_decoder.is_decoder = True
config_decoder.add_cross_attention = True

# Saving the model, including its configuration
model.save_pretrained("my-model")
saved = model

# loading model and config from pretrained folder
encoder_decoder_config = SpeechEncoderDecoderConfig.from_pretrained("my-model")
model = SpeechEncoderDecoderModel.from_pretrained("my-model", config=encoder_decoder_config)
""")
    shutil.rmtree(checkpoints / "my-model")  # of the published sizes: 0.9 GB
    assert names["model"] is not names["saved"]
    kept = dict(names["saved"].named_parameters())
    assert all(torch.equal(kept[name], value) for name, value in names["model"].named_parameters())


def test_speech_translation_and_training_with_one_processor(run: Any) -> None:
    names = run("""
from tritone import SpeechEncoderDecoderModel, AutoProcessor
from datasets import load_dataset
import torch

processor = AutoProcessor.from_pretrained("facebook/wav2vec2-xls-r-300m-en-to-15")
model = SpeechEncoderDecoderModel.from_pretrained("facebook/wav2vec2-xls-r-300m-en-to-15")

ds = load_dataset("hf-internal-testing/librispeech_asr_dummy", "clean", split="validation")

input_values = processor(ds[0]["audio"]["array"], return_tensors="pt").input_values
# Inference: Translate English speech to German
generated = model.generate(input_values)
decoded = processor.batch_decode(generated, skip_special_tokens=True)[0]
decoded

# Training: Train model on English transcription
labels = processor(text=ds[0]["text"], return_tensors="pt").input_ids

loss = model(input_values, labels=labels).loss
loss.backward()
""")
    assert isinstance(names["decoded"], str)
    assert names["loss"].isfinite()
    assert names["model"].enc_to_dec_proj.weight.grad.any()


def test_an_encoder_with_a_decoder_saved_and_loaded(run: Any) -> None:
    names = run("""
from tritone import SpeechEncoderDecoderModel

# initialize a wav2vec2bert from a pretrained Wav2Vec2 and a pretrained BERT model.
model = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(
    "facebook/wav2vec2-base-960h", "bert-base-uncased"
)
saved = model
# saving model after fine-tuning
model.save_pretrained("./wav2vec2bert")
# load fine-tuned model
model = SpeechEncoderDecoderModel.from_pretrained("./wav2vec2bert")
""")
    kept = dict(names["saved"].named_parameters())
    assert all(torch.equal(kept[name], value) for name, value in names["model"].named_parameters())


def test_what_the_flax_example_of_generation_does_the_pytorch_class_does(run: Any) -> None:
    names = run("""
import torch
from tritone import SpeechEncoderDecoderModel

# load a fine-tuned wav2vec2-2-bart model
model = SpeechEncoderDecoderModel.from_pretrained("patrickvonplaten/wav2vec2-2-bart-large")

inputs = torch.ones((2, 5000), dtype=torch.float32)

# use bart's special bos, pad and eos tokens
model.config.decoder_start_token_id = model.decoder.config.bos_token_id
model.config.pad_token_id = model.decoder.config.pad_token_id
model.config.eos_token_id = model.decoder.config.eos_token_id

outputs = model.generate(inputs)
""")
    assert names["outputs"].shape[0] == 2
    assert torch.equal(names["outputs"][0], names["outputs"][1])


def test_what_the_flax_example_of_checkpoints_does_the_pytorch_class_does(run: Any) -> None:
    names = run("""
from tritone import SpeechEncoderDecoderModel

# initialize a wav2vec2-2-bart from pretrained wav2vec2 and bart models.
model = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(
    "facebook/wav2vec2-large-lv60", "facebook/bart-large"
)
# saving model after fine-tuning
model.save_pretrained("./wav2vec2-2-bart-large")
# load fine-tuned model
model = SpeechEncoderDecoderModel.from_pretrained("./wav2vec2-2-bart-large")
""")
    assert isinstance(names["model"].decoder, tritone.BartForCausalLM)
