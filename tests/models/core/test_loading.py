"""Weights: what transformers wrote is read, what is written here transformers reads, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from factories import SPEECH_TO_TEXT
from safetensors.torch import load_file, save_file
from transformers import Speech2TextConfig as TheirConfig
from transformers import Speech2TextForConditionalGeneration as TheirModel
from transformers import Speech2TextModel as TheirBareModel

from tritone.models.speech_to_text.config import Speech2TextConfig
from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration, Speech2TextModel

SIZES = {**SPEECH_TO_TEXT, "input_feat_per_channel": 7}
read = Speech2TextForConditionalGeneration.from_pretrained
HEAD, TABLE = "lm_head.weight", "model.decoder.embed_tokens.weight"


@pytest.fixture(scope="module")
def theirs() -> TheirModel:
    torch.manual_seed(0)
    return TheirModel(TheirConfig(**SIZES)).eval()


@pytest.fixture
def folder(theirs, tmp_path) -> Path:
    theirs.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def assert_same_weights(mine: torch.nn.Module, yours: torch.nn.Module) -> None:
    mine_by_name, yours_by_name = dict(mine.named_parameters()), dict(yours.named_parameters())
    assert mine_by_name.keys() == yours_by_name.keys()
    for name, parameter in yours_by_name.items():
        assert torch.equal(mine_by_name[name], parameter), name
        assert mine_by_name[name].dtype == parameter.dtype


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Replace, add or (None) remove tensors of a checkpoint of one file."""
    path = folder / "model.safetensors"
    state = load_file(path)
    for name, tensor in tensors.items():
        if tensor is None:
            del state[name]
        else:
            state[name] = tensor
    save_file(state, path, metadata={"format": "pt"})


def test_a_checkpoint_of_transformers_is_read_to_the_bit_in_evaluation_mode(theirs, folder):
    model = read(folder)
    assert_same_weights(model, theirs)
    assert not model.training
    assert model.lm_head.weight is model.model.decoder.embed_tokens.weight
    assert model.config.architectures == ["Speech2TextForConditionalGeneration"]


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_are_saved_once_and_others_apart(tied, tmp_path):
    config = Speech2TextConfig(**SIZES, tie_word_embeddings=tied)
    Speech2TextForConditionalGeneration(config).save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert TABLE in names
    assert (HEAD in names) is not tied


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_model_in_half_precision_is_saved_and_read_in_it(dtype, folder, tmp_path):
    model = read(folder, dtype=dtype)
    half = getattr(torch, dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {half}
    model.save_pretrained(tmp_path / "half")
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {half}
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == dtype
    assert read(tmp_path / "half").dtype == half
    wide = read(tmp_path / "half", dtype="float32")
    assert wide.dtype == torch.float32
    for name, parameter in wide.named_parameters():
        assert torch.equal(parameter, stored.get(name, stored[TABLE]).float())


@pytest.mark.parametrize("dtype", ["float8", "int8", torch.float64, "torch.int64", "Tensor"])
def test_a_dtype_that_models_do_not_run_in_is_refused(dtype, folder):
    with pytest.raises(ValueError, match="is not supported; use float32, float16 or bfloat16"):
        read(folder, dtype=dtype)


def test_the_bare_model_takes_its_part_of_a_checkpoint_with_a_head(theirs, folder):
    assert_same_weights(Speech2TextModel.from_pretrained(folder), theirs.model)


def test_the_bare_model_goes_to_transformers_and_back(tmp_path):
    model = Speech2TextModel(Speech2TextConfig(**SIZES))
    model.save_pretrained(tmp_path)
    assert_same_weights(TheirBareModel.from_pretrained(tmp_path), model)
    assert_same_weights(Speech2TextModel.from_pretrained(tmp_path), model)


def test_position_tables_of_old_checkpoints_are_left_alone(theirs, folder):
    change(
        folder,
        **{
            "model.encoder.embed_positions.weights": torch.zeros(5, 24),
            "model.decoder.embed_positions.weights": torch.zeros(5, 24),
        },
    )
    model = read(folder)
    assert_same_weights(model, theirs)
    assert model.model.encoder.embed_positions.weights.abs().sum() > 0


def test_everything_that_does_not_fit_is_named_at_once(folder):
    change(
        folder,
        **{
            "model.encoder.layers.0.fc1.bias": None,
            "model.encoder.layers.7.fc1.bias": torch.zeros(48),
            "model.decoder.layer_norm.weight": torch.zeros(25),
        },
    )
    with pytest.raises(ValueError, match="do not fit its configuration") as error:
        read(folder)
    message = str(error.value)
    assert "missing: model.encoder.layers.0.fc1.bias" in message
    assert "unexpected: model.encoder.layers.7.fc1.bias" in message
    assert "wrong shape: model.decoder.layer_norm.weight is [25], the configuration wants [24]" in message


def test_a_long_list_of_problems_is_cut(folder):
    with pytest.raises(ValueError, match=r"missing: .*; and \d+ more"):
        read(folder, encoder_layers=5)


def test_a_damaged_file_is_refused_by_its_name(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged .*fetch it again"):
        read(folder)


def test_a_folder_without_weights_is_refused_with_the_remedy(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"neither model\.safetensors nor .*save the model as safetensors"
    ):
        read(folder)


def with_index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    "shard", ["../secret.safetensors", "/etc/passwd", "sub/model.safetensors", "..", ".", ""]
)
def test_an_index_that_leads_out_of_its_folder_is_refused(shard, folder):
    save_file({TABLE: torch.zeros(1)}, folder.parent / "secret.safetensors")
    with_index(folder, {TABLE: shard})
    with pytest.raises(ValueError, match="names a shard outside its folder"):
        read(folder)


@pytest.mark.parametrize("weight_map", [None, [], "x", {TABLE: 3}, {}])
def test_an_index_that_is_none_is_refused(weight_map, folder):
    with_index(folder, weight_map)
    with pytest.raises(ValueError, match=r"index\.json|do not fit"):
        read(folder)


def test_a_shard_that_is_not_there_is_named(folder):
    with_index(folder, {TABLE: "model-00001-of-00002.safetensors"})
    with pytest.raises(
        FileNotFoundError, match=r"has no model-00001-of-00002.safetensors, which its index names; fetch it"
    ):
        read(folder)


def test_the_configuration_can_be_given_or_overridden(folder):
    model = read(folder, dropout=0.5)
    assert model.config.dropout == 0.5
    given = Speech2TextConfig(**SIZES, attention_dropout=0.25)
    taken = read(folder, config=given).config
    assert taken.attention_dropout == 0.25
    assert taken is not given


def test_weights_of_another_model_are_not_taken_for_this_one(folder):
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "model_type": "whisper"}))
    with pytest.raises(ValueError, match="holds a 'whisper' model, not 'speech_to_text'"):
        read(folder)
