"""Configurations: the fields of `config.json`, to and from transformers."""

import copy
import inspect
import json
import pickle

import pytest
from transformers import Speech2TextConfig as TheirConfig

from tritone.models.core.config import PretrainedConfig
from tritone.models.core.field_types import Size
from tritone.models.core.fields import ABSENT, field, one_of
from tritone.models.speech_to_text.config import Speech2TextConfig

# What transformers' object holds about itself, or writes only where it is not the default.
THEIR_OWN = {"transformers_version", "_name_or_path", "dtype", "chunk_size_feed_forward", "problem_type"}
THEIR_LABELS = {"id2label", "label2id"}

ODD = {
    "vocab_size": 41,
    "encoder_layers": 1,
    "encoder_ffn_dim": 50,
    "encoder_attention_heads": 3,
    "decoder_layers": 3,
    "decoder_ffn_dim": 44,
    "decoder_attention_heads": 2,
    "encoder_layerdrop": 0.1,
    "decoder_layerdrop": 0.2,
    "use_cache": False,
    "activation_function": "gelu",
    "d_model": 36,
    "dropout": 0.0,
    "attention_dropout": 0.3,
    "activation_dropout": 0.4,
    "init_std": 0.5,
    "decoder_start_token_id": 4,
    "scale_embedding": False,
    "pad_token_id": 5,
    "bos_token_id": 6,
    "eos_token_id": [2, 7],
    "max_source_positions": 60,
    "max_target_positions": 30,
    "num_conv_layers": 3,
    "conv_kernel_sizes": [5, 3, 1],
    "conv_channels": 24,
    "input_feat_per_channel": 7,
    "input_channels": 2,
    "tie_word_embeddings": False,
}


def shared_fields(ours: Speech2TextConfig, theirs: TheirConfig) -> tuple[dict, dict]:
    mine, yours = ours.to_dict(), theirs.to_dict()
    names = yours.keys() - THEIR_OWN - THEIR_LABELS
    return {name: mine.get(name, "absent") for name in names}, {name: yours[name] for name in names}


@pytest.mark.parametrize("fields", [{}, ODD], ids=["defaults", "every field"])
def test_a_configuration_equals_transformers_and_each_reads_what_the_other_saved(fields, tmp_path):
    TheirConfig(**fields).save_pretrained(tmp_path / "theirs")
    ours = Speech2TextConfig.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    saved = TheirConfig.from_pretrained(tmp_path / "ours")
    made = TheirConfig(**fields)
    for own, peer in ((Speech2TextConfig(**fields), made), (ours, made), (ours, saved)):
        mine, theirs = shared_fields(own, peer)
        assert mine == theirs
    again = Speech2TextConfig.from_pretrained(tmp_path / "ours")
    assert again == ours
    assert again.conv_kernel_sizes == list(fields.get("conv_kernel_sizes", [5, 5]))


def test_fields_that_the_family_does_not_know_are_kept_and_written_back(tmp_path):
    extra = {"my_field": {"nested": [1, 2]}, "num_beams": 5, "max_length": 200, "finetuning_task": "asr"}
    config = Speech2TextConfig(**extra)
    assert config.my_field == {"nested": [1, 2]}
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert {name: written[name] for name in extra} == extra
    assert Speech2TextConfig.from_pretrained(tmp_path) == config


def test_a_field_goes_by_its_other_name_too():
    config = Speech2TextConfig(d_model=36, encoder_attention_heads=3, encoder_layers=5)
    assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (36, 3, 5)
    config.hidden_size = 48
    assert config.d_model == 48
    assert "hidden_size" not in config.to_dict()


@pytest.mark.parametrize(("name", "home"), Speech2TextConfig.attribute_map.items())
def test_a_fields_other_name_can_be_given_as_in_transformers(name, home):
    assert getattr(Speech2TextConfig(**{name: 8}), home) == getattr(TheirConfig(**{name: 8}), home) == 8


def test_overrides_replace_what_the_file_says(tmp_path):
    Speech2TextConfig(**ODD).save_pretrained(tmp_path)
    config = Speech2TextConfig.from_pretrained(tmp_path, dropout=0.25, my_field=3)
    assert (config.dropout, config.my_field, config.vocab_size) == (0.25, 3, 41)


def test_configurations_are_equal_where_all_fields_are_and_copies_are_their_own():
    config = Speech2TextConfig(**ODD)
    other = copy.deepcopy(config)
    assert other == config
    other.conv_kernel_sizes.append(7)
    assert other != config
    assert config != Speech2TextConfig()
    assert config != "speech_to_text"
    assert '"model_type": "speech_to_text"' in repr(config)


def test_a_field_that_is_not_there_is_missed_by_name():
    with pytest.raises(AttributeError, match="Speech2TextConfig has no field 'd_modle'"):
        Speech2TextConfig().d_modle  # noqa: B018


def test_a_folder_without_a_configuration_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no checkpoint folder .*nowhere.*; give the path of a folder"
    ):
        Speech2TextConfig.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        Speech2TextConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON"),
        ("[1, 2]", "must hold a JSON object, it holds a list"),
        ('{"model_type": "whisper"}', "holds a 'whisper' model, not 'speech_to_text'"),
    ],
)
def test_a_file_that_is_no_configuration_of_this_family_is_refused(text, problem, tmp_path):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=problem):
        Speech2TextConfig.from_pretrained(tmp_path)


def test_a_plain_configuration_takes_any_field():
    config = PretrainedConfig(model_type="ignored", depth=3)
    assert config.depth == 3
    assert config.to_dict()["model_type"] == ""


class Base(PretrainedConfig):
    width: Size = field(8, alias="hidden_size")
    sizes: list[int] = field((3, 3))
    kind: str = field("a", check=one_of("a", "b"), convert=lambda given: given.lower())
    rate: float = 0.1


class Derived(Base):
    depth: int = 2
    width = 16
    kind = "B"
    rate = ABSENT


def test_a_relative_replaces_a_default_and_keeps_check_converter_and_alias():
    config = Derived(sizes=(1,))
    assert (config.depth, config.width, config.hidden_size, config.sizes) == (2, 16, 16, [1])
    assert config.kind == "b"
    with pytest.raises(ValueError, match="hidden_size must be a whole number from 1 to 16,777,216, got 0"):
        Derived(hidden_size=0)
    with pytest.raises(ValueError, match="kind 'c' is not supported; use 'a' or 'b'"):
        Derived(kind="c")
    with pytest.raises(AttributeError, match="Derived has no field 'rate'"):
        config.rate  # noqa: B018
    assert Derived(rate=0.5).rate == 0.5
    assert Base().width == 8


def test_fields_can_be_given_by_position_and_are_in_the_signature():
    assert (Base(4, [1]).width, Base(4, [1]).sizes) == (4, [1])
    assert list(inspect.signature(Derived).parameters)[:4] == ["depth", "width", "kind", "rate"]
    with pytest.raises(TypeError, match="multiple values for argument 'width'"):
        Base(4, width=4)
    with pytest.raises(TypeError, match="too many positional arguments"):
        Base(*range(20))


def test_a_configuration_survives_pickling():
    config = Derived(num_labels=3, my_field=[1])
    assert pickle.loads(pickle.dumps(config)) == config
