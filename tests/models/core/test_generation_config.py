"""Generation options: precedence of call, file and defaults, and the values that are refused."""

import json

import pytest
import torch
import transformers
from factories import SPEECH_TO_TEXT
from transformers import Speech2TextConfig as TheirConfig
from transformers import Speech2TextForConditionalGeneration as TheirModel

from tritone.models.core.config import PretrainedConfig
from tritone.models.core.generation_config import GenerationConfig
from tritone.models.speech_to_text.config import Speech2TextConfig
from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration
from tritone.scheduler.request import GenerationOptions

SIZES = {**SPEECH_TO_TEXT, "vocab_size": 41, "max_target_positions": 300, "input_feat_per_channel": 4}
START = {"decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}


def resolve(
    call: dict | None = None, file: dict | None = None, limit: int = 300, **more
) -> GenerationOptions:
    return GenerationConfig(**START, **(file or {})).resolve({"seed": 0, **(call or {})}, limit, **more)


@pytest.fixture(scope="module")
def model() -> Speech2TextForConditionalGeneration:
    return Speech2TextForConditionalGeneration(Speech2TextConfig(**SIZES)).eval()


# Precedence


def test_options_that_neither_call_nor_file_sets_have_transformers_defaults():
    assert resolve() == GenerationOptions(
        max_length=21,  # 20 new tokens and the start token
        top_k=50,
        eos_token_ids=(2,),
        decoder_start_token_id=2,
        pad_token_id=1,
        seed=0,
    )


def test_the_call_overrules_the_file_and_the_file_the_defaults():
    file = {"num_beams": 5, "length_penalty": 2.0, "top_k": 7}
    assert resolve(file=file).num_beams == 5
    options = resolve({"num_beams": 2, "length_penalty": None}, file)
    assert (options.num_beams, options.length_penalty, options.top_k) == (2, 2.0, 7)


@pytest.mark.parametrize(
    ("call", "file", "default", "length"),
    [
        ({}, {}, None, 21),
        ({}, {}, 64, 64),
        ({}, {"max_length": 200}, 64, 200),
        ({}, {"max_new_tokens": 30}, 64, 31),
        ({}, {"max_length": 200, "max_new_tokens": 30}, None, 31),
        ({"max_length": 12}, {"max_length": 200}, None, 12),
        ({"max_new_tokens": 12}, {"max_length": 200}, None, 13),
        ({"max_length": 12, "max_new_tokens": 20}, {}, None, 21),
        ({"max_length": 12}, {"max_new_tokens": 30}, None, 12),
    ],
)
def test_the_length_is_the_calls_then_the_files_then_the_default(call, file, default, length):
    assert resolve(call, file, default_max_length=default).max_length == length


@pytest.mark.parametrize(
    ("call", "file", "length"),
    [
        ({}, {}, 0),
        ({"min_length": 4}, {}, 4),
        ({"min_new_tokens": 4}, {}, 5),
        ({"min_new_tokens": 4, "min_length": 9}, {}, 5),
        ({}, {"min_new_tokens": 4, "min_length": 9}, 5),
        ({"min_length": 3}, {"min_new_tokens": 4}, 3),
    ],
)
def test_the_least_length_counts_the_start_token_and_is_the_calls_then_the_files(call, file, length):
    assert resolve(call, file).min_length == length


def test_token_ids_may_be_one_or_several():
    options = resolve(
        {
            "eos_token_id": [2, 7],
            "forced_eos_token_id": 7,
            "suppress_tokens": [3, 4],
            "bad_words_ids": [[5], [6, 7]],
        },
        {"begin_suppress_tokens": [9]},
    )
    assert options.eos_token_ids == (2, 7)
    assert options.forced_eos_token_ids == (7,)
    assert options.suppress_tokens == (3, 4)
    assert options.bad_words_ids == ((5,), (6, 7))
    assert options.begin_suppress_tokens == (9,)


def test_a_missing_start_token_is_the_begin_token_and_a_missing_pad_the_first_end_token():
    options = GenerationConfig(bos_token_id=4, eos_token_id=[6, 7]).resolve({}, 300)
    assert (options.decoder_start_token_id, options.pad_token_id) == (4, 6)
    assert GenerationConfig(bos_token_id=4).resolve({}, 300).pad_token_id == 0
    with pytest.raises(ValueError, match=r"decoder_start_token_id is not set .* give it"):
        GenerationConfig(eos_token_id=2).resolve({}, 300)


def test_without_a_seed_every_call_that_samples_draws_another():
    config = GenerationConfig(**START)
    seeds = {config.resolve({"do_sample": True}, 300).seed for _ in range(8)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert config.resolve({"seed": 5}, 300).seed == 5
    assert resolve({"seed": None}, {"seed": 6}).seed == 6
    assert config.resolve({}, 300) is config.resolve({}, 300)


def test_resolved_options_follow_values_and_types():
    config = GenerationConfig(**START)
    assert config.resolve({"top_k": 3}, 300).top_k == 3
    with pytest.raises(ValueError, match="num_beams"):
        config.resolve({"num_beams": 1.5}, 300)
    assert config.resolve({"num_beams": 1}, 300).num_beams == 1
    with pytest.raises(ValueError, match="num_beams"):
        config.resolve({"num_beams": True}, 300)
    config.top_k = 7
    assert config.resolve({}, 300).top_k == 7
    config.top_k = 8
    assert config.resolve({}, 300).top_k == 8


# Checkpoints


def test_options_of_a_checkpoint_come_from_generation_config_json_alone_where_it_is_there(tmp_path):
    config = Speech2TextConfig(**SIZES, num_beams=5, max_length=200)
    (tmp_path / "generation_config.json").write_text(json.dumps({**START, "num_beams": 3}))
    options = GenerationConfig.from_pretrained(tmp_path, config).resolve({}, 300)
    assert (options.num_beams, options.max_length) == (3, 21)


def test_options_of_an_older_checkpoint_come_from_config_json(tmp_path):
    config = Speech2TextConfig(**SIZES, num_beams=5, max_length=200, early_stopping=True, seed_words="x")
    options = GenerationConfig.from_pretrained(tmp_path, config).resolve({}, 300)
    assert (options.num_beams, options.max_length, options.early_stopping) == (5, 200, True)
    assert (options.decoder_start_token_id, options.eos_token_ids, options.pad_token_id) == (2, (2,), 1)


@pytest.mark.parametrize("fields", [{}, {"use_cache": False, "eos_token_id": 7, "bos_token_id": 3}], ids=str)
def test_what_transformers_saves_is_read_and_what_is_saved_here_transformers_reads(fields, tmp_path):
    theirs = TheirModel(TheirConfig(**{**SIZES, **fields}))
    theirs.generation_config.num_beams = 4
    theirs.generation_config.max_length = 30
    theirs.generation_config.suppress_tokens = [5, 6]
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Speech2TextForConditionalGeneration.from_pretrained(tmp_path / "theirs")
    options = ours.resolve_options()
    assert (options.num_beams, options.max_length, options.suppress_tokens) == (4, 30, (5, 6))
    assert options.eos_token_ids == (fields.get("eos_token_id", 2),)

    ours.generation_config.length_penalty = 0.5
    ours.save_pretrained(tmp_path / "ours")
    read = transformers.GenerationConfig.from_pretrained(tmp_path / "ours")
    assert (read.num_beams, read.max_length, read.suppress_tokens, read.length_penalty) == (
        4,
        30,
        [5, 6],
        0.5,
    )
    assert read.decoder_start_token_id == 2
    again = Speech2TextForConditionalGeneration.from_pretrained(tmp_path / "ours")
    assert again.generation_config.options == ours.generation_config.options


def test_every_option_that_transformers_knows_is_known_here():
    for name in transformers.GenerationConfig().to_dict():
        assert name not in GenerationConfig(**{name: None}).options
        resolve({name: None})


def test_what_transformers_writes_by_default_changes_nothing():
    defaults = transformers.GenerationConfig._get_default_generation_params()
    assert resolve(file={**defaults, "max_length": 21}) == resolve()


# What is refused

UNSUPPORTED = {
    "assistant_confidence_threshold": 0.9,
    "assistant_early_exit": 3,
    "cache_implementation": "quantized",
    "constraints": ["x"],
    "diversity_penalty": 0.5,
    "dola_layers": "high",
    "encoder_no_repeat_ngram_size": 3,
    "encoder_repetition_penalty": 1.5,
    "epsilon_cutoff": 0.01,
    "eta_cutoff": 0.01,
    "exponential_decay_length_penalty": (5, 1.1),
    "force_words_ids": [[3]],
    "guidance_scale": 1.5,
    "low_memory": True,
    "max_time": 1.0,
    "min_p": 0.1,
    "num_beam_groups": 2,
    "output_attentions": True,
    "output_hidden_states": True,
    "output_logits": True,
    "penalty_alpha": 0.6,
    "prompt_lookup_num_tokens": 3,
    "remove_invalid_values": True,
    "sequence_bias": [[[3], 1.0]],
    "stop_strings": ["x"],
    "token_healing": True,
    "top_h": 0.5,
    "typical_p": 0.9,
    "use_mtp": True,
    "watermarking_config": {"bias": 2.0},
}


@pytest.mark.parametrize(("name", "value"), UNSUPPORTED.items())
def test_an_unsupported_option_is_refused_by_name_in_a_call_a_file_and_an_assignment(name, value, tmp_path):
    problem = f"generation option {name}=.* is not supported; leave it out"
    with pytest.raises(ValueError, match=problem):
        resolve({name: value})
    (tmp_path / "generation_config.json").write_text(json.dumps({**START, name: value}))
    with pytest.raises(ValueError, match=problem):
        GenerationConfig.from_pretrained(tmp_path, PretrainedConfig())
    with pytest.raises(ValueError, match=problem):
        setattr(GenerationConfig(), name, value)


def test_an_unsupported_option_of_an_older_checkpoint_is_refused_too(tmp_path):
    Speech2TextForConditionalGeneration(Speech2TextConfig(**SIZES)).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, "diversity_penalty": 0.5}))
    with pytest.raises(ValueError, match=r"generation option diversity_penalty=0.5 is not supported"):
        Speech2TextForConditionalGeneration.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "neutral",
    [
        {"diversity_penalty": 0.0},
        {"num_beam_groups": 1},
        {"typical_p": 1.0},
        {"guidance_scale": 1},
        {"min_p": None},
    ],
    ids=str,
)
def test_an_unsupported_option_that_changes_nothing_is_let_pass(neutral):
    assert resolve(neutral) == resolve(file=neutral) == resolve()


def test_an_unknown_option_is_refused_with_the_known_ones(tmp_path):
    problem = "unknown generation option 'num_beam'; known: .*num_beams"
    with pytest.raises(ValueError, match=problem):
        resolve({"num_beam": 3})
    with pytest.raises(ValueError, match=problem):
        GenerationConfig().num_beam = 3
    (tmp_path / "generation_config.json").write_text('{"num_beam": 3}')
    with pytest.raises(ValueError, match=problem):
        GenerationConfig.from_pretrained(tmp_path, PretrainedConfig())


OUT_OF_RANGE = [
    ({"max_length": 1}, "max_length is 1; it must be 2 to 300, the model's decoder positions"),
    ({"max_length": 301}, "max_length is 301; it must be 2 to 300"),
    ({"max_new_tokens": 0}, "max_length is 1; it must be 2"),
    ({"max_new_tokens": 300}, "max_length is 301; it must be 2 to 300"),
    ({"num_beams": 0}, "num_beams is 0; it must be 1 or more"),
    ({"num_beams": 2.5}, "num_beams must be a whole number .*, got 2.5"),
    ({"num_beams": "5"}, "num_beams must be a whole number .*, got '5'"),
    ({"num_return_sequences": 0}, "num_return_sequences is 0; it must be 1 or more"),
    ({"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
    ({"temperature": float("nan")}, "temperature must be a number, got nan"),
    ({"top_k": -1}, "top_k must be a whole number from 0 to .*, got -1"),
    ({"top_p": 0.0}, "top_p is 0.0; it must be above 0, at most 1"),
    ({"top_p": 1.5}, "top_p is 1.5; it must be above 0, at most 1"),
    ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0; it must be above 0"),
    ({"no_repeat_ngram_size": -2}, "no_repeat_ngram_size must be a whole number from 0 to .*, got -2"),
    ({"early_stopping": "always"}, "early_stopping is 'always'; it must be True, False or \"never\""),
    ({"min_length": -1}, "min_length must be a whole number from 0 to .*, got -1"),
    ({"seed": -1}, r"seed is -1; it must be 0 to 2\*\*63 - 1"),
    ({"seed": 2**63}, "seed is 9223372036854775808; it must be 0"),
    ({"max_length": {}}, "max_length must be a whole number from 0 to .*, got {}"),
    ({"max_new_tokens": "12"}, "max_new_tokens must be a whole number .*, got '12'"),
    ({"suppress_tokens": "12"}, "suppress_tokens must be a whole number .* or a list, .*, got '12'"),
    ({"forced_eos_token_id": [2.5]}, r"forced_eos_token_id must be .*, got \[2.5\]"),
    ({"bad_words_ids": 3}, "bad_words_ids must be a list of words, each a list of token ids, got 3"),
    ({"bad_words_ids": [["a"]]}, r"bad_words_ids must be .* or a list, .*, got \['a'\]"),
    ({"do_sample": "no"}, "do_sample must be true or false, got 'no'"),
    ({"num_beams": 10**9}, "num_beams is 1000000000; it must be 1 or more, at most 65536"),
    ({"length_penalty": 1e300}, "length_penalty is 1e.300; it must be from -50 to 50"),
    ({"temperature": 1e-300}, "temperature is 1e-300; it must be above 0"),
    ({"early_stopping": {}}, "early_stopping is .*; it must be True, False"),
    ({"top_p": 10**400}, "top_p must be a number, got a number of about 401 digits"),
    (
        {"num_beams": 2, "num_return_sequences": 3},
        "num_return_sequences 3 is more than num_beams 2; use more",
    ),
    (
        {"num_return_sequences": 3},
        "greedy search has one sequence to return, not 3; use num_beams or do_sample",
    ),
]


@pytest.mark.parametrize(("options", "problem"), OUT_OF_RANGE, ids=str)
def test_a_value_out_of_range_is_refused_from_a_call_and_from_a_file(options, problem):
    with pytest.raises(ValueError, match=problem):
        resolve(options)
    with pytest.raises(ValueError, match=problem):
        resolve({"seed": options.get("seed", 0)}, options)


TOKENS = [
    ({"decoder_start_token_id": 41}, "decoder_start_token_id names token 41; the model's are 0 to 40"),
    ({"pad_token_id": -1}, "pad_token_id names token -1"),
    ({"forced_bos_token_id": 41}, "forced_bos_token_id names token 41"),
    ({"forced_eos_token_id": [2, 41]}, "forced_eos_token_id names token 41"),
    ({"bad_words_ids": [[3], [4, 99]]}, "bad_words_ids names token 99"),
    ({"bad_words_ids": [[]]}, "bad_words_ids has a word without tokens"),
    ({"suppress_tokens": [-5]}, "suppress_tokens names token -5"),
    ({"begin_suppress_tokens": [1000]}, "begin_suppress_tokens names token 1000"),
    ({"eos_token_id": 50, "min_length": 3}, "eos_token_id names token 50"),
]


@pytest.mark.parametrize(("options", "problem"), TOKENS, ids=str)
def test_a_token_that_the_model_does_not_have_is_refused_before_it_can_fail_a_batch(options, problem, model):
    with pytest.raises(ValueError, match=problem):
        model.resolve_options(**options)
    with pytest.raises(ValueError, match=problem):
        model.generate(torch.randn(1, 9, 4), **options)


def test_an_end_token_that_never_comes_is_allowed(model):
    assert model.generate(torch.randn(1, 9, 4), eos_token_id=-1, max_length=9).shape == (1, 9)


# As an object


def test_options_are_read_set_and_taken_back_by_name():
    config = GenerationConfig(num_beams=5)
    assert (config.num_beams, config.top_k) == (5, None)
    config.num_beams = 2
    config.length_penalty = 0.5
    config.diversity_penalty = 0.0
    assert config.options == {"num_beams": 2, "length_penalty": 0.5}
    config.num_beams = None
    assert config.resolve(START, 300).num_beams == 1
    with pytest.raises(AttributeError, match="no generation option 'num_beam'"):
        config.num_beam  # noqa: B018
