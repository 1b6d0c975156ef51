"""SEW-D by itself: options, cached positions, training, kernels, and refused configurations."""

import copy
from typing import Any

import pytest
import torch
from waveform_encoders import NO_CHANCE, noise, packed, padded, tiny_encoder

import tritone
from tritone.kernels.runtime.launch import recorded


def made(**fields: Any) -> Any:
    model = tiny_encoder("SEWD", **fields)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("squeeze_factor", [1, 2, 3])
@torch.no_grad()
def test_packed_waveforms_give_what_a_padded_batch_gives(squeeze_factor: int) -> None:
    model, rows = made(squeeze_factor=squeeze_factor), noise(300, 151, 222)
    values, mask = padded(rows)
    output = model(values, mask, output_hidden_states=True, output_attentions=True)
    hidden, cu_tokens = model.forward_packed(*packed(rows))
    assert cu_tokens.diff().tolist() == [model.length(len(row)) for row in rows]
    assert torch.equal(hidden, output.last_hidden_state[model.token_mask(mask)])
    squeezed = model.feature_extractor.length(300) // squeeze_factor
    assert [list(state.shape) for state in output.hidden_states] == [[3, squeezed, 12]] * 3
    assert [list(weight.shape) for weight in output.attentions] == [[3, 3, squeezed, squeezed]] * 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"pos_att_type": ("c2p", "p2p")},
            "pos_att_type 'p2p' is not supported; use 'p2c' or 'c2p'",
        ),
        ({"norm_rel_ebd": "batch_norm"}, "norm_rel_ebd 'batch_norm'"),
        ({"attention_head_size": 5}, "attention_head_size 5 is not supported"),
        ({"conv_kernel_size": 4}, "conv_kernel_size 4 would change the number of tokens"),
        ({"conv_kernel_size": 3, "conv_act": "snake"}, "unknown activation 'snake'"),
        ({"hidden_act": "snake"}, "unknown activation 'snake'"),
        ({"position_buckets": 1}, "1 position buckets cannot be divided"),
        ({"position_buckets": 64}, "64 position buckets cannot be divided logarithmically up to 9"),
        ({"max_position_embeddings": 0}, "at least 1, got 0"),
        ({"squeeze_factor": 0}, "squeeze_factor must be at least 1"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_encoder("SEWD", **fields)


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@torch.no_grad()
def test_half_precision_is_near_single(dtype: torch.dtype) -> None:
    model = made(feat_extract_norm="layer")
    values = noise(300)[0][None]
    wanted = model(values).last_hidden_state
    given = copy.deepcopy(model).to(dtype)(values).last_hidden_state
    assert given.dtype == dtype
    assert float((given.float() - wanted).norm() / wanted.norm()) < 0.05


@torch.no_grad()
def test_the_kernels_give_what_the_processor_gives(kernels_on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (values, mask) = made(), padded(noise(300, 222))
    with recorded() as cases:
        given = model.to(kernels_on)(values.to(kernels_on), mask.to(kernels_on)).last_hidden_state.cpu()
    assert sum(case.kernel.name == "disentangled_attention_kernel" for case in cases) == 2
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert torch.allclose(given, model.cpu()(values, mask).last_hidden_state, atol=1e-4)
