"""SpeechEncoderDecoder called and trained."""

import time

import pytest
import torch
from encoder_decoders import GPT2, TOKENS, WAVE, join, make, wave
from loops import finish
from waveform_encoders import padded

import tritone
from tritone import GPT2Config, SpeechEncoderDecoderModel, Wav2Vec2Config
from tritone.models.speech_to_text.encoder import Speech2TextEncoder
from tritone.scheduler.request import Request


def test_the_input_has_three_names_and_comes_under_one():
    model = make()
    first = model(wave(), decoder_input_ids=TOKENS).logits
    assert torch.equal(first, model(input_values=wave(), decoder_input_ids=TOKENS).logits)
    assert torch.equal(first, model(inputs=wave(), decoder_input_ids=TOKENS).logits)
    with pytest.raises(ValueError, match="input_values and input_features are given at the same time"):
        model(input_values=wave(), input_features=wave(), decoder_input_ids=TOKENS)
    with pytest.raises(ValueError, match="inputs and input_values are given at the same time; give one"):
        model.generate(wave(), input_values=wave(), decoder_start_token_id=3)
    with pytest.raises(ValueError, match=r"input_values is missing; give waveforms .* or encoder_outputs"):
        model(decoder_input_ids=TOKENS)
    with pytest.raises(ValueError, match="give the features to decode, or the waveforms"):
        model.generate(decoder_start_token_id=3)
    with pytest.raises(ValueError, match=r"input_values must be \[batch, samples\], got \[1, 20, 80\]"):
        model.generate(input_features=torch.randn(1, 20, 80), decoder_start_token_id=3)
    with pytest.raises(ValueError, match=r"attention_mask is \[1, 5\], input_values \[1, 1700\]"):
        model.generate(wave(), attention_mask=torch.ones(1, 5), decoder_start_token_id=3)


def test_a_speech2text_encoder_takes_features():
    spectrum = tritone.Speech2TextConfig(
        d_model=24, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=20, input_feat_per_channel=7
    )
    config = join(spectrum, GPT2Config(**GPT2))
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


def test_a_padded_batch_goes_on_without_the_encoder_as_each_row_does():
    model = make()
    values, mask = padded([wave(1700)[0], wave(900)[0]])
    tokens = TOKENS.expand(2, -1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)  # so that keys of padding would be noticed
        whole = model(values, mask, tokens).logits[:, 2:]
        past = model(values, mask, tokens[:, :2], use_cache=True).past_key_values
        later = model(attention_mask=mask, decoder_input_ids=tokens[:, 2:], past_key_values=past).logits
    torch.testing.assert_close(later, whole, atol=1e-5, rtol=0)


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
    extractor = tritone.Wav2Vec2FeatureExtractor()
    raw = [wave(samples)[0] * 0.1 for samples in (1700, 900, 2400)]
    loop = model.generation_loop(extractor, num_pages=64, num_rows=8)
    options = model.resolve_options(max_length=9, num_beams=2)
    for index, waveform in enumerate(raw):
        loop.submit(Request(index, waveform, options))
    done = finish(loop)
    for index, waveform in enumerate(raw):
        inputs = extractor(waveform, sampling_rate=16000, return_tensors="pt")
        alone = model.generate(inputs.input_values, max_length=9, num_beams=2)
        assert list(done[index].hypotheses[0].token_ids) == alone[0].tolist()


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
    start = time.perf_counter()
    # Of so short recordings some have to be seen whole, or the model learns the masks.
    sizes = WAVE | {"mask_time_length": 2, "mask_time_min_masks": 0, "layerdrop": 0.0}
    config = join(Wav2Vec2Config(**sizes), decoder_start_token_id=1, pad_token_id=0, eos_token_id=2)
    model = SpeechEncoderDecoderModel(config).train()
    lengths = (1700, 2100, 1300, 2500)
    pitches = (110, 190, 310, 470)
    rows = [
        torch.sin(2 * torch.pi * pitch * torch.arange(length) / 16000) + 0.1 * torch.randn(length)
        for length, pitch in zip(lengths, pitches, strict=True)
    ]
    values, mask = padded(rows)
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
    assert losses[0] > 2
    assert max(losses[-20:]) < 0.05, losses[-20:]
    assert took < 60
    model.eval()
    decoded = model.generate(values, attention_mask=mask, max_length=7, decoder_start_token_id=1)
    for row, wanted in zip(decoded.tolist(), labels.tolist(), strict=True):
        wanted = [token for token in wanted if token >= 0]
        assert row[1 : 1 + len(wanted)] == wanted
