"""XLNet's configuration, positions, refusals and training; see tests/conformance for transformers."""

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import text_families
import torch
from text_families import tokens

import tritone
from tritone.models.xlnet.layers import position_features

classifier = partial(text_families.classifier, "XLNet")


@pytest.mark.parametrize("name", ["mems", "perm_mask", "target_mapping"])
def test_what_is_of_pretraining_is_refused_by_name(name: str) -> None:
    for model in (classifier(), classifier().transformer):
        with pytest.raises(ValueError, match=f"{name} is not supported: it is for pretraining"):
            model(tokens(1, 5), **{name: torch.zeros(1, 5, 5)})


def test_positions_that_depend_on_the_place_in_the_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="bi_data=True is for pretraining"):
        classifier(bi_data=True)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"input_ids": None}, "either input_ids or inputs_embeds"),
    ({"input_ids": tokens(5)}, r"input_ids must be \[batch, tokens\], got \[5\]"),
    ({"input_ids": torch.tensor([[4, 31]])}, "from 4 to 31, and the model knows tokens 0 to 30"),
    (
        {"input_ids": None, "inputs_embeds": torch.zeros(1, 5, 23)},
        r"must be \[batch, tokens, 24\], got \[1, 5, 23\]",
    ),
    ({"token_type_ids": tokens(1, 4)}, r"token_type_ids must be \[1, 5\], got \[1, 4\]"),
    ({"attention_mask": torch.ones(1, 4)}, r"attention_mask must be \[1, 5\]"),
    ({"attention_mask": torch.zeros(1, 5)}, "a row without tokens"),
    ({"attention_mask": torch.ones(1, 5), "input_mask": torch.zeros(1, 5)}, "each the other's reverse"),
]


@pytest.mark.parametrize(("change", "problem"), REFUSED, ids=str)
def test_inputs_that_do_not_fit_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        classifier()(**{"input_ids": tokens(1, 5), **change})


@torch.no_grad()
def test_a_mask_may_come_reversed_and_embeddings_instead_of_tokens() -> None:
    model, given = classifier(), tokens(2, 7)
    mask = torch.tensor([[1] * 7, [0] * 3 + [1] * 4])
    wanted = model(given, attention_mask=mask).logits
    assert torch.equal(model(given, input_mask=1 - mask).logits, wanted)
    embedded = model.get_input_embeddings()(given)
    assert torch.equal(model(inputs_embeds=embedded, attention_mask=mask).logits, wanted)
    assert torch.equal(wanted[1], model(given[1:, 3:]).logits[0])


@torch.no_grad()
def test_segments_matter_whichever_numbers_they_have() -> None:
    model, given = classifier(), tokens(1, 9)
    types = torch.tensor([[0] * 4 + [1] * 3 + [2, 3]])
    typed = model(given, token_type_ids=types).logits
    assert torch.equal(model(given, token_type_ids=types * 7 + 2).logits, typed)
    assert not torch.allclose(model(given).logits, typed, atol=1e-3)
    # A term that is the same for all keys changes nothing.
    alike = model(given, token_type_ids=torch.full_like(types, 3)).logits
    torch.testing.assert_close(alike, model(given).logits, atol=1e-5, rtol=0)


def test_a_distance_has_the_same_features_whatever_the_limit() -> None:
    weight = torch.zeros(26, 1)
    large = position_features(200, weight)
    assert large.shape == (401, 26)
    assert bool((large[:, :13] == -large.flip(0)[:, :13]).all())
    assert bool((large[:, 13:] == large.flip(0)[:, 13:]).all())
    for limit in (0, 1, 5, 63, 64, 65, 131):
        assert torch.equal(position_features(limit, weight), large[200 - limit : 201 + limit])
    angle = torch.arange(-200, 201).double()[:, None] / 10000 ** (torch.arange(0, 26, 2).double() / 26)
    torch.testing.assert_close(large.double(), torch.cat([angle.sin(), angle.cos()], 1), atol=2e-5, rtol=0)


@torch.no_grad()
def test_cached_keys_of_positions_follow_the_weights_and_the_longest_text() -> None:
    model = classifier()
    short, long = tokens(1, 3), tokens(1, 90)
    first = model(short).logits
    model(long)  # which needs more distances
    assert torch.equal(model(short).logits, first)
    twin = copy.deepcopy(model)
    for one in (model, twin):
        one.transformer.layer[0].rel_attn.r.mul_(-1.5)
    assert torch.equal(model(short).logits, twin(short).logits)
    assert not torch.allclose(model(short).logits, first)


def test_threads_that_share_a_model_do_not_mix_up_cached_keys() -> None:
    lengths = [3, 130, 20, 400, 7, 65, 33, 250]
    with torch.no_grad():
        wanted = [classifier()(tokens(1, count)).logits for count in lengths]

    def answer(model: Any, count: int) -> torch.Tensor:
        with torch.no_grad():
            return model(tokens(1, count)).logits

    for _ in range(3):
        model = classifier()
        with ThreadPoolExecutor(4) as pool:
            given = list(pool.map(lambda count, model=model: answer(model, count), lengths))
        assert all(torch.equal(one, other) for one, other in zip(given, wanted, strict=True))


@torch.no_grad()
def test_texts_longer_than_the_cached_distances_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = classifier()(tokens(1, 40)).logits
    monkeypatch.setattr("tritone.models.xlnet.layers._MAX_CACHED_DISTANCE", 8)
    assert torch.equal(classifier()(tokens(1, 40)).logits, wanted)


def test_a_text_may_be_of_any_length_but_none() -> None:
    model = classifier()
    assert [model.encoder_length(count) for count in (1, 5000)] == [1, 5000]
    with pytest.raises(ValueError, match="give at least one"):
        model.encoder_length(0)


def test_recorded_weights_of_attention_are_those_that_dropout_left() -> None:
    output = classifier(dropout=0.5).train()(tokens(2, 9), output_attentions=True)
    assert bool((output.attentions[0] == 0).any())


def test_every_parameter_but_the_one_for_pretraining_learns() -> None:
    model = classifier().train()
    types = torch.tensor([[0] * 5 + [1] * 4])
    model(tokens(1, 9), token_type_ids=types, labels=torch.tensor([1])).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == ["transformer.mask_emb"]


def test_fresh_weights_are_drawn_as_transformers_draws_them() -> None:
    torch.manual_seed(0)
    config = tritone.XLNetConfig(vocab_size=31, d_model=96, n_layer=1, n_head=4, d_inner=96)
    layer = tritone.XLNetModel(config).layer[0]
    for parameter in layer.rel_attn.parameters(recurse=False):
        assert 0.017 < float(parameter.detach().std()) < 0.023
    assert 0.018 < float(layer.ff.layer_1.weight.detach().std()) < 0.022
    assert not layer.ff.layer_1.bias.any()
    assert bool((layer.rel_attn.layer_norm.weight == 1).all())
