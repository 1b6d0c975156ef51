"""SpeechEncoderDecoder's configuration, and parts that fit or do not."""

import json

import pytest
import torch
import transformers
from encoder_decoders import BERT, GPT2, TOKENS, WAVE, join, make, make_config, make_parts, wave

import tritone
from tritone import (
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    Wav2Vec2Config,
)


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
        (
            {"encoder": {"model_type": "dove"}},
            "the encoder has model_type 'dove'; .* one of hubert, ",
        ),
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


def test_the_projection_is_there_where_widths_differ():
    assert make().enc_to_dec_proj.weight.shape == (20, 24)
    config = join(Wav2Vec2Config(**WAVE), GPT2Config(**GPT2))
    assert SpeechEncoderDecoderModel(config).enc_to_dec_proj is None


def test_a_model_is_made_of_an_encoder_and_a_decoder():
    encoder, decoder = make_parts()
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
    encoder, decoder = make_parts()
    config = make_config()
    config.encoder.layerdrop = 0.7
    with pytest.warns(UserWarning, match=r"the encoder's own configuration is replaced by config\.encoder"):
        model = SpeechEncoderDecoderModel(config, encoder, decoder)
    assert model.encoder.config.layerdrop == 0.7


def test_parts_that_do_not_fit_are_refused():
    encoder, decoder = make_parts()
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
        SpeechEncoderDecoderModel(make_config(), tritone.Wav2Vec2ForCTC(Wav2Vec2Config(**WAVE)), decoder)
    with pytest.raises(ValueError, match=r"the encoder is torch\.float16 on cpu, the decoder torch\.float32"):
        SpeechEncoderDecoderModel(make_config(), encoder.half(), decoder)


@pytest.mark.parametrize("lacking", [{}, {"is_decoder": True}, {"add_cross_attention": False}], ids=str)
def test_a_decoder_without_cross_attention_is_refused(lacking):
    encoder = tritone.Wav2Vec2Model(Wav2Vec2Config(**WAVE))
    problem = "the decoder, a BertLMHeadModel, was made without cross-attention; set is_decoder=True"
    with pytest.raises(ValueError, match=problem):
        SpeechEncoderDecoderModel(encoder=encoder, decoder=BertLMHeadModel(BertConfig(**BERT, **lacking)))
    config = make_config().to_dict()
    config["decoder"] |= {"is_decoder": False, "add_cross_attention": False, **lacking}
    with pytest.raises(ValueError, match=problem):
        SpeechEncoderDecoderModel(SpeechEncoderDecoderConfig.from_dict(config))
    gpt2 = tritone.GPT2LMHeadModel(GPT2Config(**GPT2))
    with pytest.raises(ValueError, match="the decoder, a GPT2LMHeadModel, was made without cross-attention"):
        SpeechEncoderDecoderModel(encoder=encoder, decoder=gpt2)


def test_vocabularies_that_differ_are_refused():
    encoder, decoder = make_parts()
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
    config = join(Wav2Vec2Config(**WAVE, **encoder), BertConfig(**BERT, **decoder))
    with pytest.raises(ValueError, match=problem):
        SpeechEncoderDecoderModel(config)


def test_an_adapter_of_the_decoders_width_needs_no_projection():
    config = join(Wav2Vec2Config(**WAVE, add_adapter=True, output_hidden_size=20))
    model = SpeechEncoderDecoderModel(config).eval()
    assert model.enc_to_dec_proj is None
    assert model(wave(5000), decoder_input_ids=TOKENS).logits.shape == (1, 4, 53)
