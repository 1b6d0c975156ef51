"""BERT, RoBERTa, GPT-2, BART and MBart beside an encoder, against transformers at batch size 1."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import (
    STATES,
    assert_close,
    assert_fields_close,
    assert_gradients_close,
    pad_rows,
    without_chance,
)
from transformers import DynamicCache, EncoderDecoderCache

EVERYTHING = STATES | {"use_cache": True}


@torch.inference_mode()
def test_every_field_agrees_by_name_and_as_a_tuple(decoder: Any) -> None:
    tokens, encoded = decoder.tokens(padding=True), decoder.encoded(13)
    labels = tokens.masked_fill(torch.arange(9) % 4 == 1, -100)
    for given in (EVERYTHING, EVERYTHING | {"labels": labels}):
        given = {"input_ids": tokens, "encoder_hidden_states": encoded, **given}
        wanted, output = decoder.theirs(**given), decoder.ours(**given)
        assert {"hidden_states", "attentions", "cross_attentions"} < set(wanted)
        assert "past_key_values" in wanted or "labels" in given
        assert_fields_close(output, wanted)
        plain = decoder.ours(**given, return_dict=False)
        assert type(plain) is tuple
        assert_close(plain, decoder.theirs(**given, return_dict=False))
    assert len(output.hidden_states) == len(output.attentions) + 1
    last = decoder.ours(tokens, encoder_hidden_states=encoded, logits_to_keep=2).logits
    assert torch.equal(last, output.logits[:, -2:])


@torch.inference_mode()
def test_an_encoders_mask_may_have_holes(decoder: Any) -> None:
    given = {
        "input_ids": decoder.tokens(padding=True),
        "encoder_hidden_states": decoder.encoded(),
        "encoder_attention_mask": torch.tensor([[1, 1, 0, 1, 1, 0]]),
        **EVERYTHING,
    }
    wanted, output = decoder.theirs(**given), decoder.ours(**given)
    assert output.keys() == list(wanted.keys())
    for name in set(wanted) - {"past_key_values", "cross_attentions"}:
        assert_close(output[name], wanted[name])
    # Ours are zero where there is no encoder token.
    there = [0, 1, 3, 4]
    for ours, theirs in zip(output.cross_attentions, wanted.cross_attentions, strict=True):
        assert_close(ours[..., there], theirs[..., there])
        assert not ours[..., [2, 5]].any()


@torch.inference_mode()
def test_without_an_encoder_cross_attention_is_left_out(decoder: Any) -> None:
    tokens = decoder.tokens(padding=True)
    wanted, output = decoder.theirs(tokens, **EVERYTHING), decoder.ours(tokens, **EVERYTHING)
    assert_fields_close(output, wanted)
    assert {len(layer) for layer in output.past_key_values} == {2}
    beside = decoder.ours(tokens, encoder_hidden_states=decoder.encoded()).logits
    assert (beside - output.logits).abs().max() > 0.1
    tokens = decoder.tokens()
    wanted = decoder.theirs(tokens)
    past = decoder.ours(tokens[:, :5]).past_key_values
    assert_close(decoder.ours(tokens[:, 5:], past_key_values=past).logits, wanted.logits[:, 5:])
    extended = DynamicCache()
    for part in (tokens[:, :5], tokens[:, 5:]):
        output = decoder.ours(part, past_key_values=extended)
    assert output.past_key_values is extended
    assert_close(output.logits, wanted.logits[:, 5:])
    assert_close(tuple((layer.keys, layer.values) for layer in extended.layers), wanted.past_key_values)


@torch.inference_mode()
def test_decoding_token_by_token_agrees_however_the_past_is_carried(decoder: Any) -> None:
    tokens, encoded = decoder.tokens(padding=True), decoder.encoded()
    whole = decoder.ours(tokens, encoder_hidden_states=encoded).logits
    theirs = EncoderDecoderCache(DynamicCache(), DynamicCache())
    extended = EncoderDecoderCache(DynamicCache(), DynamicCache())
    past: Any = None
    for start, end in pairwise((0, 1, 2, 4, 5, 9)):
        given = {"input_ids": tokens[:, start:end], "encoder_hidden_states": encoded}
        wanted = decoder.theirs(**given, past_key_values=theirs, use_cache=True)
        output = decoder.ours(**given, past_key_values=past, output_attentions=True)
        assert_close(output.logits, wanted.logits)
        assert_close(output.past_key_values, theirs)
        assert output.attentions[0].shape[2:] == (end - start, end)
        assert output.past_key_values.get_seq_length() == end
        # RoBERTa counts a padding token that lies in the cache, and none that it reads in the same call.
        if decoder.family != "roberta" or end <= 4:
            assert_close(output.logits, whole[:, start:end])
        # With the encoder's keys in the past its output need not be given again.
        if start:
            del given["encoder_hidden_states"]
        mine = decoder.ours(**given, past_key_values=extended, use_cache=False)
        assert mine.past_key_values is extended
        assert torch.equal(mine.logits, output.logits)
        past = tuple(tuple(layer) for layer in output.past_key_values)
    assert_close(past, extended)


@torch.inference_mode()
def test_embeddings_stand_for_the_tokens_that_they_are_of(decoder: Any) -> None:
    tokens = decoder.tokens()
    scale = decoder.config.d_model**0.5 if getattr(decoder.config, "scale_embedding", False) else 1.0
    embedded = decoder.ours.get_input_embeddings()(tokens) * scale
    given = {"encoder_hidden_states": decoder.encoded(), "labels": tokens}
    wanted = decoder.theirs(inputs_embeds=embedded, **given)
    output = decoder.ours(inputs_embeds=embedded, **given)
    assert_close((output.loss, output.logits), (wanted.loss, wanted.logits))
    assert_close(output.logits, decoder.ours(tokens, **given).logits)


@torch.inference_mode()
def test_a_row_of_a_padded_batch_equals_the_row_alone(decoder: Any) -> None:
    lengths, sources = (7, 1, 10, 3, 9, 2, 8, 5), (4, 11, 1, 6, 3, 17, 8, 2)
    rows = [decoder.tokens(length)[0] for length in lengths]
    encoded, source_mask = pad_rows([decoder.encoded(count)[0] for count in sources], 2.0, "right")
    padded = [pad_rows(rows, 0, side) for side in ("right", "left")]
    tokens, mask = (
        torch.stack([parts[row % 2][row] for row in range(8)]) for parts in zip(*padded, strict=True)
    )
    output = decoder.ours(
        tokens, attention_mask=mask, encoder_hidden_states=encoded, encoder_attention_mask=source_mask
    )
    for row, (length, source) in enumerate(zip(lengths, sources, strict=True)):
        alone = decoder.ours(decoder.tokens(length), encoder_hidden_states=decoder.encoded(source)).logits
        assert torch.equal(output.logits[row][mask[row].bool()], alone[0])


@pytest.mark.parametrize("side", ["right", "left"])
@torch.inference_mode()
def test_each_row_of_a_padded_batch_agrees_in_every_field(decoder: Any, side: str) -> None:
    lengths, sources = (4, 9, 1, 6), (3, 8, 5, 1)
    rows = [decoder.tokens(length) for length in lengths]
    ids, mask = pad_rows([tokens[0] for tokens in rows], 2, side)
    # Padding that is not a number shows where it is read.
    encoded, source_mask = pad_rows([decoder.encoded(source)[0] for source in sources], float("nan"), "right")
    given = {"encoder_hidden_states": encoded, "encoder_attention_mask": source_mask}
    output = decoder.ours(ids, attention_mask=mask, **given, **EVERYTHING)
    for row, (tokens, source) in enumerate(zip(rows, sources, strict=True)):
        wanted = decoder.theirs(tokens, encoder_hidden_states=decoder.encoded(source), **EVERYTHING)
        there = mask[row].bool()
        assert_close(output.logits[row, there], wanted.logits[0])
        for layer, own in enumerate(wanted.attentions):
            assert_close(output.hidden_states[layer + 1][row, there], wanted.hidden_states[layer + 1][0])
            assert_close(output.attentions[layer][row][:, there][:, :, there], own[0])
            cross = output.cross_attentions[layer][row][:, there, :source]
            assert_close(cross, wanted.cross_attentions[layer][0])
        if side == "right" and tokens.shape[1] < 9:
            token = torch.tensor([[9]])
            ahead = decoder.ours(
                token.expand(4, 1),
                attention_mask=torch.cat([mask, torch.ones(4, 1)], dim=1),
                encoder_attention_mask=source_mask,
                past_key_values=output.past_key_values,
            )
            past = wanted.past_key_values
            wanted = decoder.theirs(
                token, encoder_hidden_states=decoder.encoded(source), past_key_values=past
            )
            assert_close(ahead.logits[row], wanted.logits[0])


def test_losses_and_every_gradient_agree_in_training_without_dropout(decoder: Any) -> None:
    models = decoder.load(**without_chance(type(decoder.config)))
    tokens = decoder.tokens(padding=True)
    labels = tokens.masked_fill(torch.arange(9) == 6, -100)
    leaves = [decoder.encoded().requires_grad_() for _ in models]
    losses = []
    for model, leaf in zip(models, leaves, strict=True):
        losses.append(model.train()(tokens, encoder_hidden_states=leaf, labels=labels).loss)
        losses[-1].backward()
    assert_close(*losses)
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-3, atol=1e-4)
    assert_gradients_close(*models)


def test_what_is_saved_is_read_by_transformers(decoder: Any, tmp_path: Path) -> None:
    decoder.ours.save_pretrained(tmp_path)
    theirs, report = type(decoder.theirs).from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    given = {"input_ids": decoder.tokens(), "encoder_hidden_states": decoder.encoded()}
    with torch.inference_mode():
        assert torch.equal(theirs.eval()(**given).logits, decoder.theirs(**given).logits)
    assert theirs.config.is_decoder
    assert not theirs.config.is_encoder_decoder
    wanted = decoder.config.to_dict() | {"_name_or_path": theirs.config._name_or_path}
    assert theirs.config.to_dict().items() >= wanted.items()
    again = type(decoder.ours).from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in decoder.ours.state_dict().items())
