"""Examples of SpeechEncoderDecoder: a speech encoder with a text decoder."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tritone

WORDS = 17  # of the documented transcript


def assert_same_weights(saved: nn.Module, loaded: nn.Module) -> None:
    weights = dict(saved.named_parameters())
    assert all(torch.equal(weights[name], value) for name, value in loaded.named_parameters())


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
    with pytest.warns(UserWarning, match="crossattention"):  # not in BERT's checkpoint
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
    assert names["labels"].shape == (1, WORDS + 2)
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
    assert_same_weights(names["saved"], names["model"])


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
    assert_same_weights(names["saved"], names["model"])


def test_the_flax_example_of_generation_runs_with_the_pytorch_class(run: Any) -> None:
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


def test_the_flax_example_of_checkpoints_runs_with_the_pytorch_class(run: Any) -> None:
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
