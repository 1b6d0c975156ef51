"""Speech encoders of the wav2vec 2.0 kind: transformers' outputs at batch 1, the same bits in any batch."""

import copy
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from parity import STATES
from safetensors.torch import load_file, save_file
from torch import Tensor
from waveform_encoders import (
    SEW_D,
    SPECS,
    assert_close,
    compare_gradients,
    packed,
    padded,
    their_class,
    waveform,
)

import tritone

PARITY = [name for name in SPECS if name != "middle-group"]
LENGTHS = (300, 401, 557, 998, 1703, 2519, 4000, 7777)  # samples


@pytest.mark.parametrize("samples", [300, 998, 7777])
@pytest.mark.parametrize("name", PARITY)
@torch.no_grad()
def test_everything_returned_is_what_transformers_returns(name: str, samples: int, speech_pair: Any) -> None:
    pair = speech_pair(name)
    values = waveform(samples)[None]
    theirs, ours = pair.theirs(values, **STATES), pair.ours(values, **STATES)
    assert list(ours.keys()) == list(theirs.keys())
    assert_close(ours.last_hidden_state, theirs.last_hidden_state, pair.tolerance)
    for field, tolerance in (("hidden_states", pair.tolerance), ("attentions", 1e-5)):
        for one, other in zip(ours[field], theirs[field], strict=True):
            assert_close(one, other, tolerance)
    if "extract_features" in theirs:
        assert_close(ours.extract_features, theirs.extract_features, pair.tolerance)
    assert pair.ours.length(samples) == theirs.last_hidden_state.shape[1]
    assert torch.equal(pair.ours(values).last_hidden_state, ours.last_hidden_state)
    plain = pair.ours(values, return_dict=False)
    assert isinstance(plain, tuple)
    assert torch.equal(plain[0], ours.last_hidden_state)


@pytest.mark.parametrize(
    "name", [name for name in PARITY if "sat" in name or "mask_time_prob" not in SPECS[name][1]]
)
@torch.no_grad()
def test_given_masks_stand_where_transformers_puts_them(name: str, speech_pair: Any) -> None:
    pair = speech_pair(name)
    values = waveform(1703)[None]
    frames = pair.ours.feature_extractor.length(1703)
    masked = torch.rand(1, frames, generator=torch.Generator().manual_seed(3)) < 0.3
    given = pair.theirs(values, mask_time_indices=masked).last_hidden_state
    assert_close(pair.ours(values, mask_time_indices=masked).last_hidden_state, given, pair.tolerance)
    assert float((given - pair.theirs(values).last_hidden_state).abs().max()) > 0.05


@pytest.mark.parametrize("name", SPECS)
@torch.inference_mode()
def test_a_packed_utterance_has_the_bits_it_has_alone(name: str, speech_pair: Any) -> None:
    ours = speech_pair(name).ours
    alone = {samples: ours.forward_packed(*packed([waveform(samples)]))[0] for samples in LENGTHS}
    assert [len(one) for one in alone.values()] == [ours.length(samples) for samples in LENGTHS]
    for turn in (0, 3, 6):  # every second utterance comes first, in the middle and last
        order = [*LENGTHS[turn:], *LENGTHS[:turn]][:: 1 if turn != 3 else -1]
        hidden, cu_tokens = ours.forward_packed(*packed([waveform(samples) for samples in order]))
        for samples, one in zip(order, hidden.split(cu_tokens.diff().tolist()), strict=True):
            assert torch.equal(one, alone[samples]), (order, samples)


@pytest.mark.parametrize("name", [name for name in SPECS if name not in SEW_D[2:]])
@torch.no_grad()
def test_a_padded_row_has_the_bits_it_has_alone_and_zeros_behind(name: str, speech_pair: Any) -> None:
    ours = speech_pair(name).ours
    values, mask = padded([waveform(samples) for samples in LENGTHS])
    output = ours(values, mask, **STATES)
    token_mask = ours.token_mask(mask)
    assert token_mask.shape == output.last_hidden_state.shape[:2]
    for row, samples in enumerate(LENGTHS):
        solo = ours(waveform(samples)[None], **STATES)
        tokens = ours.length(samples)
        assert token_mask[row].sum() == tokens
        assert_padded(output.last_hidden_state[row], solo.last_hidden_state[0])
        for one, other in zip(output.hidden_states, solo.hidden_states, strict=True):
            assert_padded(one[row], other[0])
        for one, other in zip(output.attentions, solo.attentions, strict=True):
            assert torch.equal(one[row, :, : other.shape[2], : other.shape[3]], other[0])


def assert_padded(row: Tensor, alone: Tensor) -> None:
    assert torch.equal(row[: len(alone)], alone)
    assert not row[len(alone) :].any()


@pytest.mark.parametrize(
    "name", ["wav2vec2-group", "wav2vec2-layer-stable-adapter", "hubert-batch-norm", "sew", *SEW_D]
)
def test_gradients_are_those_of_transformers(name: str, speech_pair: Any) -> None:
    pair = speech_pair(name)
    ours, theirs = copy.deepcopy(pair.ours), copy.deepcopy(pair.theirs)
    values = waveform(1703)[None]
    for model in (ours, theirs):
        model(values).last_hidden_state.square().mean().backward()
    assert compare_gradients(ours, theirs, 1e-3, 1e-3) > (40 if name in SEW_D else 20)


@pytest.mark.parametrize(
    "name",
    ["wav2vec2-group", "hubert-layer-stable", "hubert-batch-norm", "unispeech-sat-stable", "sew-squeeze-3"],
)
def test_a_seed_drops_the_same_things_in_training_as_in_transformers(name: str, speech_pair: Any) -> None:
    pair = speech_pair(name)
    ours, theirs = copy.deepcopy(pair.ours), copy.deepcopy(pair.theirs)
    values = waveform(998)[None]
    skipped = set()
    for model in (ours, theirs):
        model.train()
        model.config.apply_spec_augment = False  # drawn by another generator there
        model.config.layerdrop = 0.4
    for seed in range(8):
        outputs = []
        for model in (ours, theirs):
            torch.manual_seed(seed)
            output = model(values, output_hidden_states=True)
            outputs.append(output.last_hidden_state.detach())
            skipped.add(len(output.hidden_states))
        assert_close(*outputs, pair.tolerance)
    assert len(skipped) > 1
    for key, buffer in theirs.named_buffers():
        assert torch.allclose(ours.get_buffer(key).float(), buffer.float(), atol=1e-5), key


@torch.no_grad()
def test_what_a_padded_batch_does_in_transformers(speech_pair: Any, report: Callable[[str], None]) -> None:
    names = ("wav2vec2-group", "middle-group", "hubert", "hubert-layer-stable", "sew")
    values, mask = padded([waveform(samples) for samples in LENGTHS])
    report(f"{len(LENGTHS)} waveforms in one padded batch, output against each alone (random weights):")
    for name in (*names, "wav2vec2-layer-stable-adapter"):
        pair = speech_pair(name)
        norm = pair.theirs.config.feat_extract_norm
        # Published models with a group norm are to be given no mask, having been trained without.
        ways = {"masked": mask, "without a mask": None} if norm == "group" else {"masked": mask}
        theirs = {way: distances(pair.theirs, values, given) for way, given in ways.items()}
        told = (f"{way} {mean(off):.1%} off, at most {max(off):.1%}" for way, off in theirs.items())
        ours = distances(pair.ours, values, mask)
        same = f"Tritone: {ours.count(0.0)} of {len(ours)} the same bits"
        report(f"  {name} ({norm} norm): transformers {', '.join(told)}; {same}")
        assert not any(ours)
        # Or the comparison has lost its point, and the README its claim.
        assert norm != "group" or min(map(max, theirs.values())) > 1e-3


def distances(model: Any, values: Tensor, mask: Tensor | None) -> list[float]:
    """Distance of each row's output from that of the row alone, in its norm; 0 where all bits are equal."""
    batch = model(values, attention_mask=mask).last_hidden_state
    found = []
    for row, samples in enumerate(LENGTHS):
        alone = model(waveform(samples)[None]).last_hidden_state[0]
        own = batch[row, : len(alone)]
        found.append(0.0 if torch.equal(own, alone) else float((own - alone).norm() / alone.norm()))
    return found


@pytest.mark.parametrize(
    "name", ["wav2vec2-layer-stable-adapter", "hubert", "unispeech", "unispeech-sat", "sew", *SEW_D]
)
def test_a_checkpoint_goes_to_transformers_and_back(name: str, speech_pair: Any, tmp_path: Path) -> None:
    pair = speech_pair(name)
    pair.ours.save_pretrained(tmp_path / "ours")
    theirs, report = their_class(pair.family, "Model").from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for key, tensor in pair.theirs.state_dict().items():
        assert torch.equal(theirs.state_dict()[key], tensor), key
    theirs.save_pretrained(tmp_path / "theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        again = (
            tritone.AutoConfig.from_pretrained(tmp_path / "theirs"),
            type(pair.ours).from_pretrained(tmp_path / "theirs"),
        )
    for key, tensor in pair.ours.state_dict().items():
        assert torch.equal(again[1].state_dict()[key], tensor), key
    assert again[1].config.to_dict() | {"dtype": None} == again[0].to_dict() | {"dtype": None}


@pytest.mark.parametrize("name", ["wav2vec2-group", "hubert-layer-stable", "sew"])
@torch.no_grad()
def test_weight_norm_is_read_in_its_older_spelling(name: str, speech_pair: Any, tmp_path: Path) -> None:
    pair = speech_pair(name)
    shutil.copytree(pair.folder, tmp_path / "old")
    file = tmp_path / "old" / "model.safetensors"
    tensors = {older_name(key): tensor for key, tensor in load_file(file).items()}
    assert sum(key.endswith(("weight_g", "weight_v")) for key in tensors) == 2
    save_file(tensors, file, metadata={"format": "pt"})
    old = type(pair.ours).from_pretrained(tmp_path / "old")
    values = waveform(998)[None]
    assert torch.equal(old(values).last_hidden_state, pair.ours(values).last_hidden_state)


def older_name(key: str) -> str:
    key = key.replace("parametrizations.weight.original0", "weight_g")
    return key.replace("parametrizations.weight.original1", "weight_v")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "ForCTC") for name in ("wav2vec2-group", "hubert", "unispeech-stable", "unispeech-sat")),
        *((name, "ForCTC") for name in ("sew", SEW_D[0])),
        ("wav2vec2-group", "ForPreTraining"),
    ],
)
@torch.no_grad()
def test_the_encoder_of_a_checkpoint_with_a_head_is_read(name: str, kind: str, tmp_path: Path) -> None:
    family, fields = SPECS[name]
    torch.manual_seed(1)
    more = {"vocab_size": 13} if kind == "ForCTC" else {"codevector_dim": 8, "num_codevectors_per_group": 5}
    theirs = their_class(family, kind)(their_class(family, "Config")(**fields, **more)).eval()
    theirs.save_pretrained(tmp_path)
    ours = getattr(tritone, f"{family}Model").from_pretrained(tmp_path)
    values = waveform(998)[None]
    base = getattr(theirs, theirs.base_model_prefix)
    assert_close(ours(values).last_hidden_state, base(values).last_hidden_state, 2e-4)


@pytest.mark.parametrize("family", ["Wav2Vec2", "Hubert", "UniSpeech", "UniSpeechSat", "SEW", "SEWD"])
def test_a_default_configuration_is_transformers(family: str, tmp_path: Path) -> None:
    theirs = their_class(family, "Config")()
    ours = getattr(tritone, f"{family}Config")()
    assert ours.inputs_to_logits_ratio == theirs.inputs_to_logits_ratio
    mine = {key: plain(value) for key, value in ours.to_dict().items()}
    yours = {key: plain(value) for key, value in theirs.to_dict().items()}
    missing = {key: value for key, value in yours.items() if key not in mine and not neutral(key)}
    assert not missing
    assert ("layerdrop" in mine) == (family != "SEWD")
    assert {key: mine[key] for key in mine if key in yours} == {
        key: yours[key] for key in yours if key in mine
    }
    assert not mine.keys() - yours.keys()
    adopted = type(ours).adopt(theirs).to_dict()
    assert {key: adopted[key] for key in mine} == ours.to_dict()
    ours.save_pretrained(tmp_path)
    assert plain(their_class(family, "Config").from_pretrained(tmp_path).conv_dim) == mine["conv_dim"]
    assert tritone.AutoConfig.from_pretrained(tmp_path) == ours


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def neutral(key: str) -> bool:
    """Fields of transformers' base class that say nothing about the model."""
    return key in {
        "transformers_version",
        "_name_or_path",
        "chunk_size_feed_forward",
        "id2label",
        "label2id",
        "is_encoder_decoder",
        "problem_type",
        "architectures",
    }
