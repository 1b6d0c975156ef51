"""How a checkpoint wants to be decoded: `generation_config.json`, its defaults and what is refused."""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...scheduler.request import GenerationOptions
from ..checkpoints.files import Checkpoint, open_checkpoint, read_json
from ..checkpoints.hub import PushToHub
from .config import PretrainedConfig

_FILE = "generation_config.json"

# What transformers falls back to where neither the call nor the checkpoint says.
_GLOBAL_DEFAULTS: dict[str, Any] = {
    "num_beams": 1,
    "do_sample": False,
    "num_return_sequences": 1,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "length_penalty": 1.0,
    "early_stopping": False,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "renormalize_logits": False,
    "min_length": 0,
}
_DEFAULT_NEW_TOKENS = 20

_OPTIONS = {
    *_GLOBAL_DEFAULTS,
    "max_length",
    "max_new_tokens",
    "min_new_tokens",
    "decoder_start_token_id",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "seed",
}

_WHOLE = (
    "num_beams",
    "num_return_sequences",
    "top_k",
    "no_repeat_ngram_size",
    "decoder_start_token_id",
    "pad_token_id",
    "seed",
)

# Options of transformers that are not supported, with the values that change nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "assistant_confidence_threshold": (0.4,),
    "assistant_early_exit": (),
    "assistant_ensemble_weight": (),
    "assistant_lookbehind": (10,),
    "cache_implementation": (),
    "constraints": (),
    "diversity_penalty": (0.0,),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": (),
    "guidance_scale": (1.0, 1),
    "is_assistant": (False,),
    "low_memory": (False,),
    "max_matching_ngram_size": (),
    "max_time": (),
    "min_p": (),
    "num_assistant_tokens": (20,),
    "num_assistant_tokens_schedule": ("constant",),
    "num_beam_groups": (1,),
    "output_attentions": (False,),
    "output_hidden_states": (False,),
    "output_logits": (False,),
    "output_scores": (False, True),
    "penalty_alpha": (0.0,),
    "prefill_chunk_size": (),
    "prompt_lookup_num_tokens": (),
    "remove_invalid_values": (False,),
    "return_dict_in_generate": (False, True),
    "sequence_bias": (),
    "speculation_type": (),
    "stop_strings": (),
    "target_lookbehind": (10,),
    "token_healing": (False,),
    "top_h": (),
    "typical_p": (1.0,),
    "use_cache": (True, False),
    "use_mtp": (False,),
    "watermarking_config": (),
}
# Bookkeeping in the file that says nothing about decoding.
_BOOKKEEPING = {
    "_from_model_config",
    "transformers_version",
    "_commit_hash",
    "trust_remote_code",
    "cache_config",
    "compile_config",
    "continuous_batching_config",
    "disable_compile",
    "max_cache_len",
}


class GenerationConfig(PushToHub):
    """The generation options that a checkpoint sets itself; everything else is left to the defaults.

    Args:
        **options: as in `generation_config.json`.

    Raises:
        ValueError: an option that is unknown or not supported, unless its value changes nothing.
    """

    def __init__(self, **options: Any) -> None:
        self.options: dict[str, Any] = {}
        for name, value in options.items():
            if value is not None and _accepted(name, value) in _OPTIONS:
                self.options[name] = value

    def __getattr__(self, name: str) -> Any:
        if name in _OPTIONS:
            return self.__dict__["options"].get(name)
        raise AttributeError(f"no generation option {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "options":
            super().__setattr__(name, value)
        elif _accepted(name, value) in _OPTIONS:
            if value is None:
                self.options.pop(name, None)
            else:
                self.options[name] = value

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | os.PathLike[str] | Checkpoint,
        config: PretrainedConfig | None = None,
        **kwargs: Any,
    ) -> "GenerationConfig":
        """Read a checkpoint's `generation_config.json`.

        Args:
            name_or_dir: a folder or the id of a repository on the Hub.
            config: of its model, whose options are taken where the file is missing, as in older checkpoints.
            **kwargs: `files.HUB_OPTIONS`, which `hub.HubCheckpoint` explains, and options to replace.

        Raises:
            OSError: no such checkpoint, no file and no configuration, or the Hub does not answer.
            ValueError: an option that is unknown or not supported, unless its value changes nothing.
        """
        checkpoint, options = open_checkpoint(name_or_dir, **kwargs)
        path = checkpoint.find(_FILE)
        if path is None and config is not None:
            return cls(**{**cls.from_model_config(config).options, **options})
        return cls(**{**read_json(path or checkpoint.require(_FILE)), **options})

    @classmethod
    def from_model_config(cls, config: PretrainedConfig) -> "GenerationConfig":
        """The generation options among a model's fields, or else those of its decoder."""
        given = {name: value for name, value in config.to_dict().items() if value is not None}
        fields = {**config.get_text_config(decoder=True).to_dict(), **given}
        wanted = (_OPTIONS | _NEUTRAL.keys()) - {"output_attentions", "output_hidden_states", "use_cache"}
        return cls(**{name: fields[name] for name in sorted(wanted & fields.keys())})

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `generation_config.json` into `folder`, which is made if need be."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.options, indent=2, sort_keys=True)
        (path / _FILE).write_text(text + "\n", encoding="utf-8")

    def resolve(
        self,
        call: Mapping[str, Any],
        limit: int,
        default_max_length: int | None = None,
        vocabulary: int | None = None,
    ) -> GenerationOptions:
        """The options of one call: its own arguments, then the checkpoint's, then transformers' globals.

        Args:
            call: transformers' arguments of `generate` by name, None for those not given.
            limit: tokens of the longest sequence that the model has positions for.
            default_max_length: where neither call nor checkpoint gives a length; transformers' 20 new tokens
                by default.
            vocabulary: how many tokens there are.

        Raises:
            ValueError: an unknown or unsupported option, or a value out of range.
        """
        given = {
            name: value
            for name, value in call.items()
            if value is not None and _accepted(name, value) in _OPTIONS
        }
        merged = {**_GLOBAL_DEFAULTS, **self.options, **given}
        start = merged.get("decoder_start_token_id", merged.get("bos_token_id"))
        if start is None:
            raise ValueError("decoder_start_token_id is not set by the call nor by the checkpoint; give it")
        eos = _ids(merged.get("eos_token_id"))
        options = GenerationOptions(
            max_length=_max_length(merged, given, default_max_length),
            min_length=_min_length(merged, given),
            num_beams=merged["num_beams"],
            do_sample=merged["do_sample"],
            num_return_sequences=merged["num_return_sequences"],
            temperature=float(merged["temperature"]),
            top_k=merged["top_k"],
            top_p=float(merged["top_p"]),
            length_penalty=float(merged["length_penalty"]),
            early_stopping=merged["early_stopping"],
            repetition_penalty=float(merged["repetition_penalty"]),
            no_repeat_ngram_size=merged["no_repeat_ngram_size"],
            renormalize_logits=merged["renormalize_logits"],
            decoder_start_token_id=start,
            eos_token_ids=eos,
            pad_token_id=merged.get("pad_token_id", eos[0] if eos else 0),
            forced_bos_token_id=merged.get("forced_bos_token_id"),
            forced_eos_token_ids=_ids(merged.get("forced_eos_token_id")),
            bad_words_ids=tuple(tuple(word) for word in merged.get("bad_words_ids", ())),
            suppress_tokens=_ids(merged.get("suppress_tokens")),
            begin_suppress_tokens=_ids(merged.get("begin_suppress_tokens")),
            seed=merged["seed"] if merged.get("seed") is not None else secrets.randbits(63),
        )
        _check(options, limit)
        if vocabulary is not None:
            _check_tokens(options, vocabulary)
        return options


def _accepted(name: str, value: Any) -> str:
    """The name of an option that may be given with this value.

    Raises:
        ValueError: a name that is unknown, or a value that would change something that is not supported.
    """
    if name not in _OPTIONS | _NEUTRAL.keys() | _BOOKKEEPING:
        raise ValueError(f"unknown generation option {name!r}; known: {', '.join(sorted(_OPTIONS))}")
    if value is not None and value not in _NEUTRAL.get(name, (value,)):
        raise ValueError(f"generation option {name}={value!r} is not supported; leave it out")
    return name


def _ids(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    try:
        return (int(value),) if isinstance(value, int) else tuple(int(token) for token in value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r} is neither a token id nor a list of them; give whole numbers") from None


def _max_length(merged: Mapping[str, Any], given: Mapping[str, Any], default: int | None) -> int:
    if merged.get("max_new_tokens") is not None and not (
        "max_length" in given and "max_new_tokens" not in given
    ):
        return int(merged["max_new_tokens"]) + 1
    if merged.get("max_length") is not None:
        return int(merged["max_length"])
    return default if default is not None else _DEFAULT_NEW_TOKENS + 1


def _min_length(merged: Mapping[str, Any], given: Mapping[str, Any]) -> int:
    if merged.get("min_new_tokens") is not None and not (
        "min_length" in given and "min_new_tokens" not in given
    ):
        return int(merged["min_new_tokens"]) + 1
    return int(merged["min_length"])


def _check(options: GenerationOptions, limit: int) -> None:
    """Refuse values out of range.

    Raises:
        ValueError: naming the option, its value and what is accepted.
    """
    for name in _WHOLE:
        if not isinstance(getattr(options, name), int):
            raise ValueError(f"{name} is {getattr(options, name)!r}; it must be a whole number")
    bounds = [
        ("max_length", 2 <= options.max_length <= limit, f"2 to {limit}, the model's decoder positions"),
        ("num_beams", options.num_beams >= 1, "1 or more"),
        ("num_return_sequences", options.num_return_sequences >= 1, "1 or more"),
        ("temperature", options.temperature > 0, "above 0"),
        ("top_k", options.top_k >= 0, "0 (off) or more"),
        ("top_p", 0 < options.top_p <= 1, "above 0, at most 1"),
        ("repetition_penalty", options.repetition_penalty > 0, "above 0"),
        ("no_repeat_ngram_size", options.no_repeat_ngram_size >= 0, "0 (off) or more"),
        ("early_stopping", options.early_stopping in (True, False, "never"), 'True, False or "never"'),
        ("min_length", options.min_length >= 0, "0 or more"),
        ("seed", 0 <= options.seed < 2**63, "0 to 2**63 - 1"),
    ]
    for name, fits, accepted in bounds:
        if not fits:
            raise ValueError(f"{name} is {getattr(options, name)!r}; it must be {accepted}")
    if options.num_return_sequences > 1:
        if options.num_beams > 1 and options.num_return_sequences > options.num_beams:
            raise ValueError(
                f"num_return_sequences {options.num_return_sequences} is more than "
                f"num_beams {options.num_beams}; use more beams"
            )
        if options.num_beams == 1 and not options.do_sample:
            raise ValueError(
                f"greedy search has one sequence to return, not {options.num_return_sequences}; "
                "use num_beams or do_sample=True"
            )


def _check_tokens(options: GenerationOptions, vocabulary: int) -> None:
    """Refuse tokens that the model does not have: they would fail in the middle of a batch, with all of it.

    Raises:
        ValueError: naming the option, the token and the vocabulary.
    """
    named: dict[str, tuple[int | None, ...]] = {
        "decoder_start_token_id": (options.decoder_start_token_id,),
        "pad_token_id": (options.pad_token_id,),
        "forced_bos_token_id": (options.forced_bos_token_id,),
        "forced_eos_token_id": options.forced_eos_token_ids,
        # An end token outside of the vocabulary is one that never comes, until it is to be banned.
        "eos_token_id": options.eos_token_ids if options.min_length else (),
        "bad_words_ids": tuple(token for word in options.bad_words_ids for token in word),
        "suppress_tokens": options.suppress_tokens,
        "begin_suppress_tokens": options.begin_suppress_tokens,
    }
    for name, tokens in named.items():
        for token in tokens:
            if token is not None and not 0 <= token < vocabulary:
                raise ValueError(f"{name} names token {token}; the model's are 0 to {vocabulary - 1}")
    if () in options.bad_words_ids:
        raise ValueError("bad_words_ids has a word without tokens; leave it out")
