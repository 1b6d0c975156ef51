"""Speech2Text's `forward`: batches, training, caches for a next call, generation, and refused inputs."""

from typing import Any

import pytest
import torch
from factories import add_noise
from torch import Tensor
from training import train

from tritone.kernels.runtime.packing import cumulative
from tritone.models.core.attention import StackAttention, interleaved
from tritone.models.core.outputs import BaseModelOutput
from tritone.models.core.past_key_values import KeyValues
from tritone.models.speech_to_text.model import (
    Speech2TextConfig,
    Speech2TextForConditionalGeneration,
    Speech2TextModel,
)

SIZES = {
    "vocab_size": 29,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 18,
    "conv_channels": 12,
    "conv_kernel_sizes": (5, 3),
    "input_feat_per_channel": 7,
    "max_source_positions": 40,
    "max_target_positions": 12,
}
FRAMES, TOKENS = (50, 9, 1, 33), (4, 8, 1, 6)


def build(**fields: Any) -> Speech2TextForConditionalGeneration:
    """A model in evaluation mode with weights at which everything matters; no dropout unless asked for."""
    torch.manual_seed(0)
    model = Speech2TextForConditionalGeneration(Speech2TextConfig(**{**SIZES, "dropout": 0.0, **fields}))
    return add_noise(model, 0.3)


@pytest.fixture(scope="module")
def model() -> Speech2TextForConditionalGeneration:
    return build()


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    """Four recordings and transcripts of unlike lengths, padded with numbers that must not be read."""
    draw = torch.Generator().manual_seed(5)
    features = torch.randn(4, max(FRAMES), 7, generator=draw)
    mask = torch.arange(max(FRAMES))[None] < torch.tensor(FRAMES)[:, None]
    return {
        "input_features": features.masked_fill(~mask[..., None], float("nan")),
        "attention_mask": mask.long(),
        "decoder_input_ids": torch.randint(2, 29, (4, max(TOKENS)), generator=draw),
        "decoder_attention_mask": (torch.arange(max(TOKENS))[None] < torch.tensor(TOKENS)[:, None]).long(),
    }


@pytest.fixture(scope="module")
def masks() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(6)
    return {
        "head_mask": torch.rand(2, 3, generator=draw),
        "decoder_head_mask": torch.rand(3, 2, generator=draw),
        "cross_attn_head_mask": torch.rand(3, 2, generator=draw),
    }


def row_of(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """One recording and its transcript, without padding."""
    frames, tokens = FRAMES[row], TOKENS[row]
    return {
        "input_features": batch["input_features"][row : row + 1, :frames],
        "decoder_input_ids": batch["decoder_input_ids"][row : row + 1, :tokens],
    }


@torch.inference_mode()
def test_a_row_of_a_batch_has_the_bits_of_the_row_alone_in_every_field(
    model: Any, batch: Any, masks: Any
) -> None:
    asked = {"output_attentions": True, "output_hidden_states": True, **masks}
    together = model(**batch, **asked)
    for row in range(4):
        alone = model(**row_of(batch, row), **asked)
        source, target = alone.encoder_last_hidden_state.shape[1], TOKENS[row]
        assert torch.equal(together.logits[row, :target], alone.logits[0])
        assert torch.equal(
            together.encoder_last_hidden_state[row, :source], alone.encoder_last_hidden_state[0]
        )
        for name, rows, columns in (
            ("encoder_hidden_states", source, None),
            ("decoder_hidden_states", target, None),
            ("encoder_attentions", source, source),
            ("decoder_attentions", target, target),
            ("cross_attentions", target, source),
        ):
            for ours, wanted in zip(together[name], alone[name], strict=True):
                there = ours[row, :rows] if columns is None else ours[row, :, :rows, :columns]
                assert torch.equal(there, wanted[0]), name
                assert int(ours[row].count_nonzero()) == int(there.count_nonzero()), name
        for ours, wanted in zip(together.past_key_values, alone.past_key_values, strict=True):
            for index, tensor in enumerate(wanted):
                assert torch.equal(ours[index][row, :, : (target if index < 2 else source)], tensor[0])


@torch.inference_mode()
def test_a_row_goes_on_in_a_batch_as_it_does_alone(model: Any, batch: Any, masks: Any) -> None:
    masks = {name: mask for name, mask in masks.items() if name != "head_mask"}  # the encoder runs once
    past = model(**batch, **masks).past_key_values
    token = torch.tensor([[3], [4], [5], [6]])
    ahead = model(
        attention_mask=batch["attention_mask"],
        decoder_input_ids=token,
        decoder_attention_mask=torch.cat([batch["decoder_attention_mask"], torch.ones(4, 1)], dim=1),
        past_key_values=past,
        **masks,
    ).logits
    for row in range(4):
        given = row_of(batch, row)
        whole = torch.cat([given["decoder_input_ids"], token[row : row + 1]], dim=1)
        wanted = model(given["input_features"], decoder_input_ids=whole, **masks).logits
        torch.testing.assert_close(ahead[row, 0], wanted[0, -1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["dropout", "attention_dropout", "activation_dropout"])
def test_each_dropout_draws_in_training_alone_and_as_the_seed_says(batch: Any, kind: str) -> None:
    model = build(**{kind: 0.4})
    encoded = model.get_encoder()(batch["input_features"], batch["attention_mask"])
    rest = {name: tensor for name, tensor in batch.items() if name != "input_features"}

    def draw(seed: int) -> tuple[Tensor, Tensor]:
        """Of the encoder alone, and of the decoder alone; at first tokens, which every row has."""
        torch.manual_seed(seed)
        given = batch["input_features"], batch["attention_mask"]
        hidden = model.get_encoder()(*given).last_hidden_state[:, 0]
        return hidden.detach(), model(**rest, encoder_outputs=encoded).logits[:, 0].detach()

    plain = draw(0)
    assert all(map(torch.equal, draw(1), plain))
    model.train()
    assert all(map(torch.equal, draw(3), draw(3)))
    for drawn, wanted in zip(map(torch.stack, zip(*map(draw, range(24)), strict=True)), plain, strict=True):
        spread = drawn.std(0)
        assert (spread.amax(-1) > 0.05).all()
        assert (drawn.mean(0) - wanted).abs().mean() < spread.mean()


def test_recorded_weights_are_those_that_the_output_was_made_with() -> None:
    draw = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(7, 2, 5, generator=draw) for _ in range(3))
    cu, mask = cumulative([3, 4]), torch.tensor([0.5, 2.0])
    attention = StackAttention(cu, cu, causal=True, dropout=0.5, head_mask=[mask], record=True)
    mixed = attention(0, query, key, value, 1.0)
    weights = attention.weights[0]
    for piece, weight, values in zip(mixed.split([3, 4]), weights, value.split([3, 4]), strict=True):
        torch.testing.assert_close(piece, torch.einsum("hqk,khd->qhd", weight, values))
    assert (weights[1].tril() == 0).sum() > 12 + 4  # more than what is causal


def test_layer_drop_skips_some_layers_in_training_and_none_after(batch: Any) -> None:
    model = build(encoder_layerdrop=0.5, decoder_layerdrop=0.5)
    asked = {"output_attentions": True, "output_hidden_states": True}
    assert len(model(**batch, **asked).decoder_attentions) == 3
    model.train()
    ran = set()
    for seed in range(12):
        torch.manual_seed(seed)
        output = model(**batch, **asked)
        layers = len(output.encoder_attentions), len(output.decoder_attentions)
        ran.add(layers)
        assert len(output.encoder_hidden_states) == layers[0] + 1
        assert len(output.decoder_hidden_states) == layers[1] + 1
        assert (output.past_key_values is None) == (layers[1] < 3)
    assert len(ran) > 3


def test_a_model_learns_what_it_is_shown(batch: Any) -> None:
    model = build(dropout=0.1, attention_dropout=0.1, activation_dropout=0.1).train()
    labels = batch["decoder_input_ids"].masked_fill(batch["decoder_attention_mask"] == 0, -100)
    given = {name: batch[name] for name in ("input_features", "attention_mask")}
    torch.manual_seed(0)
    losses = train(model.parameters(), lambda: model(**given, labels=labels).loss, steps=15, lr=0.01)
    assert losses[-1] < 0.5 * losses[0]
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_the_gradient_of_a_padded_batch_is_the_sum_of_its_rows_and_none_of_its_padding(batch: Any) -> None:
    model = build(tie_word_embeddings=False)
    features = batch["input_features"].clone().requires_grad_()
    logits = model(**{**batch, "input_features": features}).logits
    logits.square().sum().backward()
    together = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    for row in range(4):
        model(**row_of(batch, row)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        scale = float(parameter.grad.abs().max()) + 1.0
        torch.testing.assert_close(together[name] / scale, parameter.grad / scale, rtol=0, atol=1e-4)
    assert features.grad[batch["attention_mask"] == 1].abs().sum(-1).min() > 0
    assert not features.grad[batch["attention_mask"] == 0].any()


def test_the_padding_token_learns_nothing_from_being_read() -> None:
    model = build(tie_word_embeddings=False)
    model(torch.ones(1, 9, 7), decoder_input_ids=torch.tensor([[2, 1, 5]])).logits.sum().backward()
    grad = model.get_input_embeddings().weight.grad
    assert not grad[1].any()
    assert grad[5].any()


@torch.inference_mode()
def test_what_is_kept_says_how_long_it_is_and_may_come_back_as_lists(model: Any, batch: Any) -> None:
    given = row_of(batch, 1)
    past = model(**given, use_cache=True).past_key_values
    assert isinstance(past, KeyValues)
    assert past.get_seq_length() == 8
    assert [list(tensor.shape) for tensor in past[2]] == [[1, 2, 8, 12]] * 2 + [[1, 2, 3, 12]] * 2
    token = torch.tensor([[4]])
    wanted = model(decoder_input_ids=token, past_key_values=past, use_cache=False)
    assert wanted.past_key_values is None
    again = model(decoder_input_ids=token, past_key_values=[list(layer) for layer in past])
    assert torch.equal(again.logits, wanted.logits)
    assert again.past_key_values.get_seq_length() == 9
    assert again.encoder_last_hidden_state is None  # nothing was encoded


def test_interleaved_puts_each_sequences_first_rows_before_its_second() -> None:
    first, second = torch.tensor([0, 1, 2, 30]), torch.tensor([10, 20, 21, 31])
    order = interleaved(cumulative([1, 2, 0, 1]), cumulative([1, 2, 0, 1]))
    assert torch.cat([first, second])[order].tolist() == [0, 10, 1, 2, 20, 21, 30, 31]
    assert interleaved(cumulative([]), cumulative([])).tolist() == []


def test_an_output_is_read_by_name_by_place_and_as_a_mapping(model: Any, batch: Any) -> None:
    output = model(**batch, labels=batch["decoder_input_ids"], use_cache=False)
    assert output.keys() == ["loss", "logits", "encoder_last_hidden_state"]
    assert output["logits"] is output[1] is output.logits is dict(output.items())["logits"]
    assert [id(value) for value in output.values()] == [id(value) for value in output.to_tuple()]
    assert dict(output).keys() == dict(**output).keys()
    assert "past_key_values" not in output
    assert output[0].dim() == 0, "the loss comes first where there is one"
    plain = model(**batch, use_cache=False)
    assert list(plain) == plain.keys() == ["logits", "encoder_last_hidden_state"]
    assert len(plain) == 2
    assert plain.loss is None
    assert torch.equal(plain[0], output.logits)


def test_labels_without_decoder_tokens_are_read_shifted_right(model: Any) -> None:
    features, labels = torch.ones(1, 20, 7), torch.tensor([[7, 9, 20, -100, 12, 2, -100, -100]])
    shifted = torch.tensor([[2, 7, 9, 20, 1, 12, 2, 1]])  # -100 becomes the padding token
    for tokens in (shifted, shifted.flip(1)):
        wanted = model(features, decoder_input_ids=tokens).logits
        assert torch.equal(model(features, decoder_input_ids=tokens, labels=labels).logits, wanted)
    assert torch.equal(
        model(features, labels=labels).logits, model(features, decoder_input_ids=shifted).logits
    )


@torch.inference_mode()
def test_an_encoders_output_is_used_again_instead_of_running_it(model: Any, batch: Any) -> None:
    first = model(**batch)
    hidden = first.encoder_last_hidden_state
    for given in (BaseModelOutput(hidden), (hidden,)):
        again = model(**{**batch, "input_features": None}, encoder_outputs=given)
        assert torch.equal(again.logits, first.logits)
        assert torch.equal(again.encoder_last_hidden_state, hidden)
    changed = model(**{**batch, "input_features": None}, encoder_outputs=(hidden + 1.0,))
    assert not torch.allclose(changed.logits, first.logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@torch.no_grad()
def test_half_precision_stays_near_single(dtype: torch.dtype) -> None:
    model = build(init_std=0.1)
    features, tokens = torch.randn(1, 40, 7), torch.tensor([[2, 9, 8, 7]])
    wanted = model(features, decoder_input_ids=tokens).logits
    logits = model.to(dtype)(features, decoder_input_ids=tokens).logits
    assert logits.dtype == dtype
    error = (logits.float() - wanted).norm() / wanted.norm()
    assert float(error) < (2e-2 if dtype == torch.float16 else 1e-1)


@torch.no_grad()
def test_greedy_decoding_over_pages_takes_the_tokens_that_teacher_forcing_likes_best(
    model: Any, batch: Any
) -> None:
    features, mask = batch["input_features"], batch["attention_mask"]
    found = model.generate(features.nan_to_num(), attention_mask=mask, max_length=12, eos_token_id=-1)
    assert found.shape == (4, 12)
    assert torch.equal(model(features, mask, found).logits[:, :-1].argmax(-1), found[:, 1:])


@torch.inference_mode()
def test_encoder_lengths_are_those_that_the_encoder_gives(model: Any) -> None:
    for frames in range(1, 60):
        encoded, cu_tokens = model.encode(torch.ones(frames, 7), cumulative([frames]))
        assert len(encoded) == int(cu_tokens[1]) == model.encoder_length(frames)


def test_a_recording_longer_than_the_encoders_positions_is_refused_with_the_limit_in_seconds(
    model: Any,
) -> None:
    assert model.encoder_length(160) == 40
    long, problem = (
        torch.ones(1, 161, 7),
        r"161 frames are 41 encoder positions, and the model has 40 \(about",
    )
    for call in (
        lambda: model.encoder_length(161),
        lambda: model(long, decoder_input_ids=torch.tensor([[2]])),
        lambda: model.generate(long, max_length=12),
    ):
        with pytest.raises(ValueError, match=problem):
            call()


def test_resizing_keeps_the_parameter_its_optimizer_and_its_rows() -> None:
    model = build()
    weight = model.get_input_embeddings().weight
    before = weight.detach().clone()
    assert model.resize_token_embeddings() is model.get_input_embeddings()
    torch.testing.assert_close(model.resize_token_embeddings(40).weight[:29], before)
    assert model.get_input_embeddings().weight is model.lm_head.weight is weight
    torch.testing.assert_close(weight[29:].detach(), before.mean(0).expand(11, 24))
    model(torch.ones(1, 9, 7), labels=torch.tensor([[39]])).loss.backward()
    torch.optim.SGD([weight], lr=0.1).step()
    model.resize_token_embeddings(50, mean_resizing=False)
    assert 0.005 < weight[40:].std() < 0.05
    assert model.config.vocab_size == 50
    bare: Speech2TextModel = build().model
    assert bare.resize_token_embeddings(7).weight.shape == (7, 24)
    with pytest.raises(
        ValueError,
        match="1 tokens cannot be: the padding token is number 1; give new_num_tokens of at least 2",
    ):
        bare.resize_token_embeddings(1)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"input_features": None}, "input_features is missing; give features .* or encoder_outputs"),
    ({"input_features": torch.ones(4, 7)}, r"must be \[batch, frames, features\], got \[4, 7\]"),
    ({"attention_mask": torch.ones(4, 3)}, r"attention_mask is \[4, 3\], input_features \[4, 50, 7\]"),
    ({"input_features": torch.ones(4, 50, 8)}, "takes frames of 7 channels .*, got 8 channels"),
    ({"attention_mask": torch.zeros(4, 50)}, "a row without frames"),
    ({"input_features": torch.ones(4, 0, 7), "attention_mask": None}, "a row without frames"),
    ({"input_features": torch.ones(0, 9, 7), "attention_mask": None}, "a row without frames"),
    ({"decoder_input_ids": None}, "either decoder_input_ids .* or else decoder_inputs_embeds"),
    ({"decoder_inputs_embeds": torch.ones(4, 8, 24)}, "give the decoder either"),
    (
        {"decoder_input_ids": None, "decoder_inputs_embeds": torch.ones(4, 8, 9)},
        r"must be \[batch, tokens, 24\], got \[4, 8, 9\]",
    ),
    ({"decoder_input_ids": torch.ones(8, dtype=torch.int64)}, r"must be \[batch, tokens\], got \[8\]"),
    ({"decoder_input_ids": torch.full((4, 8), 29)}, "go from 29 to 29, and the model knows tokens 0 to 28"),
    ({"decoder_input_ids": torch.full((4, 8), -100)}, "go from -100 to -100"),
    ({"decoder_input_ids": torch.full((3, 8), 2)}, "given 3 rows, and the encoder's output has 4"),
    (
        {"decoder_input_ids": torch.full((4, 13), 2), "decoder_attention_mask": None},
        "13 decoder tokens, and the model has 12 positions",
    ),
    ({"decoder_attention_mask": torch.ones(4, 9)}, r"decoder_attention_mask must be \[4, 8\], got \[4, 9\]"),
    (
        {"labels": torch.ones(8, dtype=torch.int64), "decoder_input_ids": None},
        r"labels must be \[batch, target\], got \[8\]",
    ),
    ({"labels": torch.ones(4, 7, dtype=torch.int64)}, r"labels \[4, 7\] do not fit decoder inputs \[4, 8\]"),
    ({"labels": torch.full((4, 8), 29)}, "labels go from 29 to 29, and the model knows tokens 0 to 28"),
    ({"encoder_outputs": torch.ones(4, 3, 24)}, "must be what the encoder returned.* got Tensor"),
    ({"encoder_outputs": ()}, "must be what the encoder returned.* got tuple"),
    ({"encoder_outputs": (torch.ones(4, 3, 24),)}, "13 encoder tokens, and the encoder's output has 3"),
    ({"past_key_values": ((1, 2),) * 3}, r"for each of the 3 layers, got \[2, 2, 2\]"),
    ({"past_key_values": torch.ones(1)}, "must be what an earlier call returned.* got Tensor"),
]


@pytest.mark.parametrize(("change", "problem"), REFUSED, ids=[problem[:30] for _, problem in REFUSED])
def test_what_does_not_fit_is_refused(model: Any, batch: Any, change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        model(**{**batch, **change})


def test_a_decoder_without_an_encoders_output_is_refused(model: Any, batch: Any) -> None:
    with pytest.raises(ValueError, match="encoder_hidden_states is missing"):
        model.get_decoder()(batch["decoder_input_ids"])


def test_generate_without_features_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="give the features to decode"):
        model.generate()
