"""XLNet's configuration, positions, refusals and training; see tests/conformance for transformers."""

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tritone
from tritone.kernels.runtime.launch import recorded
from tritone.kernels.runtime.packing import cumulative
from tritone.models.xlnet.layers import position_features

SMALL: dict[str, Any] = {
    "vocab_size": 31,
    "d_model": 24,
    "n_layer": 2,
    "n_head": 3,
    "d_inner": 30,
    "initializer_range": 0.3,
}


def classifier(**fields: Any) -> tritone.XLNetForSequenceClassification:
    torch.manual_seed(0)
    return tritone.XLNetForSequenceClassification(tritone.XLNetConfig(**{**SMALL, **fields})).eval()


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 31, shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"ff_activation": "softsign"}, "ff_activation 'softsign'"),
        ({"summary_activation": "softsign"}, "summary_activation 'softsign'"),
        ({"n_head": 5}, "n_head 5 must divide d_model 24"),
        ({"d_head": 7}, "d_head is 7, and d_model 24 / n_head 3 is 8"),
        ({"d_model": 33}, "d_model must be even, for as many sines as cosines; got 33"),
        ({"attn_type": "both"}, "attn_type 'both' is not supported; use 'bi' or 'uni'"),
        ({"summary_type": "attn"}, "summary_type 'attn' is not supported; use 'last', 'first', 'mean' or"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        tritone.XLNetConfig(**{**SMALL, **fields})


def test_fields_go_by_their_common_names_too_and_survive_a_round_trip(tmp_path: Path) -> None:
    config = tritone.XLNetConfig(
        n_token=50, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, clamp_len=9
    )
    assert (config.vocab_size, config.d_model, config.n_layer, config.n_head) == (50, 48, 3, 4)
    assert config.d_head == 12
    config.save_pretrained(tmp_path)
    assert tritone.AutoConfig.from_pretrained(tmp_path) == config


@pytest.mark.parametrize("name", ["mems", "perm_mask", "target_mapping"])
def test_what_is_of_pretraining_is_refused_by_name(name: str) -> None:
    for model in (classifier(), classifier().transformer):
        with pytest.raises(ValueError, match=f"{name} is not supported: it is for pretraining"):
            model(tokens(1, 5), **{name: torch.zeros(1, 5, 5)})


def test_positions_that_depend_on_the_place_in_the_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="bi_data=True is for pretraining"):
        classifier(bi_data=True)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "either input_ids or inputs_embeds"),
        ({"input_ids": tokens(5)}, "input_ids must be \\[batch, tokens\\], got \\[5\\]"),
        ({"input_ids": torch.tensor([[4, 31]])}, "from 4 to 31, and the model knows tokens 0 to 30"),
        ({"inputs_embeds": torch.zeros(1, 5, 23)}, "must be \\[batch, tokens, 24\\], got \\[1, 5, 23\\]"),
        (
            {"input_ids": tokens(1, 5), "token_type_ids": tokens(1, 4)},
            "token_type_ids must be \\[1, 5\\], got \\[1, 4\\]",
        ),
        (
            {"input_ids": tokens(1, 5), "attention_mask": torch.ones(1, 4)},
            "attention_mask must be \\[1, 5\\]",
        ),
        ({"input_ids": tokens(1, 5), "attention_mask": torch.zeros(1, 5)}, "a row without tokens"),
        (
            {
                "input_ids": tokens(1, 5),
                "attention_mask": torch.ones(1, 5),
                "input_mask": torch.zeros(1, 5),
            },
            "each the other's reverse",
        ),
    ],
    ids=str,
)
def test_inputs_that_do_not_fit_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        classifier()(**given)


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


def test_dropout_is_drawn_in_training_everywhere_that_the_configuration_says() -> None:
    nothing, given = {"dropout": 0.0, "summary_last_dropout": 0.0}, tokens(2, 9)
    usual = classifier(**nothing)(given).logits
    torch.testing.assert_close(classifier(**nothing).train()(given).logits, usual)
    for name in nothing:
        assert not torch.allclose(classifier(**{**nothing, name: 0.5}).train()(given).logits, usual)
    # What is recorded is what was used.
    output = classifier(dropout=0.5).train()(given, output_attentions=True)
    assert bool((output.attentions[0] == 0).any())


def test_it_learns_labels_and_every_parameter_takes_part() -> None:
    model = classifier(num_labels=3).train()
    given, labels = tokens(6, 9), torch.tensor([0, 1, 2, 2, 1, 0])
    types = torch.tensor([[0] * 5 + [1] * 4]).expand(6, -1)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        loss = model(given, token_type_ids=types, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == ["transformer.mask_emb"]  # of pretraining


def test_fresh_weights_are_drawn_as_transformers_draws_them() -> None:
    torch.manual_seed(0)
    config = tritone.XLNetConfig(vocab_size=31, d_model=96, n_layer=1, n_head=4, d_inner=96)
    layer = tritone.XLNetModel(config).layer[0]
    for parameter in layer.rel_attn.parameters(recurse=False):
        assert 0.017 < float(parameter.detach().std()) < 0.023
    assert 0.018 < float(layer.ff.layer_1.weight.detach().std()) < 0.022
    assert not layer.ff.layer_1.bias.any()
    assert bool((layer.rel_attn.layer_norm.weight == 1).all())


def test_a_language_models_checkpoint_gets_a_fresh_head_and_says_so(tmp_path: Path) -> None:
    model = classifier()
    model.save_pretrained(tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    body = {name: tensor for name, tensor in held.items() if name.startswith("transformer.")}
    heads = {"lm_loss.weight": torch.zeros(31, 24), "lm_loss.bias": torch.zeros(31)}
    save_file(body | heads, tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match="logits_proj") as caught:
        loaded = tritone.AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=7)
    assert len(caught) == 1
    assert loaded.logits_proj.weight.shape == (7, 24)
    save_file(held | heads, tmp_path / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = tritone.XLNetForSequenceClassification.from_pretrained(tmp_path)
        base = tritone.XLNetModel.from_pretrained(tmp_path)
    assert torch.equal(again(tokens(1, 8)).logits, model(tokens(1, 8)).logits)
    wanted = model.transformer(tokens(1, 8)).last_hidden_state
    assert torch.equal(base(tokens(1, 8)).last_hidden_state, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@torch.no_grad()
def test_half_precision_is_near_single(dtype: torch.dtype) -> None:
    model, given = classifier(initializer_range=0.1), tokens(1, 30)
    types = (torch.arange(30) > 11).long()[None]
    wanted = model.transformer(given, token_type_ids=types).last_hidden_state
    half = copy.deepcopy(model).to(dtype)
    hidden = half.transformer(given, token_type_ids=types).last_hidden_state
    assert hidden.dtype == dtype
    assert float((hidden.float() - wanted).norm() / wanted.norm()) < 0.05
    logits, _ = half.predict(torch.cat([given, types]).T, cumulative([30]))["logits"]
    assert logits.dtype == torch.float32


@pytest.mark.parametrize(("attention", "summary"), [("bi", "last"), ("uni", "mean")])
@torch.no_grad()
def test_the_kernels_give_what_the_processor_gives(
    attention: str, summary: str, kernels_on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, lengths = classifier(attn_type=attention, summary_type=summary, clamp_len=7), [19, 1, 6]
    features = torch.stack([tokens(26), (torch.arange(26) % 5) // 2], 1)
    with recorded() as cases:
        given = model.to(kernels_on).predict(features.to(kernels_on), cumulative(lengths, kernels_on))
    launched = [case.kernel.name for case in cases]
    assert launched.count("relative_attention_kernel") == 2
    assert launched.count("mean_pool_kernel") == (summary == "mean")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    wanted = model.cpu().predict(features, cumulative(lengths))
    torch.testing.assert_close(given["logits"][0].cpu(), wanted["logits"][0], atol=1e-4, rtol=0)
