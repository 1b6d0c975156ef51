"""Generation options of `generation_config.json` and of calls, with transformers' defaults and checks."""

import json
import marshal
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar

from ...scheduler.request import GenerationOptions
from ..checkpoints.contents import read_json
from ..checkpoints.files import Checkpoint, open_checkpoint
from ..checkpoints.hub import PushToHub
from .config import PretrainedConfig
from .field_types import Range, TokenId, conform, shown

_FILE = "generation_config.json"
_MAX_RESOLUTIONS = 4096  # kept of a checkpoint; each takes about a kilobyte
_DEFAULT_NEW_TOKENS = 20  # transformers', where neither the call nor the checkpoint gives a length


@dataclass(frozen=True)
class Option:
    """Supported generation option: transformers' default, converter, accepted values and their check."""

    default: Any = None
    convert: Callable[[str, Any], Any] = lambda name, value: value
    accepted: str = ""
    fits: Callable[[Any], bool] = lambda value: True

    def read(self, name: str, value: Any) -> Any:
        """Convert and check a value of the option.

        Raises:
            ValueError: a value that is not accepted; the message names the option and the accepted values.
        """
        value = self.convert(name, value)
        if not self.fits(value):
            raise ValueError(f"{name} is {shown(value)}; it must be {self.accepted}")
        return value


def flag(name: str, value: Any) -> bool:
    return bool(conform(name, value, bool))


def _whole(name: str, value: Any) -> int:
    return int(conform(name, value, Annotated[int, Range(-(2**63), 2**63)]))


def _length(name: str, value: Any) -> int | None:
    return None if value is None else int(conform(name, value, Annotated[int, Range(0, 2**31 - 1)]))


def number(name: str, value: Any) -> float:
    return float(conform(name, value, float))


def token_id(name: str, value: Any) -> int | None:
    return None if value is None else int(conform(name, value, TokenId))


def token_ids(name: str, value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    if isinstance(value, set | frozenset | range):
        value = list(value)
    ids = conform(name, value.tolist() if hasattr(value, "tolist") else value, TokenId | list[TokenId])
    return tuple(ids) if isinstance(ids, list) else (ids,)


def _words(name: str, value: Any) -> tuple[tuple[int, ...], ...]:
    if not isinstance(value, list | tuple | NoneType):
        raise ValueError(f"{name} must be a list of words, each a list of token ids, got {shown(value)}")
    return tuple(token_ids(name, word) for word in value or ())


def _positive(value: float) -> bool:
    return 1e-30 <= value <= 1e30  # so that a score divided by it stays finite


_HYPOTHESES = Option(1, _whole, "1 or more, at most 65536", lambda count: 1 <= count <= 2**16)
_OPTIONS = {
    "num_beams": _HYPOTHESES,
    "do_sample": Option(False, flag),
    "num_return_sequences": _HYPOTHESES,
    "temperature": Option(1.0, number, "above 0", _positive),
    "top_k": Option(50, _length, "0 (off) or more"),
    "top_p": Option(1.0, number, "above 0, at most 1", lambda share: 0 < share <= 1),
    # Beyond, a length to this power overflows.
    "length_penalty": Option(1.0, number, "from -50 to 50", lambda power: abs(power) <= 50),
    "early_stopping": Option(
        False,
        lambda name, value: shown(value) if isinstance(value, list | dict) else value,
        'True, False or "never"',
        lambda value: value in (True, False, "never"),
    ),
    "repetition_penalty": Option(1.0, number, "above 0", _positive),
    "no_repeat_ngram_size": Option(0, _length, "0 (off) or more"),
    "encoder_no_repeat_ngram_size": Option(0),  # no value but 0, see _NEUTRAL
    "renormalize_logits": Option(False, flag),
    "max_length": Option(None, _length),
    "max_new_tokens": Option(None, _length),
    "min_length": Option(0, _length, "0 or more"),
    "min_new_tokens": Option(None, _length),
    "decoder_start_token_id": Option(None, token_id),
    "bos_token_id": Option(None, token_id),
    "eos_token_id": Option(None, token_ids),
    "pad_token_id": Option(None, token_id),
    "forced_bos_token_id": Option(None, token_id),
    "forced_eos_token_id": Option(None, token_ids),
    "bad_words_ids": Option(None, _words),
    "suppress_tokens": Option(None, token_ids),
    "begin_suppress_tokens": Option(None, token_ids),
    "seed": Option(None, _whole, "0 to 2**63 - 1", lambda seed: 0 <= seed < 2**63),
}

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
# Options of one family, with the remedy for all others.
_OF_ONE_FAMILY = {"patience": "is Whisper's alone; leave it out: early_stopping=True is as patience 1"}
# Bookkeeping in the file, without effect on decoding.
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
    """Generation options set by a checkpoint; all others have transformers' defaults.

    Args:
        **options: generation options as in `generation_config.json`.

    Raises:
        ValueError: an option that is unknown or not supported, unless its value changes nothing.
    """

    # Options that a family knows; those of `GenerationOptions` have the same names in all.
    known: ClassVar[Mapping[str, Option]] = _OPTIONS

    def __init__(self, **options: Any) -> None:
        self.source: str | None = None  # file of the options, for errors
        self._resolutions: dict[bytes, GenerationOptions] = {}  # by all that `resolve` depends on
        self.options: dict[str, Any] = {}
        for name, value in options.items():
            if value is not None and self._accepted(name, value) in self.known:
                self.options[name] = value

    def __getattr__(self, name: str) -> Any:
        if name in self.known:
            return self.__dict__["options"].get(name)
        raise AttributeError(f"no generation option {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("options", "source", "_resolutions"):
            super().__setattr__(name, value)
        elif self._accepted(name, value) in self.known:
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
            config: configuration of its model, from which older checkpoints without the file take options.
            **kwargs: `files.HUB_OPTIONS`, which `hub.HubCheckpoint` explains, and options to replace.

        Raises:
            OSError: no such checkpoint, no file and no configuration, or the Hub does not answer.
            ValueError: an option that is unknown or not supported, unless its value changes nothing.
        """
        checkpoint, options = open_checkpoint(name_or_dir, **kwargs)
        path = checkpoint.find(_FILE)
        if path is None and config is not None:
            return cls(**{**cls.from_model_config(config).options, **options})
        path = path or checkpoint.require(_FILE)
        written = read_json(path)
        try:
            cls(**written)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        made = cls(**{**written, **options})
        made.source = str(path)
        return made

    @classmethod
    def from_model_config(cls, config: PretrainedConfig) -> "GenerationConfig":
        """Make a `GenerationConfig` from the options in a model's configuration, or else in its decoder's."""
        given = {name: value for name, value in config.to_dict().items() if value is not None}
        merged = {**config.get_text_config(decoder=True).to_dict(), **given}
        of_forward = {"output_attentions", "output_hidden_states", "use_cache"}
        wanted = (cls.known.keys() | _NEUTRAL.keys()) - of_forward
        return cls(**{name: merged[name] for name in sorted(wanted & merged.keys())})

    @classmethod
    def _accepted(cls, name: str, value: Any) -> str:
        """Check that a generation option is known and may have this value; returns its name.

        Raises:
            ValueError: an unknown name, or a value other than the neutral ones of an unsupported option.
        """
        if name in _OF_ONE_FAMILY and name not in cls.known:
            raise ValueError(f"generation option {name} {_OF_ONE_FAMILY[name]}")
        if name not in cls.known.keys() | _NEUTRAL.keys() | _BOOKKEEPING:
            raise ValueError(f"unknown generation option {name!r}; known: {', '.join(sorted(cls.known))}")
        if value is None:
            return name
        if name in cls.known:
            cls.known[name].read(name, value)
        if value not in _NEUTRAL.get(name, (value,)):
            raise ValueError(f"generation option {name}={shown(value)} is not supported; leave it out")
        return name

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `generation_config.json` into `folder`, creating it if needed."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.options, indent=2, sort_keys=True)
        (Path(folder) / _FILE).write_text(text + "\n", encoding="utf-8")

    def resolve(
        self,
        call: Mapping[str, Any],
        limit: int,
        default_max_length: int | None = None,
        vocabulary: int | None = None,
        prompt_length: int = 1,
    ) -> GenerationOptions:
        """Resolve the options of one call: its own, else the checkpoint's, else transformers' defaults.

        Args:
            call: transformers' arguments of `generate` by name, None for those not given.
            limit: maximum sequence length of the model's decoder, in tokens.
            default_max_length: `max_length` where neither call nor checkpoint gives a length; transformers'
                20 new tokens by default.
            vocabulary: vocabulary size, to check token ids; None to skip the check.
            prompt_length: number of tokens before the first generated one, which `max_new_tokens` and
                `min_new_tokens` do not count.

        Raises:
            ValueError: an unknown or unsupported option, or a value out of range.
        """
        sizes = limit, default_max_length, vocabulary, prompt_length
        key = option_key(call, self.options, *sizes)
        resolved = None if key is None else self._resolutions.get(key)
        if resolved is None:
            resolved = self._resolve(call, *sizes)
            if key is not None:
                if len(self._resolutions) >= _MAX_RESOLUTIONS:
                    self._resolutions.clear()
                self._resolutions[key] = resolved
        if resolved.do_sample and call.get("seed") is None and "seed" not in self.options:
            resolved = replace(resolved, seed=secrets.randbits(63))
        return resolved

    def _resolve(
        self,
        call: Mapping[str, Any],
        limit: int,
        default_max_length: int | None,
        vocabulary: int | None,
        prompt_length: int,
    ) -> GenerationOptions:
        """Implement `resolve`; without a seed of the call or checkpoint it is 0."""
        given = {
            name: value
            for name, value in call.items()
            if value is not None and self._accepted(name, value) in self.known
        }
        try:
            return self._resolved(given, limit, default_max_length, vocabulary, prompt_length)
        except ValueError as error:
            option = str(error).partition(" ")[0]
            if self.source is None or option in given or option not in self.options:
                raise
            raise ValueError(f"{self.source}: {error}") from error

    def _resolved(
        self,
        given: Mapping[str, Any],
        limit: int,
        default_max_length: int | None,
        vocabulary: int | None,
        prompt_length: int,
    ) -> GenerationOptions:
        """Merge the checked options of a call with those set here and the defaults; see `resolve`."""
        merged = {name: option.default for name, option in _OPTIONS.items()} | self.options | dict(given)
        if merged["decoder_start_token_id"] is None:
            merged["decoder_start_token_id"] = merged["bos_token_id"]
        if merged["decoder_start_token_id"] is None:
            raise ValueError("decoder_start_token_id is not set by the call nor by the checkpoint; give it")
        if merged["pad_token_id"] is None:
            merged["pad_token_id"] = next(iter(token_ids("eos_token_id", merged["eos_token_id"])), 0)
        if merged["seed"] is None:
            merged["seed"] = 0
        merged["min_length"] = _bound("min", merged, given, prompt_length)
        merged["max_length"] = _bound("max", merged, given, prompt_length)
        if merged["max_length"] is None:
            default = _DEFAULT_NEW_TOKENS + prompt_length
            merged["max_length"] = default if default_max_length is None else default_max_length
        values = {}
        for field in fields(GenerationOptions):
            name = field.name.replace("_token_ids", "_token_id")
            if name in _OPTIONS:
                values[field.name] = _OPTIONS[name].read(name, merged[name])
        options = GenerationOptions(**values)
        _check(options, limit, prompt_length)
        if vocabulary is not None:
            _check_tokens(options, vocabulary)
        return options


def option_key(*parts: Any) -> bytes | None:
    """Key of plain values, in which True, 1 and 1.0 differ; None where a value is of another type."""
    try:
        return marshal.dumps(parts, 2)
    except ValueError:
        return None


def _bound(bound: str, merged: Mapping[str, Any], given: Mapping[str, Any], prompt_length: int) -> Any:
    """Minimum or maximum length, including the prompt, in tokens; None where no option sets it.

    `{bound}_new_tokens` has precedence over `{bound}_length`, unless the call gives the latter alone.
    """
    length, new_tokens = f"{bound}_length", f"{bound}_new_tokens"
    if merged[new_tokens] is not None and not (length in given and new_tokens not in given):
        return _OPTIONS[new_tokens].read(new_tokens, merged[new_tokens]) + prompt_length
    return _OPTIONS[length].read(length, merged[length])


def _check(options: GenerationOptions, limit: int, prompt_length: int) -> None:
    """Check the maximum length, and the number of returned sequences against that of beams.

    Raises:
        ValueError: an option out of range; the message names it, its value and what is accepted.
    """
    if not prompt_length < options.max_length <= limit:
        raise ValueError(
            f"max_length is {options.max_length}; it must be {prompt_length + 1} to {limit}, the model's "
            "decoder positions"
        )
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
    """Check that all options name tokens of the vocabulary; others would fail a whole batch while decoding.

    Raises:
        ValueError: a token outside the vocabulary; the message names the option and the token.
    """
    named: dict[str, tuple[int | None, ...]] = {
        "decoder_start_token_id": (options.decoder_start_token_id,),
        "pad_token_id": (options.pad_token_id,),
        "forced_bos_token_id": (options.forced_bos_token_id,),
        "forced_eos_token_id": options.forced_eos_token_ids,
        # An end token outside the vocabulary never comes; only min_length, which bans it, needs its score.
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
