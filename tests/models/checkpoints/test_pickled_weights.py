"""Weights in torch's .bin: whole, in shards, damaged and malicious."""

import json
import os
import pickle
import resource
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import assert_same_weights, replace_by_bin, weights_of

import tritone

HEAD, TABLE = "lm_head.weight", "model.decoder.embed_tokens.weight"
BIAS = "model.encoder.layers.0.fc1.bias"
Model = tritone.Speech2TextForConditionalGeneration


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "the format before torch 1.6"])
def test_a_pickled_checkpoint_is_read_to_the_bit(model, folder, zipped):
    replace_by_bin(folder, weights_of(folder), _use_new_zipfile_serialization=zipped)
    assert_same_weights(Model.from_pretrained(folder), model)


def test_a_pickled_checkpoint_with_parameters_tied_twice_and_old_tables_is_read(model, folder):
    state = {name: torch.nn.Parameter(tensor) for name, tensor in weights_of(folder).items()}
    state[HEAD] = state[TABLE]
    state["model.encoder.embed_positions.weights"] = torch.zeros(5, 8)
    loaded, report = Model.from_pretrained(replace_by_bin(folder, state), output_loading_info=True)
    assert_same_weights(loaded, model)
    assert loaded.lm_head.weight is loaded.model.decoder.embed_tokens.weight
    assert report == {
        "missing_keys": set(),
        "unexpected_keys": set(),
        "mismatched_keys": set(),
        "error_msgs": [],
    }


def test_a_pickled_checkpoint_in_shards_is_read_to_the_bit(model, tmp_path):
    model.save_pretrained(tmp_path, safe_serialization=False, max_shard_size="4KB")
    assert len(list(tmp_path.glob("pytorch_model-*-of-*.bin"))) > 2
    assert not list(tmp_path.glob("*.safetensors"))
    assert_same_weights(Model.from_pretrained(tmp_path), model)


def test_safetensors_go_before_a_pickle_unless_that_is_asked_for(model, folder):
    torch.save(
        {name: tensor + 1 for name, tensor in weights_of(folder).items()}, folder / "pytorch_model.bin"
    )
    assert_same_weights(Model.from_pretrained(folder), model)
    other = Model.from_pretrained(folder, use_safetensors=False)
    assert torch.equal(other.get_parameter(BIAS), model.get_parameter(BIAS) + 1)
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"has no model\.safetensors, whole or in shards; leave use_saf"
    ):
        Model.from_pretrained(folder, use_safetensors=True)


class Malice:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["zip", "before 1.6", "pickle"])
@pytest.mark.parametrize("environment", [{}, {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}], ids=["", "forced"])
def test_nothing_but_tensors_is_ever_unpickled(form, environment, folder, tmp_path, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    content = {**weights_of(folder), "extra": Malice(tmp_path / "pwned")}
    replace_by_bin(folder, content, _use_new_zipfile_serialization=form == "zip")
    if form == "pickle":
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(content["extra"]))
    with pytest.raises(
        ValueError, match=r"pytorch_model\.bin is damaged, or holds more than tensors and is not"
    ):
        Model.from_pretrained(folder)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([torch.zeros(2)], "must hold an object of tensors, it holds a list"),
        (torch.zeros(2), "must hold an object of tensors, it holds a Tensor"),
        ({"epoch": 3}, "must hold dense tensors by name; 'epoch' is a int"),
        ({"state_dict": {"a": torch.zeros(2)}}, "'state_dict' is a dict"),
        ({3: torch.zeros(2)}, "must hold dense tensors by name; 3 is a Tensor"),
        ({"a": torch.eye(3).to_sparse()}, "must hold dense tensors"),
        ({"a": torch.empty(3, device="meta")}, "'a' is a torch.float32 on meta"),
        ({"a": torch.ones(3, dtype=torch.complex64)}, "'a' is a torch.complex64 on cpu"),
    ],
    ids=["list", "tensor", "number", "nested", "number as name", "sparse", "no bytes", "complex"],
)
def test_a_pickle_of_something_else_is_refused(content, problem, folder):
    with pytest.raises(ValueError, match=problem):
        Model.from_pretrained(replace_by_bin(folder, content))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "the format before torch 1.6"])
@pytest.mark.parametrize("form", ["one number", "many names"])
def test_a_pickle_that_unpacks_to_far_more_than_it_has_is_refused_in_little_memory(form, zipped, folder):
    """One number that is said to be a table of gigabytes, as the configuration has it; or one table often."""
    config = json.loads((folder / "config.json").read_text())
    state = weights_of(folder)
    if form == "one number":
        config["vocab_size"] = 10**7
        state[TABLE] = torch.zeros(1).expand(10**7, 8)
    else:
        config |= {"encoder_layers": 2000, "encoder_ffn_dim": 10_000}
        matrix = torch.zeros(10_000, 8)
        whole = {
            "fc1.weight": matrix,
            "fc1.bias": matrix[:, 0].contiguous(),
            "fc2.weight": matrix.view(8, -1),
        }
        for name in [name for name in state if ".encoder.layers.0." in name]:
            for number in range(2000):
                leaf = name.partition("layers.0.")[2]
                state[name.replace("layers.0.", f"layers.{number}.")] = whole.get(leaf, state[name])
    (folder / "config.json").write_text(json.dumps(config))
    replace_by_bin(folder, state, _use_new_zipfile_serialization=zipped)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is damaged \(its tensors have over \d+ bytes"):
        Model.from_pretrained(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_a_compressed_pickle_is_refused_for_it_has_no_bound(folder):
    path = replace_by_bin(folder, weights_of(folder)) / "pytorch_model.bin"
    with zipfile.ZipFile(path) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in entries:
            archive.writestr(entry.filename, data)
    with pytest.raises(
        ValueError, match=r"pytorch_model\.bin is damaged \(it is compressed\); fetch it again"
    ):
        Model.from_pretrained(folder)


def test_a_length_beyond_the_memory_is_called_damage(folder, monkeypatch):
    def ask_for_all(*_: object, **__: object) -> None:  # as torch does where a text's length is 4 GB
        raise MemoryError

    replace_by_bin(folder, weights_of(folder))
    monkeypatch.setattr(torch, "load", ask_for_all)
    with pytest.raises(
        ValueError, match=r"pytorch_model\.bin is damaged, or needs more memory than there is"
    ):
        Model.from_pretrained(folder)
