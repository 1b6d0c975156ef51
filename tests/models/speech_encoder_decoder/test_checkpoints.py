"""Checkpoints of SpeechEncoderDecoder, of the whole and of its parts."""

import warnings
from pathlib import Path

import pytest
import torch
import transformers
from encoder_decoders import BART, BERT, DECODER, GPT2, TOKENS, WAVE, make, wave

import tritone
from tritone import BertConfig, SpeechEncoderDecoderConfig, SpeechEncoderDecoderModel


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
    assert type(model.encoder) is tritone.Wav2Vec2Model
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
    assert type(model.decoder) is tritone.BartForCausalLM
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
