"""SEW-D by itself: terms of attention, cached positions, training and kernels."""

import copy
from typing import Any

import pytest
import torch
from factories import add_noise
from waveform_encoders import NO_CHANCE, noise, padded, tiny_encoder

import tritone
from tritone.kernels.runtime.launch import recorded


def made(**fields: Any) -> Any:
    return add_noise(tiny_encoder("SEWD", **fields), 0.3)


def test_terms_may_be_named_in_one_string_or_none() -> None:
    assert tritone.SEWDConfig(pos_att_type="p2c|c2p").pos_att_type == ["p2c", "c2p"]
    assert tritone.SEWDConfig(pos_att_type=None).pos_att_type == []
    config = tritone.SEWDConfig(position_buckets=4, max_relative_positions=7, something_new=3)
    assert (config.farthest, config.span, config.something_new) == (7, 4, 3)
    assert tritone.SEWDConfig.from_dict(config.to_dict()) == config


def same(one: Any, other: Any) -> bool:
    return all(a is b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("shared", [True, False])
@torch.no_grad()
def test_projected_positions_are_made_once_and_follow_every_change(shared: bool) -> None:
    model = made(share_att_key=shared)
    transformer = model.encoder.encoder
    attention = transformer.layer[0].attention.self
    first = attention.tables(transformer)
    assert [table.shape for table in first] == [(8, 3, 4)] * 2
    assert same(attention.tables(transformer), first)
    names = ("key_proj", "query_proj") if shared else ("pos_key_proj", "pos_query_proj")
    changing = [transformer.rel_embeddings.weight, transformer.LayerNorm.weight, transformer.LayerNorm.bias]
    for name in names:
        changing += getattr(attention, name).parameters()
    for parameter in changing:
        parameter.mul_(2)
        parameter.add_(0.1)
        changed = attention.tables(transformer)
        assert any(not torch.equal(one, other) for one, other in zip(first, changed, strict=True))
        assert same(attention.tables(transformer), changed)
        first = changed
    copied = copy.deepcopy(transformer)
    assert not same(copied.layer[0].attention.self.tables(copied), first)


def test_inference_first_does_not_keep_training_from_its_gradients() -> None:
    model = made(**NO_CHANCE)
    values = noise(300)[0][None]
    with torch.inference_mode():
        before = model(values).last_hidden_state
    output = model.train()(values).last_hidden_state
    assert torch.allclose(output, before, atol=1e-5)
    output.square().sum().backward()
    assert all(
        parameter.grad is not None for name, parameter in model.named_parameters() if "masked" not in name
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(0.01 * torch.ones_like(parameter))
        assert not torch.allclose(model(values).last_hidden_state, before, atol=1e-3)


def test_fresh_weights_are_drawn_as_transformers_draws_them() -> None:
    torch.manual_seed(0)
    transformer = tiny_encoder(
        "SEWD", hidden_size=48, position_buckets=32, max_position_embeddings=64
    ).encoder.encoder
    attention = transformer.layer[0].attention.self
    for weight in (transformer.rel_embeddings.weight, attention.query_proj.weight):
        assert 0.018 < float(weight.detach().std()) < 0.022
    assert not attention.query_proj.bias.any()


@torch.no_grad()
def test_the_kernels_give_what_the_processor_gives(kernels_on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (values, mask) = made(), padded(noise(300, 222))
    with recorded() as cases:
        given = model.to(kernels_on)(values.to(kernels_on), mask.to(kernels_on)).last_hidden_state.cpu()
    assert sum(case.kernel.name == "disentangled_attention_kernel" for case in cases) == 2
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert torch.allclose(given, model.cpu()(values, mask).last_hidden_state, atol=1e-4)
