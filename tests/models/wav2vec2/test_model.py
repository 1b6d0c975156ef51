"""Waveform encoders by themselves: lengths, masks, training, weights, and what they refuse."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from waveform_encoders import NO_CHANCE, noise, packed, padded, tiny_encoder

import tritone

FAMILIES = ["Wav2Vec2", "Hubert", "UniSpeech", "UniSpeechSat", "SEW", "SEWD"]


# What comes in and goes out.


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_shortest_recording_gives_a_token_and_a_shorter_one_is_refused(family: str) -> None:
    model = tiny_encoder(family)
    least = next(samples for samples in range(100) if _has_tokens(model, samples))
    assert least == (36 if family.startswith("SEW") else 24)
    assert model(noise(least)[0][None]).last_hidden_state.shape[1] == model.length(least)
    message = f"recording of {least - 1} samples .* {least} at least"
    for call in (
        lambda: model.length(least - 1),
        lambda: model(noise(least - 1)[0][None]),
        lambda: model.forward_packed(*packed(noise(300, least - 1))),
        lambda: model.token_mask(torch.ones(1, least - 1)),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def _has_tokens(model: Any, samples: int) -> bool:
    try:
        return model.length(samples) > 0
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("values", "mask", "message"),
    [
        (torch.zeros(2, 100, 1), None, r"input_values must be \[batch, samples\]"),
        (torch.zeros(100), None, r"input_values must be \[batch, samples\]"),
        (torch.zeros(1, 100, dtype=torch.int16), None, "input_values must be floats .* torch.int16"),
        (torch.zeros(2, 100), torch.ones(2, 99), "attention_mask is"),
        (torch.zeros(1, 100), torch.arange(100)[None] >= 20, "pad on the right"),
        (torch.zeros(2, 100), torch.tensor([[1] * 100, [0] * 100]), "a row without samples"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(values: Tensor, mask: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_encoder()(values, mask)


def test_packed_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[samples, 1\]"):
        tiny_encoder().forward_packed(torch.zeros(200, 2), torch.tensor([0, 200], dtype=torch.int32))
    with pytest.raises(ValueError, match="cu_seqlens"):
        tiny_encoder().forward_packed(torch.zeros(200, 1), torch.tensor([0, 100], dtype=torch.int32))


def test_a_token_mask_is_no_narrower_than_its_recordings() -> None:
    model = tiny_encoder()
    with pytest.raises(ValueError, match="give the mask that it was made with"):
        model.token_mask(torch.ones(1, 300), model.length(300) - 1)
    assert model.token_mask(torch.ones(1, 300), 40).sum() == model.length(300)


# Configurations.


def test_a_configuration_keeps_what_it_does_not_know_and_counts_its_convolutions() -> None:
    config = tritone.HubertConfig(
        conv_stride=(4, 3), conv_dim=(6, 8), conv_kernel=(8, 5), num_feat_extract_layers=7, something_new=3
    )
    assert config.something_new == 3
    assert config.num_feat_extract_layers == 2
    assert config.inputs_to_logits_ratio == 12
    assert tritone.HubertConfig.from_dict(config.to_dict()) == config


# Weights.


def test_the_effective_weight_is_made_once_and_follows_every_change() -> None:
    conv = tiny_encoder().encoder.pos_conv_embed.conv
    parts = conv.parametrizations["weight"]
    with torch.no_grad():
        first = conv.weight
        assert conv.weight is first
        parts["original0"].mul_(2)
        assert torch.allclose(conv.weight, 2 * first)
        parts["original1"].mul_(3)  # a direction has no length
        assert torch.allclose(conv.weight, 2 * first)
        conv.to(torch.float64)
        assert conv.weight.dtype == torch.float64
        assert copy.deepcopy(conv).weight is not conv.weight


def test_a_weight_made_in_inference_mode_serves_a_gradient_later() -> None:
    model = tiny_encoder().requires_grad_(False)
    values = noise(300)[0][None]
    with torch.inference_mode():
        model(values)
    values.requires_grad_(True)
    model(values).last_hidden_state.square().sum().backward()
    assert values.grad is not None
    assert values.grad.abs().sum() > 0


def test_a_checkpoint_without_the_mask_vector_is_read_without_a_word(tmp_path: Path) -> None:
    tiny_encoder().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["masked_spec_embed"]
    save_file(tensors, file, metadata={"format": "pt"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tritone.Wav2Vec2Model.from_pretrained(tmp_path)
    del tensors["feature_projection.projection.bias"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing: feature_projection\.projection\.bias"):
        tritone.Wav2Vec2Model.from_pretrained(tmp_path)


def test_adapters_that_a_checkpoint_lacks_are_fresh_and_warned_of(tmp_path: Path) -> None:
    plain = tiny_encoder()
    plain.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"adapter\.layers\.0\.conv\.bias"):
        model = tritone.Wav2Vec2Model.from_pretrained(tmp_path, add_adapter=True)
    assert torch.equal(model.get_parameter("encoder.layer_norm.weight"), plain.encoder.layer_norm.weight)
    assert model.length(300) == 3  # 24 frames, halved three times
    with pytest.raises(ValueError, match="missing: encoder"):
        tritone.Wav2Vec2Model.from_pretrained(tmp_path, add_adapter=True, num_hidden_layers=3)


def test_tensors_of_pretraining_are_left_out_and_a_head_alone_warned_of(tmp_path: Path) -> None:
    tiny_encoder().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    with_head = {f"wav2vec2.{name}": tensor for name, tensor in tensors.items()}
    save_file({**with_head, "quantizer.codevectors": torch.zeros(3)}, file, metadata={"format": "pt"})
    tritone.Wav2Vec2Model.from_pretrained(tmp_path)
    save_file({**tensors, "quantizer.codevectors": torch.zeros(3)}, file, metadata={"format": "pt"})
    with pytest.warns(UserWarning, match=r"quantizer\.codevectors"):
        tritone.Wav2Vec2Model.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("family", "fields"), [("Wav2Vec2", {"do_stable_layer_norm": True}), ("SEWD", {})])
@torch.no_grad()
def test_half_precision_is_near_single(
    family: str, fields: dict[str, Any], dtype: str, tmp_path: Path
) -> None:
    model = tiny_encoder(family, feat_extract_norm="layer", **fields)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    half = type(model).from_pretrained(tmp_path, dtype=dtype)
    values = noise(300)[0][None]
    wanted, given = model(values).last_hidden_state, half(values).last_hidden_state
    assert given.dtype == half.dtype
    assert float((given.float() - wanted).norm() / wanted.norm()) < 0.05


# Training.


def test_every_parameter_learns_and_a_frozen_feature_encoder_does_not() -> None:
    model = tiny_encoder(add_adapter=True, num_adapter_layers=1, output_hidden_size=9, **NO_CHANCE).train()
    values, mask = padded(noise(300, 222))
    masked = torch.zeros(2, model.feature_extractor.length(300), dtype=torch.bool)
    masked[:, 3] = True
    model.config.apply_spec_augment = True
    model(values, mask, masked).last_hidden_state.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad()
    model.freeze_feature_encoder()
    model(values, mask).last_hidden_state.square().sum().backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert "feature_projection.projection.weight" in learning
    assert not any(name.startswith("feature_extractor") for name in learning)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_without_chance_gives_what_evaluation_gives(family: str) -> None:
    model = tiny_encoder(family, **NO_CHANCE)
    values, mask = padded(noise(300, 222))
    with torch.no_grad():
        wanted = model(values, mask).last_hidden_state
    given = model.train()(values, mask).last_hidden_state
    assert torch.allclose(given, wanted, atol=1e-5)
    assert torch.allclose(model.forward_packed(*packed(noise(300)))[0], wanted[0], atol=1e-5)


@pytest.mark.parametrize("axis", ["time", "feature"])
def test_training_masks_spans_of_time_and_channels(axis: str) -> None:
    fields = {**NO_CHANCE, "apply_spec_augment": True, "mask_time_prob": 0.0, f"mask_{axis}_prob": 0.5}
    model = tiny_encoder(**fields, mask_feature_length=2)
    rows = noise(300, 222)
    seen: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    with torch.no_grad():
        model.forward_packed(*packed(rows))
        plain = torch.cat(seen)  # a chunk each
        seen.clear()
        model.train().forward_packed(*packed(rows))
    changed = seen[0] != plain
    if axis == "time":
        whole = changed.all(1)
        assert torch.equal(whole, changed.any(1))
        assert 0 < whole.sum() < len(whole)
        assert torch.equal(seen[0][whole], model.masked_spec_embed.detach().expand(int(whole.sum()), -1))
    else:
        first = changed[: model.length(300)]
        assert torch.equal(first.all(0), first.any(0))
        assert 0 < first.all(0).sum() < 12
        assert not seen[0][changed].any()


def test_masks_that_are_given_need_their_shape_and_the_vector() -> None:
    values = noise(300)[0][None]
    with pytest.raises(ValueError, match=r"mask_time_indices must be \[1, 24\], got \[1, 7\]"):
        tiny_encoder()(values, mask_time_indices=torch.zeros(1, 7, dtype=torch.bool))
    bare = tiny_encoder(mask_time_prob=0.0)
    assert bare.masked_spec_embed is None
    with pytest.raises(ValueError, match="set mask_time_prob or mask_feature_prob above 0"):
        bare(values, mask_time_indices=torch.zeros(1, 24, dtype=torch.bool))
    assert tiny_encoder("UniSpeechSat", mask_time_prob=0.0).masked_spec_embed is not None


def test_skipped_adapter_layers_leave_a_longer_output() -> None:
    model = tiny_encoder(**{**NO_CHANCE, "layerdrop": 0.5}, add_adapter=True, num_adapter_layers=2).train()
    model.encoder.config = copy.copy(model.config)
    values, mask = padded(noise(300, 222))
    widths = set()
    for seed in range(12):
        torch.manual_seed(seed)
        hidden = model(values, mask).last_hidden_state
        widths.add(hidden.shape[1])
        assert hidden[0].abs().sum(1).bool().all()
    assert widths == {24, 12, 6}
