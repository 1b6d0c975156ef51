"""Checkpoints as they are saved: modes, shards, files of an earlier model."""

import json
import os
import warnings

import pytest
import torch
from checkpoints import assert_same_weights
from safetensors.torch import load_file

import tritone
from tritone.models.checkpoints.weights import size_in_bytes

HEAD, TABLE = "lm_head.weight", "model.decoder.embed_tokens.weight"
BIAS = "model.encoder.layers.0.fc1.bias"
Model = tritone.Speech2TextForConditionalGeneration


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize("safe", [True, False])
def test_others_may_read_what_is_saved_where_the_umask_lets_them(safe, model, tmp_path):
    model.save_pretrained(tmp_path, safe_serialization=safe, max_shard_size=100_000)
    (tmp_path / "mine").touch()
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) > 3
    assert set(modes.values()) == {modes["mine"]}


def test_saving_again_leaves_no_weights_that_would_be_read_first(model, tmp_path):
    changed = Model.from_config(model.config).eval()
    steps = (
        {"max_shard_size": "4KB"},
        {"max_shard_size": "1KB"},
        {},
        {"safe_serialization": False},
        {"max_shard_size": "4KB", "safe_serialization": False},
        {"safe_serialization": False},
        {},
    )
    for number, options in enumerate(steps):
        saved = (model, changed)[number % 2]
        saved.save_pretrained(tmp_path, **options)
        assert_same_weights(Model.from_pretrained(tmp_path), saved)
        assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob("*-of-*")) + list(tmp_path.glob("*.index.json"))


def test_shards_are_no_larger_than_asked_unless_a_tensor_is(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size=3000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    seen: set[str] = set()
    for path in sorted(tmp_path.glob("model-*-of-*.safetensors")):
        tensors = load_file(path)
        assert {index["weight_map"][name] for name in tensors} == {path.name}
        assert len(tensors) == 1 or sum(value.nbytes for value in tensors.values()) <= 3000
        seen |= tensors.keys()
    assert seen == index["weight_map"].keys() == model.state_dict().keys() - {HEAD}
    assert index["metadata"]["total_size"] == sum(value.numel() * 4 for value in model.parameters())


def test_a_state_dict_is_saved_instead_of_the_models_own(model, tmp_path):
    changed = {name: value + 1 for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=changed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # tied tensors that were saved apart are equal
        loaded = Model.from_pretrained(tmp_path)
    assert torch.equal(loaded.get_parameter(BIAS), model.get_parameter(BIAS) + 1)


def test_a_model_can_be_saved_over_the_files_that_it_came_from(model, folder):
    loaded = Model.from_pretrained(folder)
    with torch.no_grad():
        loaded.get_parameter(BIAS).add_(1)
    loaded.save_pretrained(folder)
    assert_same_weights(Model.from_pretrained(folder), loaded)


@pytest.mark.parametrize(
    ("size", "count"),
    [(7, 7), ("5GB", 5 * 10**9), ("2 kib", 2048), ("1.5MB", 1_500_000), ("10B", 10), ("3TiB", 3 * 2**40)],
)
def test_a_size_is_bytes_or_a_number_with_a_unit(size, count):
    assert size_in_bytes(size) == count


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "", "5", "GB", "5 parsecs", "-1GB", "0KB", None])
def test_a_size_that_is_none_is_refused(size, model, tmp_path):
    with pytest.raises(ValueError, match="a size is bytes or a string such as"):
        model.save_pretrained(tmp_path, max_shard_size=size)
