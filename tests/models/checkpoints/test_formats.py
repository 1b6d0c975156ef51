"""Every form that weights come in: shards, .bin, half precision, damage, malice; and what is reported."""

import json
import os
import pickle
import random
import resource
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tritone
from tritone.models.checkpoints.weights import size_in_bytes

SIZES = {
    "vocab_size": 40,
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8,
    "conv_channels": 8,
    "max_source_positions": 20,
    "max_target_positions": 20,
    "input_feat_per_channel": 4,
}
HEAD, TABLE = "lm_head.weight", "model.decoder.embed_tokens.weight"
BIAS = "model.encoder.layers.0.fc1.bias"
Model = tritone.Speech2TextForConditionalGeneration


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return Model(tritone.Speech2TextConfig(**SIZES)).eval()


@pytest.fixture
def folder(model, tmp_path) -> Path:
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}


def as_bin(folder: Path, content: object, **options: Any) -> Path:
    """Put a pickle in the place of a folder's safetensors."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    torch.save(content, folder / "pytorch_model.bin", **options)
    return folder


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    mine, yours = one.state_dict(), other.state_dict()
    assert mine.keys() == yours.keys()
    for name, tensor in yours.items():
        assert torch.equal(mine[name], tensor), name
        assert mine[name].dtype == tensor.dtype


# .bin


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "the format before torch 1.6"])
def test_a_pickled_checkpoint_is_read_to_the_bit(model, folder, zipped):
    as_bin(folder, state_of(folder), _use_new_zipfile_serialization=zipped)
    assert_same_weights(Model.from_pretrained(folder), model)


def test_a_pickled_checkpoint_with_parameters_tied_twice_and_old_tables_is_read(model, folder):
    state = {name: torch.nn.Parameter(tensor) for name, tensor in state_of(folder).items()}
    state[HEAD] = state[TABLE]
    state["model.encoder.embed_positions.weights"] = torch.zeros(5, 8)
    loaded, report = Model.from_pretrained(as_bin(folder, state), output_loading_info=True)
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
    torch.save({name: tensor + 1 for name, tensor in state_of(folder).items()}, folder / "pytorch_model.bin")
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
    content = {**state_of(folder), "extra": Malice(tmp_path / "pwned")}
    as_bin(folder, content, _use_new_zipfile_serialization=form == "zip")
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
        Model.from_pretrained(as_bin(folder, content))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "the format before torch 1.6"])
@pytest.mark.parametrize("form", ["one number", "many names"])
def test_a_pickle_that_unpacks_to_far_more_than_it_has_is_refused_in_little_memory(form, zipped, folder):
    """One number that is said to be a table of gigabytes, as the configuration has it; or one table often."""
    config = json.loads((folder / "config.json").read_text())
    state = state_of(folder)
    if form == "one number":
        config["vocab_size"] = 10**8
        state[TABLE] = torch.zeros(1).expand(10**8, 8)
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
    as_bin(folder, state, _use_new_zipfile_serialization=zipped)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is damaged \(its tensors have over \d+ bytes"):
        Model.from_pretrained(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_a_compressed_pickle_is_refused_for_it_has_no_bound(folder):
    path = as_bin(folder, state_of(folder)) / "pytorch_model.bin"
    with zipfile.ZipFile(path) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in entries:
            archive.writestr(entry.filename, data)
    with pytest.raises(
        ValueError, match=r"pytorch_model\.bin is damaged \(it is compressed\); fetch it again"
    ):
        Model.from_pretrained(folder)


# safetensors that are damaged


def header(**tensors: Any) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


def tensor(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


DAMAGED = {
    "empty": b"",
    "short": b"\x08\0\0",
    "no header": struct.pack("<Q", 0),
    "absurd header": struct.pack("<Q", 2**60) + b"{}",
    "header beyond the file": struct.pack("<Q", 10_000) + b"{}",
    "not JSON": struct.pack("<Q", 4) + b"{{{{",
    "not UTF-8": struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
    "a list": struct.pack("<Q", 2) + b"[]",
    "absurd tensor": header(a=tensor([10**6, 10**6], 0, 4 * 10**12)) + bytes(64),
    "shape beyond its data": header(a=tensor([10**9], 0, 64)) + bytes(64),
    "product that overflows": header(a=tensor([2**33, 2**33], 0, 64)) + bytes(64),
    "offsets outside": header(a=tensor([16], 64, 128)) + bytes(64),
    "offsets backwards": header(a=tensor([16], 64, 0)) + bytes(64),
    "overlap": header(a=tensor([16], 0, 64), b=tensor([16], 32, 96)) + bytes(96),
    "unknown dtype": header(a=tensor([16], 0, 64, "F33")) + bytes(64),
    "deep": struct.pack("<Q", 100_000) + b"[" * 100_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_safetensors_are_refused_by_name_in_little_memory(content, folder):
    (folder / "model.safetensors").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged .*; fetch it again"):
        Model.from_pretrained(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_mutated_weights_load_or_are_refused(model, folder):
    """No crash and nothing else than what is documented, whichever bytes are changed, lost or added."""
    saved = (folder / "model.safetensors").read_bytes()
    pickled = (as_bin(folder, state_of_bytes(saved, folder)) / "pytorch_model.bin").read_bytes()
    draw, refused = random.Random(0), 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for round_ in range(120):
        name, content = ("model.safetensors", saved) if round_ % 2 else ("pytorch_model.bin", pickled)
        for other in ("model.safetensors", "pytorch_model.bin"):
            (folder / other).unlink(missing_ok=True)
        data = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            at = int(len(data) * draw.random() ** 3)  # most of them in the header
            data[at : at + draw.choice((0, 1, 1, 8))] = draw.randbytes(draw.choice((0, 1, 1, 8)))
        (folder / name).write_bytes(data[: draw.choice((len(data), len(data), draw.randrange(len(data))))])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                loaded = Model.from_pretrained(folder)
            except ValueError:
                refused += 1
            else:
                assert loaded.state_dict().keys() == model.state_dict().keys()
    assert 40 < refused < 120
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def state_of_bytes(content: bytes, folder: Path) -> dict[str, torch.Tensor]:
    path = folder.parent / "copy.safetensors"
    path.write_bytes(content)
    return {name: value.clone() for name, value in load_file(path).items()}


# Configurations that would take the machine down


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"vocab_size": 10**12}, "describes no model|describes a model of over"),
        ({"vocab_size": 10**8}, "describes a model of over|describes no model"),
        (
            {"encoder_layers": 10**7},
            "describes a model of over .* its weights are 51 tensors; correct its sizes",
        ),
        (
            {"max_source_positions": 10**9},
            "asks for a table of 1000000002 numbers, and 67108864 are the most",
        ),
        ({"max_target_positions": 3 * 10**7}, "asks for a table of"),
        ({"vocab_size": -1}, "describes no model"),
        ({"vocab_size": "many"}, "describes no model"),
        ({"encoder_layers": None}, "describes no model"),
        ({"d_model": None}, "has fields that make no configuration"),
        ({"conv_kernel_sizes": 5}, "has fields that make no configuration"),
        ({"encoder_attention_heads": 0}, "encoder_attention_heads 0 must divide d_model"),
    ],
    ids=str,
)
def test_absurd_sizes_in_a_configuration_are_refused_before_they_are_allocated(fields, problem, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=problem):
        Model.from_pretrained(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 10**6, "nested too deeply"),
        ("\xff", "is not JSON"),
        ("1" * 5000, "is not JSON"),
        ("3", "it holds a int"),
    ],
    ids=["deep", "not UTF-8", "long number", "number"],
)
def test_a_configuration_that_is_no_json_object_is_refused(text, problem, folder):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=problem):
        Model.from_pretrained(folder)


def test_a_configuration_of_gigabytes_is_not_read(folder):
    with (folder / "config.json").open("wb") as file:
        file.truncate(2**32)  # a hole, which takes no space
    with pytest.raises(ValueError, match="has 4294967296 bytes, more than the"):
        Model.from_pretrained(folder)


# What is missing, too much, or of another shape


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    state = {**state_of(folder), **changes}
    kept = {name: value for name, value in state.items() if value is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_missing_tensor_is_an_error_and_in_a_report_it_is_reported(model, folder):
    rewrite(folder, **{BIAS: None})
    with pytest.raises(ValueError, match=f"do not fit its configuration: missing: {BIAS}"):
        Model.from_pretrained(folder)
    loaded, report = Model.from_pretrained(folder, output_loading_info=True)
    assert report["missing_keys"] == {BIAS}
    assert loaded.get_parameter(BIAS).abs().sum() == 0  # fresh
    assert torch.equal(loaded.get_parameter(TABLE), model.get_parameter(TABLE))


def test_a_tensor_of_another_shape_is_an_error_unless_it_may_stay_fresh(folder):
    rewrite(folder, **{BIAS: torch.ones(9)})
    problem = rf"wrong shape: {BIAS} is \[9\], the configuration wants \[8\]"
    for options in ({}, {"output_loading_info": True}):
        with pytest.raises(ValueError, match=problem):
            Model.from_pretrained(folder, **options)
    with pytest.warns(UserWarning, match=problem):
        loaded, report = Model.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True)
    assert report["mismatched_keys"] == {(BIAS, (9,), (8,))}
    assert report["missing_keys"] == set()
    assert loaded.get_parameter(BIAS).abs().sum() == 0


def test_tensors_that_have_no_place_are_warned_of_once_and_left_out(model, folder):
    rewrite(folder, **{"model.more": torch.zeros(1), "model.most": torch.zeros(1)})
    with pytest.warns(UserWarning, match="unexpected: model.more; unexpected: model.most") as caught:
        loaded, report = Model.from_pretrained(folder, output_loading_info=True)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert report["unexpected_keys"] == {"model.more", "model.most"}
    assert_same_weights(loaded, model)


def test_a_model_that_is_not_tied_needs_its_head(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    with pytest.raises(ValueError, match=f"missing: {HEAD}"):
        Model.from_pretrained(folder)


def test_of_two_tied_tensors_either_is_enough(model, folder):
    rewrite(folder, **{TABLE: None, HEAD: model.lm_head.weight.detach().clone()})
    loaded = Model.from_pretrained(folder)
    assert_same_weights(loaded, model)
    assert loaded.lm_head.weight is loaded.model.decoder.embed_tokens.weight
    rewrite(folder, **{HEAD: None})
    with pytest.raises(ValueError, match=f"missing: {TABLE}"):
        Model.from_pretrained(folder)


def test_tied_tensors_that_differ_are_untied_with_a_warning_and_stay_so(model, folder, tmp_path):
    rewrite(folder, **{HEAD: torch.ones(40, 8)})
    with pytest.warns(UserWarning, match=f"give {HEAD} values of its own, so it is not tied"):
        loaded = Model.from_pretrained(folder)
    assert torch.equal(loaded.lm_head.weight, torch.ones(40, 8))
    assert torch.equal(loaded.get_parameter(TABLE), model.get_parameter(TABLE))
    loaded.save_pretrained(tmp_path / "again")
    with pytest.warns(UserWarning, match="not tied"):
        assert_same_weights(Model.from_pretrained(tmp_path / "again"), loaded)


def test_a_head_and_its_model_without_one_load_each_others_checkpoints(model, folder, tmp_path):
    bare = tritone.Speech2TextModel.from_pretrained(folder)
    assert_same_weights(bare, model.model)
    bare.save_pretrained(tmp_path / "bare")
    assert not any(name.startswith("model.") for name in load_file(tmp_path / "bare" / "model.safetensors"))
    assert_same_weights(Model.from_pretrained(tmp_path / "bare"), model)


def test_weights_can_be_given_instead_of_a_file(model, folder):
    state = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    (folder / "model.safetensors").unlink()
    loaded = Model.from_pretrained(folder, state_dict=state)
    assert torch.equal(loaded.get_parameter(BIAS), model.get_parameter(BIAS) + 1)
    loaded = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(None, config=model.config, state_dict=state)
    assert torch.equal(loaded.get_parameter(BIAS), model.get_parameter(BIAS) + 1)
    assert not loaded.training
    with pytest.raises(ValueError, match=f"the weights in state_dict do not fit .*missing: {BIAS}"):
        Model.from_pretrained(
            folder, state_dict={name: value for name, value in state.items() if name != BIAS}
        )
    with pytest.raises(ValueError, match="config and state_dict must be given"):
        Model.from_pretrained(None, config=model.config)


# dtypes


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_auto_is_the_configurations_dtype_or_else_the_weights(stored, model, folder):
    state = {name: tensor.to(stored) for name, tensor in state_of(folder).items()}
    save_file(state, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    for field, expected in (("dtype", torch.float16), ("torch_dtype", torch.float16), ("none", stored)):
        fields = {name: value for name, value in config.items() if name not in ("dtype", "torch_dtype")}
        (folder / "config.json").write_text(json.dumps({**fields, field: "float16"}))
        for argument in ("dtype", "torch_dtype"):
            loaded = Model.from_pretrained(folder, **{argument: "auto"})
            assert {parameter.dtype for parameter in loaded.parameters()} == {expected}
            assert loaded.config.dtype == loaded.config.torch_dtype == str(expected).removeprefix("torch.")
    assert Model.from_pretrained(folder).dtype == torch.float32
    assert Model.from_pretrained(folder, torch_dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "placement", [{"device": "cpu"}, {"device_map": "cpu"}, {"device_map": {"": "cpu"}}], ids=str
)
def test_a_model_lies_where_it_is_told(placement, folder):
    assert Model.from_pretrained(folder, **placement).device == torch.device("cpu")


@pytest.mark.parametrize("device_map", [{"model.encoder": "cpu", "lm_head": "cpu"}, ["cpu"]], ids=str)
def test_a_model_does_not_lie_on_several_devices(device_map, folder):
    with pytest.raises(ValueError, match="a model lies on one device; use device="):
        Model.from_pretrained(folder, device_map=device_map)
    with pytest.raises(ValueError, match="device and device_map are both given"):
        Model.from_pretrained(folder, device="cpu", device_map="auto")


# Saving


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
