# ruff: noqa: E501 - the examples stand as they are documented
"""Examples of Speech2Text and `AutoModelForSpeechSeq2Seq`."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import tritone


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


def test_the_factory_with_a_tensorflow_checkpoint(run: Any, tmp_path: Path, unpack_tensorflow: Any) -> None:
    config = unpack_tensorflow("speech_to_text", "index/speech_model_checkpoint", "speech_model_checkpoint")
    shutil.copytree(config.parent, tmp_path / "speech-to-text-model")
    with pytest.warns(UserWarning, match="not tied"):  # in TensorFlow the head has weights of its own
        names = run("""
from tritone import AutoConfig, AutoModelForSpeechSeq2Seq

config = AutoConfig.from_pretrained('speech-to-text-model')
model = AutoModelForSpeechSeq2Seq.from_pretrained(
    './tf_model/speech_model_checkpoint.ckpt.index', from_tf=True, config=config
)
""")
    assert type(names["model"]) is tritone.Speech2TextForConditionalGeneration
