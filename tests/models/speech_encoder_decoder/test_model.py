"""SpeechEncoderDecoder: its configuration, how it is put together, loaded, called and trained."""

import json
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import tritone
from tritone.models.bart.model import BartForCausalLM
from tritone.models.bert.config import BertConfig
from tritone.models.bert.model import BertLMHeadModel
from tritone.models.gpt2.config import GPT2Config
from tritone.models.gpt2.model import GPT2LMHeadModel
from tritone.models.speech_encoder_decoder.config import SpeechEncoderDecoderConfig
from tritone.models.speech_encoder_decoder.model import SpeechEncoderDecoderModel
from tritone.models.speech_to_text.config import Speech2TextConfig
from tritone.models.speech_to_text.encoder import Speech2TextEncoder
from tritone.models.wav2vec2.ctc import Wav2Vec2ForCTC
from tritone.models.wav2vec2.feature_extractor import Wav2Vec2FeatureExtractor
from tritone.models.wav2vec2.model import Wav2Vec2Config, Wav2Vec2Model

WAVE: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 30,
    "conv_dim": (8, 12, 16),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 7, 3),
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 20,
}
BERT: dict[str, Any] = {
    "vocab_size": 53,
    "hidden_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 30,
    "max_position_embeddings": 40,
}
GPT2: dict[str, Any] = {
    "vocab_size": 53,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 40,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BART: dict[str, Any] = {
    "vocab_size": 53,
    "d_model": 20,
    "decoder_layers": 2,
    "encoder_layers": 2,
    "decoder_attention_heads": 2,
    "encoder_attention_heads": 2,
    "decoder_ffn_dim": 30,
    "encoder_ffn_dim": 30,
    "max_position_embeddings": 40,
}
DECODER = {"is_decoder": True, "add_cross_attention": True}


def make_config(**fields: Any) -> SpeechEncoderDecoderConfig:
    """A wav2vec 2.0 encoder with a BERT decoder."""
    return SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        Wav2Vec2Config(**WAVE), BertConfig(**BERT), **fields
    )


def make(**fields: Any) -> SpeechEncoderDecoderModel:
    """A model with fresh weights, in evaluation mode."""
    torch.manual_seed(0)
    return SpeechEncoderDecoderModel(make_config(**fields)).eval()


def wave(samples: int = 1700) -> Tensor:
    """A waveform [1, samples]."""
    return torch.randn(1, samples, generator=torch.Generator().manual_seed(samples))


TOKENS = torch.tensor([[3, 17, 30, 8]])

# The configuration


def test_a_configuration_is_made_of_two_and_the_decoder_is_told_to_be_one():
    encoder, decoder = Wav2Vec2Config(**WAVE), BertConfig(**BERT)
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, pad_token_id=7)
    assert decoder.is_decoder
    assert decoder.add_cross_attention
    assert type(config.encoder) is Wav2Vec2Config
    assert type(config.decoder) is BertConfig
    assert config.encoder == encoder
    assert config.encoder is not encoder
    assert config.decoder == decoder
    assert config.is_encoder_decoder
    assert config.pad_token_id == 7
    assert config.get_text_config() is config.decoder


def test_a_configuration_goes_to_json_and_back(tmp_path):
    config = make_config(decoder_start_token_id=3)
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["encoder"]["model_type"], written["decoder"]["model_type"]) == ("wav2vec2", "bert")
    for loaded in (
        SpeechEncoderDecoderConfig.from_pretrained(tmp_path),
        tritone.AutoConfig.from_pretrained(tmp_path),
        SpeechEncoderDecoderConfig.from_dict(config.to_dict()),
    ):
        assert loaded == config
        assert type(loaded.decoder) is BertConfig
    theirs = transformers.SpeechEncoderDecoderConfig.from_pretrained(tmp_path)
    assert theirs.decoder.is_decoder
    assert theirs.encoder.hidden_size == 24
    assert SpeechEncoderDecoderConfig.adopt(theirs).decoder.hidden_size == 20


def test_a_configuration_of_nothing_is_that_of_wav2vec2_with_bert_as_in_transformers():
    config, theirs = SpeechEncoderDecoderConfig(), transformers.SpeechEncoderDecoderConfig()
    for part in ("encoder", "decoder"):
        fields = getattr(config, part).to_dict()
        assert fields["model_type"] == getattr(theirs, part).model_type
        for name, value in getattr(theirs, part).to_dict().items():
            if name in fields and name not in ("dtype", "transformers_version"):
                assert fields[name] == value or list(fields[name]) == list(value), name


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"encoder": {"model_type": "whisper"}}, "the encoder has model_type 'whisper'; .* one of hubert, "),
        ({"encoder": {"model_type": "bert"}}, "the encoder has model_type 'bert'"),
        (
            {"decoder": {"model_type": "xlnet"}},
            "the decoder has model_type 'xlnet'; .* one of bart, bert, gpt2",
        ),
        ({"decoder": {"model_type": "wav2vec2"}}, "the decoder has model_type 'wav2vec2'"),
        ({"decoder": 3}, "the decoder has no configuration but a int"),
    ],
    ids=str,
)
def test_parts_that_are_not_here_are_refused_with_those_that_are(fields, problem, tmp_path):
    with pytest.raises(ValueError, match=problem):
        SpeechEncoderDecoderConfig(**fields)
    make_config().save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**written, **fields}))
    with pytest.raises(ValueError, match=problem):
        tritone.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path)


# The model of two parts


def test_the_projection_is_there_where_widths_differ():
    assert make().enc_to_dec_proj.weight.shape == (20, 24)
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        Wav2Vec2Config(**WAVE), GPT2Config(**GPT2)
    )
    assert SpeechEncoderDecoderModel(config).enc_to_dec_proj is None


def test_a_model_is_made_of_an_encoder_and_a_decoder():
    encoder, decoder = Wav2Vec2Model(Wav2Vec2Config(**WAVE)), BertLMHeadModel(BertConfig(**BERT, **DECODER))
    model = SpeechEncoderDecoderModel(encoder=encoder, decoder=decoder)
    assert model.encoder is model.get_encoder() is encoder
    assert model.decoder is model.get_decoder() is decoder
    assert model.config.encoder is encoder.config
    assert model.config.decoder is decoder.config is decoder.bert.config
    assert model.get_input_embeddings() is decoder.get_input_embeddings()
    assert model.get_output_embeddings() is decoder.get_output_embeddings()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config.tie_word_embeddings is False
    assert isinstance(tritone.AutoModelForSpeechSeq2Seq.from_config(make_config()), SpeechEncoderDecoderModel)


def test_a_configuration_that_differs_from_that_of_a_part_replaces_it_with_a_warning():
    encoder, decoder = Wav2Vec2Model(Wav2Vec2Config(**WAVE)), BertLMHeadModel(BertConfig(**BERT, **DECODER))
    config = make_config()
    config.encoder.layerdrop = 0.7
    with pytest.warns(UserWarning, match=r"the encoder's own configuration is replaced by config\.encoder"):
        model = SpeechEncoderDecoderModel(config, encoder, decoder)
    assert model.encoder.config.layerdrop == 0.7


def test_parts_that_do_not_fit_are_refused():
    encoder, decoder = Wav2Vec2Model(Wav2Vec2Config(**WAVE)), BertLMHeadModel(BertConfig(**BERT, **DECODER))
    with pytest.raises(ValueError, match="give a configuration, or both an encoder and a decoder"):
        SpeechEncoderDecoderModel(encoder=encoder)
    with pytest.raises(ValueError, match="config is a BertConfig; give a SpeechEncoderDecoderConfig"):
        SpeechEncoderDecoderModel(BertConfig())
    with pytest.raises(
        ValueError, match="the encoder is a BertLMHeadModel; give a speech model without a head"
    ):
        SpeechEncoderDecoderModel(make_config(), decoder, decoder)
    with pytest.raises(ValueError, match="the decoder is a Wav2Vec2Model, which cannot attend to an encoder"):
        SpeechEncoderDecoderModel(make_config(), encoder, encoder)
    with pytest.raises(
        ValueError, match="the encoder is a Wav2Vec2ForCTC; give a speech model without a head"
    ):
        SpeechEncoderDecoderModel(make_config(), Wav2Vec2ForCTC(Wav2Vec2Config(**WAVE)), decoder)
    with pytest.raises(ValueError, match=r"the encoder is torch\.float16 on cpu, the decoder torch\.float32"):
        SpeechEncoderDecoderModel(make_config(), encoder.half(), decoder)


@pytest.mark.parametrize("lacking", [{}, {"is_decoder": True}, {"add_cross_attention": False}], ids=str)
def test_a_decoder_without_cross_attention_is_refused(lacking):
    encoder = Wav2Vec2Model(Wav2Vec2Config(**WAVE))
    problem = "the decoder, a BertLMHeadModel, was made without cross-attention; set is_decoder=True"
    with pytest.raises(ValueError, match=problem):
        SpeechEncoderDecoderModel(encoder=encoder, decoder=BertLMHeadModel(BertConfig(**BERT, **lacking)))
    config = make_config().to_dict()
    config["decoder"] |= {"is_decoder": False, "add_cross_attention": False, **lacking}
    with pytest.raises(ValueError, match=problem):
        SpeechEncoderDecoderModel(SpeechEncoderDecoderConfig.from_dict(config))
    gpt2 = GPT2LMHeadModel(GPT2Config(**GPT2))
    with pytest.raises(ValueError, match="the decoder, a GPT2LMHeadModel, was made without cross-attention"):
        SpeechEncoderDecoderModel(encoder=encoder, decoder=gpt2)


def test_vocabularies_that_differ_are_refused():
    encoder, decoder = Wav2Vec2Model(Wav2Vec2Config(**WAVE)), BertLMHeadModel(BertConfig(**BERT, **DECODER))
    config = make_config()
    config.decoder.vocab_size = 60
    with pytest.raises(
        ValueError, match=r"the decoder knows 53 tokens, and config\.decoder\.vocab_size is 60"
    ):
        SpeechEncoderDecoderModel(config, encoder, decoder)
    model = make(decoder_start_token_id=3, pad_token_id=0)
    with pytest.raises(ValueError, match="labels go from 5 to 53, and the model knows tokens 0 to 52"):
        model(wave(), labels=torch.tensor([[5, 53]]))
    with pytest.raises(ValueError, match="decoder_start_token_id names token 60; the model's are 0 to 52"):
        model.generate(wave(), decoder_start_token_id=60)


@pytest.mark.parametrize(
    ("encoder", "decoder", "problem"),
    [
        ({}, {"cross_attention_hidden_size": 20}, "cross_attention_hidden_size is 20, and the encoder's"),
        ({"add_adapter": True, "output_hidden_size": 28}, {}, "adapter gives 28 numbers, and the projection"),
        ({"output_hidden_size": 20}, {}, "the encoder gives 24 numbers, and the decoder reads 20"),
    ],
    ids=str,
)
def test_widths_that_never_meet_are_refused(encoder, decoder, problem):
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        Wav2Vec2Config(**WAVE, **encoder), BertConfig(**BERT, **decoder)
    )
    with pytest.raises(ValueError, match=problem):
        SpeechEncoderDecoderModel(config)


def test_an_adapter_of_the_decoders_width_needs_no_projection():
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        Wav2Vec2Config(**WAVE, add_adapter=True, output_hidden_size=20), BertConfig(**BERT)
    )
    model = SpeechEncoderDecoderModel(config).eval()
    assert model.enc_to_dec_proj is None
    assert model(wave(5000), decoder_input_ids=TOKENS).logits.shape == (1, 4, 53)


# Calls


def test_the_input_has_three_names_and_comes_under_one():
    model = make()
    first = model(wave(), decoder_input_ids=TOKENS).logits
    assert torch.equal(first, model(input_values=wave(), decoder_input_ids=TOKENS).logits)
    assert torch.equal(first, model(inputs=wave(), decoder_input_ids=TOKENS).logits)
    with pytest.raises(ValueError, match="input_values and input_features are given at the same time"):
        model(input_values=wave(), input_features=wave(), decoder_input_ids=TOKENS)
    with pytest.raises(ValueError, match="inputs and input_values are given at the same time; give one"):
        model.generate(wave(), input_values=wave(), decoder_start_token_id=3)
    with pytest.raises(ValueError, match=r"give input_values \(or input_features\), or encoder_outputs"):
        model(decoder_input_ids=TOKENS)
    with pytest.raises(ValueError, match="give the features to decode, or the waveforms"):
        model.generate(decoder_start_token_id=3)
    with pytest.raises(ValueError, match=r"input_values must be \[batch, samples\], got \[1, 20, 80\]"):
        model.generate(input_features=torch.randn(1, 20, 80), decoder_start_token_id=3)
    with pytest.raises(ValueError, match=r"attention_mask is \[1, 5\], input_values \[1, 1700\]"):
        model.generate(wave(), attention_mask=torch.ones(1, 5), decoder_start_token_id=3)


def test_a_speech2text_encoder_takes_features():
    spectrum = Speech2TextConfig(
        d_model=24, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=20, input_feat_per_channel=7
    )
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(spectrum, GPT2Config(**GPT2))
    model = SpeechEncoderDecoderModel(config).eval()
    assert isinstance(model.encoder, Speech2TextEncoder)
    features = torch.randn(1, 30, 7)
    assert model(input_features=features, decoder_input_ids=TOKENS).logits.shape == (1, 4, 53)
    assert model.generate(input_features=features, decoder_start_token_id=3, max_length=5).shape == (1, 5)
    with pytest.raises(
        ValueError, match=r"input_features must be \[batch, frames, features\], got \[1, 1700\]"
    ):
        model.generate(wave(), decoder_start_token_id=3)
    with pytest.raises(ValueError, match="a Speech2TextEncoder has no feature encoder to freeze"):
        model.freeze_feature_encoder()


def test_keyword_arguments_go_to_the_part_that_they_name():
    model = make()
    plain = model(wave(), decoder_input_ids=TOKENS).logits
    masked = torch.zeros(1, 21, dtype=torch.bool)
    masked[:, 4:9] = True
    with_mask = model(wave(), decoder_input_ids=TOKENS, mask_time_indices=masked).logits
    assert not torch.equal(plain, with_mask)
    prefixed = model(wave(), decoder_input_ids=TOKENS, encoder_mask_time_indices=masked).logits
    assert torch.equal(with_mask, prefixed)
    places = torch.tensor([[5, 6, 7, 8]])
    assert not torch.equal(plain, model(wave(), decoder_input_ids=TOKENS, decoder_position_ids=places).logits)
    with pytest.raises(TypeError, match="color"):
        model(wave(), decoder_input_ids=TOKENS, color=3)
    with pytest.raises(TypeError, match="color"):
        model(wave(), decoder_input_ids=TOKENS, decoder_color=3)


def test_what_an_earlier_call_left_goes_on():
    model = make()
    with torch.no_grad():
        whole = model(wave(), decoder_input_ids=TOKENS)
        first = model(wave(), decoder_input_ids=TOKENS[:, :2], use_cache=True)
        encoded = model.encoder(wave())
        for given in ({}, {"encoder_outputs": encoded}, {"encoder_outputs": (encoded.last_hidden_state,)}):
            second = model(decoder_input_ids=TOKENS[:, 2:], past_key_values=first.past_key_values, **given)
            torch.testing.assert_close(second.logits, whole.logits[:, 2:], atol=1e-5, rtol=0)
        again = model(encoder_outputs=encoded, decoder_input_ids=TOKENS)
        assert torch.equal(again.logits, whole.logits)
        embedded = model.get_input_embeddings()(TOKENS)
        assert torch.equal(model(wave(), decoder_inputs_embeds=embedded).logits, whole.logits)


def test_outputs_come_as_a_tuple_where_asked():
    model = make(decoder_start_token_id=3, pad_token_id=0)
    flags = {"output_attentions": True, "output_hidden_states": True, "use_cache": True}
    named = model(wave(), decoder_input_ids=TOKENS, labels=TOKENS, **flags)
    plain = model(wave(), decoder_input_ids=TOKENS, labels=TOKENS, return_dict=False, **flags)
    assert torch.equal(plain[0], named.loss)
    assert torch.equal(plain[1], named.logits)
    # The decoder's five, then the encoder's four, with its output before the projection.
    assert len(plain) == 1 + 5 + 4
    assert plain[6].shape == (1, 21, 24)
    assert named.encoder_last_hidden_state.shape == (1, 21, 20)
    assert len(named.encoder_attentions) == len(named.cross_attentions) == 2


@pytest.mark.parametrize("field", ["decoder_start_token_id", "pad_token_id"])
def test_labels_need_a_start_and_a_padding_token(field):
    model = make(**({"decoder_start_token_id": 3, "pad_token_id": 0} | {field: None}))
    problem = rf"labels need config\.{field}, which is not set; set model\.config\.{field}"
    with pytest.raises(ValueError, match=problem):
        model(wave(), labels=TOKENS)


def test_generate_needs_a_start_token_and_takes_one_that_is_set_later():
    model = make()
    with pytest.raises(
        ValueError, match="decoder_start_token_id is not set by the call nor by the checkpoint"
    ):
        model.generate(wave())
    wanted = model.generate(wave(), decoder_start_token_id=3, eos_token_id=9, max_length=8)
    model.config.decoder_start_token_id, model.config.pad_token_id = 3, 0
    model.config.eos_token_id = 9
    assert torch.equal(model.generate(wave(), max_length=8), wanted)
    assert model(wave(), labels=TOKENS).loss.isfinite()


def test_the_decoders_limit_is_the_models():
    model = make(decoder_start_token_id=3)
    assert model.max_length == 40
    with pytest.raises(
        ValueError, match="max_length is 41; it must be 2 to 40, the model's decoder positions"
    ):
        model.generate(wave(), max_length=41)
    with pytest.raises(ValueError, match="samples"):
        model.generate(wave(20))


def test_a_waveform_goes_through_the_loop_with_its_feature_extractor():
    model = make(decoder_start_token_id=3)
    extractor = Wav2Vec2FeatureExtractor()
    raw = [wave(samples)[0] * 0.1 for samples in (1700, 900, 2400)]
    loop = model.generation_loop(extractor, num_pages=64, num_rows=8)
    from tritone.scheduler.request import Request, RequestOutput

    options = model.resolve_options(max_length=9, num_beams=2)
    for index, waveform in enumerate(raw):
        loop.submit(Request(index, waveform, options))
    done: dict[int, RequestOutput] = {}
    while loop.has_work:
        done |= {event.request_id: event for event in loop.step() if isinstance(event, RequestOutput)}
    for index, waveform in enumerate(raw):
        inputs = extractor(waveform, sampling_rate=16000, return_tensors="pt")
        alone = model.generate(inputs.input_values, max_length=9, num_beams=2)
        assert list(done[index].hypotheses[0].token_ids) == alone[0].tolist()


# Checkpoints


def test_a_model_is_saved_and_loaded(tmp_path):
    model = make(decoder_start_token_id=3)
    model.generation_config.num_beams = 2
    model.save_pretrained(tmp_path)
    loaded, report = SpeechEncoderDecoderModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert not loaded.training
    assert loaded.generation_config.num_beams == 2
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert torch.equal(
        loaded(wave(), decoder_input_ids=TOKENS).logits, model(wave(), decoder_input_ids=TOKENS).logits
    )
    half = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path, dtype="bfloat16")
    assert {half.encoder.dtype, half.decoder.dtype, half.enc_to_dec_proj.weight.dtype} == {torch.bfloat16}
    assert half.generate(wave(), max_length=6).shape[0] == 1
    config = SpeechEncoderDecoderConfig.from_pretrained(tmp_path)
    assert SpeechEncoderDecoderModel.from_pretrained(tmp_path, config=config).config == loaded.config
    half.save_pretrained(tmp_path / "half")
    theirs = transformers.SpeechEncoderDecoderModel.from_pretrained(tmp_path / "half", dtype="auto")
    assert {parameter.dtype for parameter in theirs.parameters()} == {torch.bfloat16}


def test_a_checkpoint_without_cross_attention_loads_with_a_warning_and_a_damaged_one_does_not(tmp_path):
    model = make()
    state = model.state_dict()
    without = {name: tensor for name, tensor in state.items() if "crossattention" not in name}
    model.save_pretrained(tmp_path, state_dict=without)
    with pytest.warns(UserWarning, match=r"without cross-attention, .*; these are fresh, .*crossattention"):
        loaded = SpeechEncoderDecoderModel.from_pretrained(tmp_path)
    assert loaded(wave(), decoder_input_ids=TOKENS).logits.isfinite().all()
    part = "decoder.bert.encoder.layer.1.crossattention.self.key.weight"
    model.save_pretrained(tmp_path, state_dict={name: state[name] for name in state if name != part})
    with pytest.raises(ValueError, match=f"do not fit its configuration: missing: {part}"):
        SpeechEncoderDecoderModel.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path, state_dict={n: state[n] for n in state if "enc_to_dec_proj" not in n})
    with pytest.raises(ValueError, match=r"missing: enc_to_dec_proj\.bias; missing: enc_to_dec_proj\.weight"):
        SpeechEncoderDecoderModel.from_pretrained(tmp_path)


def test_loading_draws_no_weights_but_those_that_are_fresh(tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    before = torch.get_rng_state()
    SpeechEncoderDecoderModel.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    state = model.state_dict()
    lacking = ("crossattention", "masked_spec_embed")
    model.save_pretrained(
        tmp_path, state_dict={n: state[n] for n in state if not any(part in n for part in lacking)}
    )
    with pytest.warns(UserWarning, match="these are fresh"):
        loaded = SpeechEncoderDecoderModel.from_pretrained(tmp_path)
    for name, parameter in loaded.named_parameters():
        if "crossattention" in name and parameter.dim() > 1:
            assert 0.015 < parameter.std().item() < 0.025, name
        elif "crossattention" in name:
            assert torch.equal(parameter, torch.full_like(parameter, float("LayerNorm.weight" in name))), name
    mask = loaded.encoder.masked_spec_embed
    assert 0 <= mask.min() < mask.mean() < mask.max() <= 1


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    """Checkpoints of single models, as transformers writes them."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(1)
    t = transformers
    encoder = t.Wav2Vec2Config(**WAVE)
    bart = t.BartConfig(**BART)
    models = {
        "base": t.Wav2Vec2Model(encoder),
        "ctc": t.Wav2Vec2ForCTC(encoder),
        "pretraining": t.Wav2Vec2ForPreTraining(t.Wav2Vec2Config(**WAVE, num_codevectors_per_group=4)),
        "bert": t.BertModel(t.BertConfig(**BERT)),
        "masked": t.BertForMaskedLM(t.BertConfig(**BERT)),
        "decoder": t.BertLMHeadModel(t.BertConfig(**BERT, **DECODER)),
        "gpt2": t.GPT2LMHeadModel(t.GPT2Config(**GPT2)),
        "bart": t.BartForConditionalGeneration(bart),
        "bart-base": t.BartModel(bart),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize("encoder", ["base", "ctc", "pretraining"])
def test_an_encoder_checkpoint_of_any_kind_gives_its_base(encoder, parts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(parts / encoder, parts / "decoder")
    theirs = transformers.Wav2Vec2Model.from_pretrained(parts / encoder).eval()
    assert type(model.encoder) is Wav2Vec2Model
    torch.testing.assert_close(model.encoder(wave())[0], theirs(wave())[0], atol=1e-5, rtol=0)
    assert not model.training
    assert not model.decoder.training


@pytest.mark.parametrize("decoder", ["bert", "masked", "gpt2"])
def test_a_decoder_checkpoint_without_cross_attention_gets_a_fresh_one_and_a_warning(decoder, parts):
    with pytest.warns(UserWarning, match="without cross-attention, .*; these are fresh, .*crossattention"):
        model = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(parts / "ctc", parts / decoder)
    assert model.config.decoder.is_decoder
    assert model.config.decoder.add_cross_attention
    theirs = transformers.AutoModelForCausalLM.from_pretrained(parts / decoder).state_dict()
    for name, tensor in model.decoder.state_dict().items():
        if "cross" not in name and not (decoder == "bert" and name.startswith("cls")):
            assert torch.equal(tensor, theirs[name]), name
    assert model.generate(wave(), decoder_start_token_id=3, max_length=5).shape[0] == 1


@pytest.mark.parametrize("decoder", ["bart", "bart-base"])
def test_the_decoder_half_of_a_whole_model_is_a_decoder(decoder, parts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(parts / "base", parts / decoder)
    assert type(model.decoder) is BartForCausalLM
    # (transformers' BartForCausalLM does not find the embedding in such a checkpoint.)
    theirs = transformers.BartModel.from_pretrained(parts / decoder).decoder.state_dict()
    for name, tensor in model.decoder.get_decoder().state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.generation_config.forced_eos_token_id == 2
    assert model.generate(wave(), max_length=5)[0, -1] == 2


def test_arguments_with_a_prefix_go_to_their_part(parts):
    load = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained
    model = load(
        parts / "base",
        parts / "decoder",
        encoder_hidden_dropout=0.35,
        encoder_dtype="float16",
        decoder_hidden_dropout_prob=0.25,
        decoder_dtype=torch.float16,
        decoder_start_token_id=3,
        pad_token_id=0,
        output_attentions=True,
    )
    output = model(wave().half(), decoder_input_ids=TOKENS)
    assert len(output.encoder_attentions) == len(output.cross_attentions) == 2
    assert output.decoder_hidden_states is None
    assert model.config.encoder.hidden_dropout == model.encoder.config.hidden_dropout == 0.35
    assert model.config.decoder.hidden_dropout_prob == 0.25
    assert (model.config.decoder_start_token_id, model.config.pad_token_id) == (3, 0)
    assert {model.encoder.dtype, model.decoder.dtype, model.enc_to_dec_proj.weight.dtype} == {torch.float16}
    encoder = model.float().encoder
    model = load(
        None,
        parts / "decoder",
        encoder_model=encoder,
        decoder_config=BertConfig(**BERT, **DECODER, layer_norm_eps=0.5),
    )
    assert model.encoder is encoder
    assert model.config.decoder.layer_norm_eps == 0.5
    with pytest.raises(TypeError, match="color: neither an argument here nor a field of Wav2Vec2Config"):
        load(parts / "base", parts / "decoder", encoder_color=3)
    with pytest.raises(
        ValueError, match="give the encoder: a checkpoint's name, or a model as encoder_model"
    ):
        load(None, parts / "decoder")
    with pytest.raises(
        ValueError, match="give the decoder: a checkpoint's name, or a model as decoder_model"
    ):
        load(parts / "base")
    with pytest.raises(ValueError, match="has model_type 'bert'; supported here: hubert"):
        load(parts / "bert", parts / "decoder")
    with pytest.raises(ValueError, match="has model_type 'wav2vec2'; supported here: bart, bert"):
        load(parts / "base", parts / "ctc")
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        load(parts / "nothing", parts / "decoder")


# Training


def test_freezing_the_feature_encoder_stops_its_gradients_alone():
    model = make(decoder_start_token_id=3, pad_token_id=0).train()
    model.freeze_feature_encoder()
    model(wave(), labels=TOKENS).loss.backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith("encoder.feature_extractor.")
        assert parameter.requires_grad is not frozen, name
    assert model.enc_to_dec_proj.weight.grad.any()
    assert model.decoder.bert.encoder.layer[0].crossattention.self.key.weight.grad.any()


def test_four_utterances_are_learned_by_heart_within_a_minute():
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = time.perf_counter()
    # Of so short recordings some have to be seen whole, or the model learns the masks.
    sizes = WAVE | {"mask_time_length": 2, "mask_time_min_masks": 0, "layerdrop": 0.0}
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        Wav2Vec2Config(**sizes), BertConfig(**BERT), decoder_start_token_id=1, pad_token_id=0, eos_token_id=2
    )
    model = SpeechEncoderDecoderModel(config).train()
    lengths = (1700, 2100, 1300, 2500)
    pitches = (110, 190, 310, 470)
    rows = [
        torch.sin(2 * torch.pi * pitch * torch.arange(length) / 16000) + 0.1 * torch.randn(length)
        for length, pitch in zip(lengths, pitches, strict=True)
    ]
    values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(length) for length in lengths], batch_first=True)
    labels = torch.tensor(
        [[7, 8, 9, 2, -100], [11, 8, 30, 31, 2], [20, 2, -100, -100, -100], [7, 40, 41, 2, -100]]
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(800):
        loss = model(input_values=values, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if max(losses[-20:]) < 0.05:
            break
    took = time.perf_counter() - start
    torch.set_num_threads(threads)
    assert losses[0] > 2
    assert max(losses[-20:]) < 0.05, losses[-20:]
    assert took < 60
    model.eval()
    decoded = model.generate(values, attention_mask=mask, max_length=7, decoder_start_token_id=1)
    for row, wanted in zip(decoded.tolist(), labels.tolist(), strict=True):
        wanted = [token for token in wanted if token >= 0]
        assert row[1 : 1 + len(wanted)] == wanted
