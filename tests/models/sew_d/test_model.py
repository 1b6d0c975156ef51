"""SEW-D by itself: options, lengths, what is remembered, training, kernels, and what is refused."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import tritone
from tritone.kernels.runtime.launch import recorded
from tritone.models.core.parameter_cache import Remembered

SMALL: dict[str, Any] = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "conv_dim": (6, 8),
    "conv_stride": (4, 3),
    "conv_kernel": (8, 5),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_length": 2,
    "position_buckets": 4,
    "max_position_embeddings": 9,
}
NO_CHANCE = {
    "hidden_dropout": 0.0,
    "activation_dropout": 0.0,
    "attention_dropout": 0.0,
    "apply_spec_augment": False,
}


def made(**fields: Any) -> Any:
    torch.manual_seed(0)
    model = tritone.SEWDModel(tritone.SEWDConfig(**{**SMALL, **fields})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def waveforms(*lengths: int) -> list[Tensor]:
    return [torch.randn(length, generator=torch.Generator().manual_seed(length)) for length in lengths]


def batch_of(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return values, torch.arange(values.shape[1])[None] < torch.tensor([len(row) for row in rows])[:, None]


def packed(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    offsets = torch.tensor([0, *map(len, rows)]).cumsum(0).int()
    return torch.cat(rows)[:, None], offsets


@pytest.mark.parametrize("squeeze_factor", [1, 2, 3])
@torch.no_grad()
def test_packed_waveforms_give_what_a_padded_batch_gives(squeeze_factor: int) -> None:
    model, rows = made(squeeze_factor=squeeze_factor), waveforms(300, 151, 222)
    values, mask = batch_of(rows)
    output = model(values, mask, output_hidden_states=True, output_attentions=True)
    hidden, cu_tokens = model.packed(*packed(rows))
    assert cu_tokens.diff().tolist() == [model.length(len(row)) for row in rows]
    assert torch.equal(hidden, output.last_hidden_state[model.token_mask(mask)])
    squeezed = model.feature_extractor.length(300) // squeeze_factor
    assert [list(state.shape) for state in output.hidden_states] == [[3, squeezed, 12]] * 3
    assert [list(weight.shape) for weight in output.attentions] == [[3, 3, squeezed, squeezed]] * 2


@torch.no_grad()
def test_a_recording_shorter_than_a_token_is_refused() -> None:
    model = made()
    assert model.packed(*packed(waveforms(36)))[0].shape == (model.length(36), 12)
    with pytest.raises(ValueError, match=r"35 samples .* 36 at least"):
        model.packed(*packed(waveforms(300, 35)))


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
        tritone.SEWDModel(tritone.SEWDConfig(**{**SMALL, **fields}))


def test_terms_may_be_named_in_one_string_or_none() -> None:
    assert tritone.SEWDConfig(pos_att_type="p2c|c2p").pos_att_type == ["p2c", "c2p"]
    assert tritone.SEWDConfig(pos_att_type=None).pos_att_type == []
    config = tritone.SEWDConfig(**SMALL, max_relative_positions=7, something_new=3)
    assert (config.farthest, config.span, config.something_new) == (7, 4, 3)
    assert tritone.SEWDConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("shared", [True, False])
@torch.no_grad()
def test_projected_positions_are_made_once_and_follow_every_change(shared: bool) -> None:
    model = made(share_att_key=shared)
    transformer = model.encoder.encoder
    attention = transformer.layer[0].attention.self
    first = attention.tables(transformer)
    assert [table.shape for table in first] == [(8, 3, 4)] * 2
    assert attention.tables(transformer) is first
    names = ("key_proj", "query_proj") if shared else ("pos_key_proj", "pos_query_proj")
    changing = [transformer.rel_embeddings.weight, transformer.LayerNorm.weight, transformer.LayerNorm.bias]
    for name in names:
        changing += getattr(attention, name).parameters()
    for parameter in changing:
        parameter.mul_(2)
        parameter.add_(0.1)
        changed = attention.tables(transformer)
        assert any(not torch.equal(one, other) for one, other in zip(first, changed, strict=True))
        assert attention.tables(transformer) is changed
        first = changed
    copied = copy.deepcopy(model)
    assert copied.encoder.encoder.layer[0].attention.self._tables._made is None


def test_what_is_remembered_has_gradients_where_they_are_wanted() -> None:
    weight, remembered = torch.nn.Parameter(torch.ones(2)), Remembered()
    with torch.inference_mode():
        kept = remembered(lambda: weight * 2, [weight])
    assert not kept.requires_grad
    assert remembered(lambda: weight * 2, [weight]).requires_grad
    with torch.no_grad():
        assert remembered(lambda: weight * 3, [weight]) is kept
    (kept * torch.nn.Parameter(torch.ones(2))).sum().backward()  # made in inference mode it could not


def test_inference_first_does_not_keep_training_from_its_gradients() -> None:
    model = made(**NO_CHANCE)
    values = waveforms(300)[0][None]
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


def test_a_loss_goes_down() -> None:
    model = tritone.SEWDModel(tritone.SEWDConfig(**SMALL, feat_proj_dropout=0.1)).train()
    head = torch.nn.Linear(12, 4)
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=5e-3)
    values, mask = batch_of(waveforms(300, 222, 260, 180))
    tokens = model.token_mask(mask)[..., None]
    losses = []
    for _ in range(40):
        hidden = model(values, mask).last_hidden_state
        logits = head((hidden * tokens).sum(1) / tokens.sum(1))
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_fresh_weights_are_drawn_as_transformers_draws_them() -> None:
    torch.manual_seed(0)
    transformer = tritone.SEWDModel(
        tritone.SEWDConfig(
            **{**SMALL, "hidden_size": 48, "position_buckets": 32, "max_position_embeddings": 64}
        )
    ).encoder.encoder
    attention = transformer.layer[0].attention.self
    for weight in (transformer.rel_embeddings.weight, attention.query_proj.weight):
        assert 0.018 < float(weight.detach().std()) < 0.022
    assert not attention.query_proj.bias.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@torch.no_grad()
def test_half_precision_is_near_single(dtype: torch.dtype) -> None:
    model = made(feat_extract_norm="layer")
    values = waveforms(300)[0][None]
    wanted = model(values).last_hidden_state
    given = copy.deepcopy(model).to(dtype)(values).last_hidden_state
    assert given.dtype == dtype
    assert float((given.float() - wanted).norm() / wanted.norm()) < 0.05


@torch.no_grad()
def test_the_kernels_give_what_the_processor_gives(kernels_on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (values, mask) = made(), batch_of(waveforms(300, 222))
    with recorded() as cases:
        given = model.to(kernels_on)(values.to(kernels_on), mask.to(kernels_on)).last_hidden_state.cpu()
    assert sum(case.kernel.name == "disentangled_attention_kernel" for case in cases) == 2
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert torch.allclose(given, model.cpu()(values, mask).last_hidden_state, atol=1e-4)
