"""`forward` as a program written for transformers calls it, against transformers at batch size 1."""

from pathlib import Path
from typing import Any

import pytest
import torch
from parity import STATES, assert_close, assert_fields_close, assert_gradients_close, pad_rows
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput as TheirEncoderOutput

EVERYTHING = STATES | {"use_cache": True}
SOME = pytest.mark.parametrize("pair", ["two-convs", "odd-width-pad-5"], indirect=True)


@pytest.fixture
def target(pair: Any) -> Tensor:
    """Decoder tokens [1, 9], two of them the padding token."""
    config = pair.theirs.config
    tokens = torch.randint(config.vocab_size, (1, 9), generator=torch.Generator().manual_seed(7))
    tokens[0, 0] = config.decoder_start_token_id
    tokens[0, [4, 5]] = config.pad_token_id
    return tokens


def embedded(pair: Any, tokens: Tensor) -> Tensor:
    scale = pair.ours.config.d_model**0.5 if pair.ours.config.scale_embedding else 1.0
    return pair.ours.get_input_embeddings()(tokens) * scale


@torch.inference_mode()
def test_every_field_agrees_by_name_and_as_a_tuple(pair: Any, target: Tensor) -> None:
    features = pair.features(33)
    given = {"decoder_input_ids": target, "labels": target, **EVERYTHING}
    wanted, output = pair.theirs(features, **given), pair.ours(features, **given)
    assert len(wanted.encoder_hidden_states) == pair.theirs.config.encoder_layers + 1
    assert_fields_close(output, wanted)
    as_tuple = pair.ours(features, **given, return_dict=False)
    assert type(as_tuple) is tuple
    assert_close(as_tuple, pair.theirs(features, **given, return_dict=False))


@SOME
@torch.inference_mode()
def test_the_model_without_a_head_agrees_and_takes_its_arguments_in_the_documented_order(
    pair: Any, target: Tensor
) -> None:
    features, nothing = pair.features(33), (None,) * 6
    first = (features, torch.ones(1, 33, dtype=torch.int64), target, torch.ones(1, 9, dtype=torch.int64))
    wanted = pair.theirs.model(*first, **EVERYTHING, return_dict=False)
    assert_close(pair.ours.model(*first, *nothing, True, True, True, False), wanted)
    # With the loss after the embeddings, as the head's signature has it.
    wanted = pair.theirs(features, decoder_input_ids=target, labels=target, return_dict=False)
    assert_close(pair.ours(features, None, target, None, *nothing, target, None, None, None, False), wanted)


@SOME
@torch.inference_mode()
def test_what_is_left_out_is_the_configurations(pair: Any, target: Tensor) -> None:
    ours = type(pair.ours).from_pretrained(
        pair.folder, use_cache=False, output_attentions=True, output_hidden_states=True
    )
    features = pair.features(16)
    output = ours(features, decoder_input_ids=target)
    assert output.past_key_values is None
    assert output.encoder_attentions
    assert output.decoder_hidden_states
    ours.config.return_dict = False
    assert isinstance(ours(features, decoder_input_ids=target), tuple)
    plain = pair.ours(features, decoder_input_ids=target)
    assert plain.keys() == list(pair.theirs(features, decoder_input_ids=target).keys())
    assert torch.equal(plain.logits, output.logits)  # whatever else was asked for


@SOME
@torch.inference_mode()
def test_encoder_and_decoder_are_called_as_there(pair: Any, target: Tensor) -> None:
    features, mask = pair.features(33), torch.ones(1, 33, dtype=torch.int64)
    given = {"attention_mask": mask, "output_attentions": True, "output_hidden_states": True}
    wanted = pair.theirs.get_encoder()(features, **given)
    assert_fields_close(pair.ours.get_encoder()(features, **given), wanted)
    given = {"input_ids": target, "encoder_hidden_states": wanted.last_hidden_state, **EVERYTHING}
    wanted = pair.theirs.get_decoder()(**given)
    output = pair.ours.get_decoder()(**given)
    for name in wanted:
        assert_close(output[name], wanted[name])


@SOME
@torch.inference_mode()
def test_encoder_outputs_come_as_a_tuple_or_as_either_librarys_object(pair: Any, target: Tensor) -> None:
    features = pair.features(33)
    theirs = pair.theirs.get_encoder()(features, output_hidden_states=True, output_attentions=True)
    ours = pair.ours.get_encoder()(features, output_hidden_states=True, output_attentions=True)
    wanted = pair.theirs(encoder_outputs=theirs, decoder_input_ids=target)
    assert isinstance(theirs, TheirEncoderOutput)
    for given in (theirs, theirs.to_tuple(), ours, ours.to_tuple()):
        output = pair.ours(encoder_outputs=given, decoder_input_ids=target)
        assert_close(output.to_tuple(), wanted.to_tuple())
    assert output.encoder_hidden_states is ours.hidden_states


@torch.inference_mode()
def test_decoding_token_by_token_agrees_however_the_past_is_carried(pair: Any, target: Tensor) -> None:
    features = pair.features(33)
    encoder_outputs = pair.ours.get_encoder()(features)
    theirs = EncoderDecoderCache(DynamicCache(), DynamicCache())
    extended = EncoderDecoderCache(DynamicCache(), DynamicCache())
    past = None
    for start, end in ((0, 1), (1, 2), (2, 6), (6, 9)):
        tokens = target[:, start:end]
        wanted = pair.theirs(
            features, decoder_input_ids=tokens, past_key_values=theirs, output_attentions=True
        )
        output = pair.ours(
            encoder_outputs=encoder_outputs,
            decoder_input_ids=tokens,
            past_key_values=past,
            output_attentions=True,
        )
        assert output.past_key_values.get_seq_length() == end
        assert_close(output.logits, wanted.logits)
        assert_close(output.decoder_attentions, wanted.decoder_attentions)
        assert_close(output.past_key_values, wanted.past_key_values)
        # Their cache is extended where it lies; one with the encoder's keys needs no encoder.
        given = {"encoder_outputs": encoder_outputs} if start == 0 else {}
        mine = pair.ours(decoder_input_ids=tokens, past_key_values=extended, use_cache=False, **given)
        assert mine.past_key_values is extended
        assert torch.equal(mine.logits, output.logits)
        past = tuple(tuple(layer) for layer in output.past_key_values)
    assert_close(past, extended)
    last = pair.theirs(features, decoder_input_ids=target[:, :1], past_key_values=EncoderDecoderCache(past))
    assert_close(pair.ours(decoder_input_ids=target[:, :1], past_key_values=past).logits, last.logits)


@SOME
@torch.inference_mode()
def test_embeddings_stand_for_the_tokens_that_they_are_of(pair: Any, target: Tensor) -> None:
    # transformers documents the argument and fails on it: it has no tokens to take positions from.
    features, tokens = pair.features(33), target[:, :4]
    wanted = pair.theirs(features, decoder_input_ids=tokens)
    output = pair.ours(features, decoder_inputs_embeds=embedded(pair, tokens), labels=tokens)
    assert_close(output.logits, wanted.logits)
    past = pair.ours(features, decoder_input_ids=tokens[:, :3]).past_key_values
    output = pair.ours(decoder_inputs_embeds=embedded(pair, tokens[:, 3:]), past_key_values=past)
    assert_close(output.logits, wanted.logits[:, 3:])


@SOME
@pytest.mark.parametrize("side", ["right", "left"])
@torch.inference_mode()
def test_each_row_of_a_padded_batch_agrees_with_the_row_alone_in_every_field(
    pair: Any, target: Tensor, side: str
) -> None:
    frames, tokens = (16, 97, 50), (4, 9, 6)
    features, mask = pad_rows([pair.features(count)[0] for count in frames], 9.0, "right")
    rows = [target[0, :length] for length in tokens]
    ids, target_mask = pad_rows(rows, pair.ours.config.pad_token_id, side)
    output = pair.ours(
        features, mask, decoder_input_ids=ids, decoder_attention_mask=target_mask, **EVERYTHING
    )
    for row, (count, length) in enumerate(zip(frames, tokens, strict=True)):
        wanted = pair.theirs(pair.features(count), decoder_input_ids=target[:, :length], **EVERYTHING)
        there = target_mask[row].bool()
        source = slice(0, wanted.encoder_last_hidden_state.shape[1])
        assert_close(output.logits[row, there], wanted.logits[0])
        assert_close(output.encoder_last_hidden_state[row, source], wanted.encoder_last_hidden_state[0])
        assert not output.encoder_last_hidden_state[row, source.stop :].any()
        for ours, theirs in zip(output.decoder_hidden_states, wanted.decoder_hidden_states, strict=True):
            assert_close(ours[row, there], theirs[0])
        for layer, ours in enumerate(output.decoder_attentions):
            assert_close(ours[row][:, there][:, :, there], wanted.decoder_attentions[layer][0])
            assert not ours[row][:, ~there].any()
            cross = output.cross_attentions[layer][row][:, there, source]
            assert_close(cross, wanted.cross_attentions[layer][0])
        cached = wanted.past_key_values
        for layer, ours in enumerate(output.past_key_values):
            own, cross = cached.self_attention_cache.layers[layer], cached.cross_attention_cache.layers[layer]
            for index, theirs in enumerate((own.keys, own.values, cross.keys, cross.values)):
                assert_close(ours[index][row][:, there if index < 2 else source], theirs[0])
        # The next token goes on from where the row's tokens end.
        wanted = pair.theirs(pair.features(count), decoder_input_ids=target[:, :1], past_key_values=cached)
        ahead = pair.ours(
            attention_mask=mask,
            decoder_input_ids=target[:, :1].expand(3, 1),
            decoder_attention_mask=torch.cat([target_mask, torch.ones(3, 1)], dim=1),
            past_key_values=output.past_key_values,
        )
        assert_close(ahead.logits[row], wanted.logits[0])


def test_losses_and_every_gradient_agree_in_training_without_dropout(pair: Any, target: Tensor) -> None:
    ours = type(pair.ours).from_pretrained(pair.folder, dropout=0.0).train()
    theirs = type(pair.theirs).from_pretrained(pair.folder, dropout=0.0).train()
    labels = target.clone()
    labels[0, 6] = -100
    features = pair.features(33)
    losses = [model(features, labels=labels).loss for model in (ours, theirs)]
    assert_close(*losses)
    for loss in losses:
        loss.backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())
    assert_gradients_close(ours, theirs, atol=1e-5)


@SOME
def test_the_gradient_of_the_inputs_agrees(pair: Any, target: Tensor) -> None:
    leaves = [pair.features(33).requires_grad_() for _ in range(2)]
    for model, leaf in zip((pair.ours, pair.theirs), leaves, strict=True):
        output = model(leaf, decoder_input_ids=target, labels=target, **EVERYTHING)
        spread = sum(
            tensor.square().sum() for tensor in (*output.cross_attentions, *output.encoder_hidden_states)
        )
        torch.autograd.backward(output.loss + spread, inputs=[leaf])
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-3, atol=1e-3)


@SOME
@torch.inference_mode()
def test_layer_drop_of_one_skips_every_layer(pair: Any, target: Tensor) -> None:
    given = {"dropout": 0.0, "encoder_layerdrop": 1.0, "decoder_layerdrop": 1.0}
    ours = type(pair.ours).from_pretrained(pair.folder, **given)
    features = pair.features(33)
    assert_close(
        ours(features, decoder_input_ids=target).logits,
        pair.theirs(features, decoder_input_ids=target).logits,
    )
    theirs = type(pair.theirs).from_pretrained(pair.folder, **given).train()
    output = ours.train()(features, decoder_input_ids=target, **EVERYTHING)
    wanted = theirs(features, decoder_input_ids=target, use_cache=False)
    assert_close(output.logits, wanted.logits)
    assert_close(output.encoder_last_hidden_state, wanted.encoder_last_hidden_state)
    assert output.decoder_attentions == ()
    assert output.past_key_values is None


@pytest.mark.parametrize("pair", ["two-convs", "six-decoder-layers-tied"], indirect=True)
@pytest.mark.parametrize(("tokens", "multiple"), [(300, None), (40, None), (41, 16), (None, 64)])
@torch.inference_mode()
def test_resizing_the_vocabulary_agrees(pair: Any, tokens: int | None, multiple: int | None) -> None:
    ours = type(pair.ours).from_pretrained(pair.folder)
    theirs = type(pair.theirs).from_pretrained(pair.folder)
    returned = ours.resize_token_embeddings(tokens, pad_to_multiple_of=multiple)
    wanted = theirs.resize_token_embeddings(tokens, pad_to_multiple_of=multiple)
    assert returned is ours.get_input_embeddings()
    assert returned.weight.shape == wanted.weight.shape
    assert returned.num_embeddings == ours.lm_head.out_features == ours.config.vocab_size
    assert ours.config.vocab_size == theirs.config.vocab_size
    assert (ours.lm_head.weight is returned.weight) == ours.config.tie_word_embeddings
    # transformers draws new rows around the mean, with a thirty-thousandth of the old rows' deviation.
    torch.testing.assert_close(returned.weight, wanted.weight, rtol=0, atol=1e-3)
    torch.testing.assert_close(ours.lm_head.weight, theirs.lm_head.weight, rtol=0, atol=1e-3)
    ids = torch.tensor([[2, 39, 7]])
    features = pair.features(33)
    wanted = theirs(features, decoder_input_ids=ids).logits
    torch.testing.assert_close(ours(features, decoder_input_ids=ids).logits, wanted, rtol=0, atol=1e-2)
    for name in ("only_trainable", "exclude_embeddings"):
        assert ours.num_parameters(**{name: True}) == theirs.num_parameters(**{name: True})


def test_a_resized_model_is_read_by_transformers(pair_of: Any, tmp_path: Path) -> None:
    pair = pair_of("six-decoder-layers-tied")
    ours = type(pair.ours).from_pretrained(pair.folder)
    ours.resize_token_embeddings(70)
    ours.save_pretrained(tmp_path)
    theirs = type(pair.theirs).from_pretrained(tmp_path)
    assert torch.equal(theirs.lm_head.weight, ours.lm_head.weight)
    assert type(pair.ours).from_pretrained(tmp_path).config.vocab_size == 70


def test_parameters_are_counted_as_there(pair: Any) -> None:
    for ours, theirs in ((pair.ours, pair.theirs), (pair.ours.model, pair.theirs.model)):
        assert ours.num_parameters() == theirs.num_parameters()
        assert ours.num_parameters(exclude_embeddings=True) == theirs.num_parameters(exclude_embeddings=True)


def test_embeddings_can_be_got_and_replaced_and_tied_again(pair_of: Any) -> None:
    pair = pair_of("six-decoder-layers-tied")
    ours = type(pair.ours).from_pretrained(pair.folder)
    other = torch.nn.Embedding(64, 44, padding_idx=1)
    ours.set_input_embeddings(other)
    assert ours.get_input_embeddings() is ours.model.get_input_embeddings() is other
    assert ours.get_output_embeddings().weight is not other.weight
    ours.tie_weights()
    assert ours.get_output_embeddings().weight is other.weight
    head = torch.nn.Linear(44, 64, bias=False)
    ours.set_output_embeddings(head)
    assert ours.lm_head is head
    assert ours.model.get_output_embeddings() is None
