"""Weights that fit their model or do not: missing, unexpected, mismatched, tied; dtype and device."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from checkpoints import assert_same_weights, weights_of
from safetensors.torch import load_file, save_file

import tritone

HEAD, TABLE = "lm_head.weight", "model.decoder.embed_tokens.weight"
BIAS = "model.encoder.layers.0.fc1.bias"
Model = tritone.Speech2TextForConditionalGeneration


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    state = {**weights_of(folder), **changes}
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


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_the_default_is_the_configurations_dtype_or_else_the_weights_as_in_transformers(
    stored, model, folder
):
    state = {name: tensor.to(stored) for name, tensor in weights_of(folder).items()}
    save_file(state, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    for field, expected in (("dtype", torch.float16), ("torch_dtype", torch.float16), ("none", stored)):
        fields = {name: value for name, value in config.items() if name not in ("dtype", "torch_dtype")}
        (folder / "config.json").write_text(json.dumps({**fields, field: "float16"}))
        theirs = transformers.Speech2TextForConditionalGeneration.from_pretrained(folder)
        assert theirs.dtype == expected
        for given in ({}, {"dtype": "auto"}, {"torch_dtype": "auto"}):
            loaded = Model.from_pretrained(folder, **given)
            assert {parameter.dtype for parameter in loaded.parameters()} == {expected}
            assert loaded.config.dtype == loaded.config.torch_dtype == str(expected).removeprefix("torch.")
    assert Model.from_pretrained(folder, dtype="float32").dtype == torch.float32
    assert Model.from_pretrained(folder, torch_dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_dtype_that_no_model_has_is_float32_by_default(folder):
    state = {name: tensor.double() for name, tensor in weights_of(folder).items()}
    save_file(state, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float64"}))
    assert Model.from_pretrained(folder).dtype == torch.float32
    with pytest.raises(ValueError, match="use float32, float16 or bfloat16"):
        Model.from_pretrained(folder, dtype="auto")


@pytest.mark.parametrize(
    "placement", [{"device": "cpu"}, {"device_map": "cpu"}, {"device_map": {"": "cpu"}}], ids=str
)
def test_a_model_lies_where_it_is_told(placement, folder):
    assert Model.from_pretrained(folder, **placement).device == torch.device("cpu")


@pytest.mark.parametrize("device_map", [{"model.encoder": "cpu", "lm_head": "cpu"}, ["cpu"]], ids=str)
def test_a_model_does_not_lie_on_several_devices(device_map, folder):
    with pytest.raises(ValueError, match="a model is on one device; use device="):
        Model.from_pretrained(folder, device_map=device_map)
    with pytest.raises(ValueError, match="device and device_map are both given"):
        Model.from_pretrained(folder, device="cpu", device_map="auto")
