"""BART's, MBart's and Speech2Text2's decoders: limits, ties, labels, dropout and training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from factories import add_noise
from text_families import make
from training import train

from tritone.models.auto import AutoConfig
from tritone.models.bart.model import BartForCausalLM
from tritone.models.mbart.model import MBartForCausalLM
from tritone.models.registry import families_with, family_of_config

FAMILIES = ["Bart", "MBart", "Speech2Text2"]
TOKENS = torch.tensor([[2, 7, 11, 1, 5, 9]])
ENCODED = torch.randn(1, 4, 24, generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def build(family: str, **fields: Any) -> Any:
    """A decoder with weights at which everything matters; no dropout unless asked for."""
    sizes = {"decoder_layers": 3, "decoder_attention_heads": 2, **fields}
    return add_noise(make(family, "ForCausalLM", **sizes), 0.3)


def test_each_family_is_a_text_decoder_by_its_model_type(family: str, tmp_path: Path) -> None:
    model = build(family)
    model.config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path) == model.config
    found = family_of_config(model.config, families_with("text_decoder"), "this test")
    assert found.load("text_decoder") is type(model)


def test_the_generation_contract_tells_sizes_and_the_longest_sequence(family: str) -> None:
    limit = "max_target_positions" if family == "Speech2Text2" else "max_position_embeddings"
    model = build(family, **{limit: 17})
    assert model.cache_shape == (3, 2, 12)
    assert model.max_length == 17
    pairs = model.cross_key_values(ENCODED[0])
    assert [tensor.shape for pair in pairs for tensor in pair] == [(4, 2, 12)] * 6
    model(torch.full((1, 17), 4))
    with pytest.raises(ValueError, match="18 decoder tokens, and the model has 17 positions; give fewer"):
        model(torch.full((1, 18), 4))


def test_a_decoder_says_in_its_configuration_that_it_is_one(family: str) -> None:
    given = build(family)
    model = type(given).from_config(given.config)
    assert (model.config.is_decoder, model.config.is_encoder_decoder) == (True, False)
    assert model.config.hidden_size == 24
    assert model.training


def test_a_checkpoint_of_the_other_family_is_refused(tmp_path: Path) -> None:
    build("Bart").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a 'bart' model, not 'mbart'"):
        MBartForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"config is a MBartConfig .* give a BartConfig"):
        BartForCausalLM.from_config(build("MBart").config)


def test_heads_are_tied_to_the_embedding_unless_the_configuration_says_no(family: str) -> None:
    tied, untied = build(family), build(family, tie_word_embeddings=False)
    assert tied.lm_head.weight is tied.get_input_embeddings().weight
    assert untied.lm_head.weight is not untied.get_input_embeddings().weight
    resized = tied.resize_token_embeddings(40)
    assert tied(torch.tensor([[39]])).logits.shape == (1, 1, 40)
    assert tied.lm_head.weight is resized.weight
    other = torch.nn.Embedding(40, 24)
    tied.set_input_embeddings(other)
    tied.tie_weights()
    assert tied.get_output_embeddings().weight is other.weight
    tied.set_output_embeddings(untied.lm_head)
    assert torch.equal(tied(TOKENS).logits, untied.lm_head(tied.get_decoder()(TOKENS)[0]))


def test_labels_are_compared_with_the_logits_of_their_own_place(family: str) -> None:
    model = build(family)
    output = model(TOKENS, encoder_hidden_states=ENCODED, labels=TOKENS.clamp(min=3))
    wanted = torch.nn.functional.cross_entropy(output.logits[0], TOKENS[0].clamp(min=3))
    torch.testing.assert_close(output.loss, wanted)
    some = TOKENS.clone()
    some[0, 2:] = -100
    loss = model(TOKENS, encoder_hidden_states=ENCODED, labels=some).loss
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(output.logits[0, :2], TOKENS[0, :2]))


@pytest.mark.parametrize("kind", ["dropout", "attention_dropout", "activation_dropout"])
def test_each_dropout_draws_in_training_alone_and_as_the_seed_says(family: str, kind: str) -> None:
    model = build(family, **{kind: 0.4})

    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return model(TOKENS, encoder_hidden_states=ENCODED).logits[:, -1].detach()

    plain = draw(0)
    assert torch.equal(draw(1), plain)
    model.train()
    assert torch.equal(draw(3), draw(3))
    drawn = torch.stack([draw(seed) for seed in range(24)])
    assert (drawn.std(0) > 0.03).all()
    assert (drawn.mean(0) - plain).abs().mean() < drawn.std(0).mean()


def test_layer_drop_skips_some_layers_in_training_and_none_after(family: str) -> None:
    model = build(family, decoder_layerdrop=0.5)
    asked = {"encoder_hidden_states": ENCODED, "output_attentions": True, "output_hidden_states": True}
    assert len(model(TOKENS, **asked).attentions) == 3
    model.train()
    ran = set()
    for seed in range(12):
        torch.manual_seed(seed)
        output = model(TOKENS, **asked)
        ran.add(len(output.attentions))
        assert len(output.cross_attentions) == len(output.attentions) == len(output.hidden_states) - 1
        assert (output.past_key_values is None) == (len(output.attentions) < 3)
    assert len(ran) > 2


def test_a_model_learns_what_it_is_shown(family: str) -> None:
    model = build(family, dropout=0.1, attention_dropout=0.1, activation_dropout=0.1).train()
    given = {"encoder_hidden_states": ENCODED, "labels": torch.tensor([[7, 11, 4, 5, 9, -100]])}
    torch.manual_seed(0)
    losses = train(model.parameters(), lambda: model(TOKENS, **given).loss, steps=15, lr=0.01)
    assert losses[-1] < 0.5 * losses[0]
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_the_padding_token_learns_nothing_from_being_read(family: str) -> None:
    model = build(family, tie_word_embeddings=False)
    model(TOKENS, encoder_hidden_states=ENCODED).logits.square().sum().backward()
    gradient = model.get_input_embeddings().weight.grad
    assert not gradient[1].any()
    assert gradient[5].any()
