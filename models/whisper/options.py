"""Whisper's generation options, of `generation_config.json` and of calls, resolved for one recording."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ...kernels.sampling.timestamps import TimestampRule
from ...scheduler.request import GenerationOptions
from ..core.field_types import TokenId, conform, shown
from ..core.generation_config import GenerationConfig, Option, flag, number, token_id, token_ids
from .languages import LANGUAGE_CODES
from .windows import Window, WindowOptions

TASKS = ("transcribe", "translate")
_PROMPTS = ("first-segment", "all-segments")
_DEFAULT_NEW_TOKENS = 20  # transformers', where neither the call nor the checkpoint gives a length

_MIN_TEMPERATURE = 1e-30  # so that a score divided by it stays finite


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    """Temperatures: one number, or several to try in turn."""
    several = value if isinstance(value, list | tuple) else [value]
    found = tuple(number(name, one) for one in several)
    if not found or not all(one == 0 or _MIN_TEMPERATURE <= one <= 100 for one in found):
        raise ValueError(
            f"{name} is {shown(value)}; it must be 0, a number from {_MIN_TEMPERATURE} to 100, or several"
        )
    return found


def _ids_by_name(name: str, value: Any) -> dict[str, int] | None:
    if value is None:
        return None
    table = conform(name, value, dict)
    return {key: int(conform(f"{name}[{shown(key)}]", one, TokenId)) for key, one in table.items()}


def _pairs(name: str, value: Any) -> tuple[tuple[Any, ...], ...] | None:
    """Pairs of numbers, the second of which may be None."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and type(pair[0]) is int and pair[0] >= 0
        and (pair[1] is None or (type(pair[1]) is int and pair[1] >= 0))
        for pair in value
    ):  # fmt: skip
        raise ValueError(f"{name} is {shown(value)}; it must be pairs of whole numbers from 0")
    return tuple(tuple(pair) for pair in value)


def _language(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is {shown(value)}; it must be a code, such as 'en', or an English name")
    return value


def _one_of(*accepted: str | None) -> Option:
    described = ", ".join(repr(one) for one in accepted if one is not None)
    return Option(accepted[0], accepted=described, fits=lambda value: value in accepted)


class WhisperGenerationConfig(GenerationConfig):
    """Generation options set by a Whisper checkpoint; all others have transformers' defaults.

    Beside the common options it has those of `WhisperForConditionalGeneration.generate`, and ids of
    languages, tasks and times.

    Args:
        **options: options as in `generation_config.json`.

    Raises:
        ValueError: an option that is unknown or not supported, unless its value changes nothing.
    """

    known: ClassVar[Mapping[str, Option]] = {
        **GenerationConfig.known,
        "temperature": Option(None, lambda name, value: None if value is None else _numbers(name, value)),
        "language": Option(None, _language),
        "task": _one_of(None, *TASKS),
        "is_multilingual": Option(None, lambda name, value: None if value is None else flag(name, value)),
        "lang_to_id": Option(None, _ids_by_name),
        "task_to_id": Option(None, _ids_by_name),
        "no_timestamps_token_id": Option(None, token_id),
        "prev_sot_token_id": Option(None, token_id),
        "max_initial_timestamp_index": Option(None, token_id),
        "alignment_heads": Option(None, _pairs),
        "forced_decoder_ids": Option(None, _pairs),
        "return_timestamps": Option(False, flag),
        "prompt_ids": Option(None, token_ids),
        "prompt_condition_type": _one_of(*_PROMPTS),
        "patience": Option(
            None,
            lambda name, value: None if value is None else number(name, value),
            "above 0, at most 100",
            lambda factor: factor is None or 0 < factor <= 100,
        ),
        "hotword_ids": Option(None, token_ids),
        "condition_on_prev_tokens": Option(False, flag),
        "compression_ratio_threshold": Option(None, number),
        "logprob_threshold": Option(None, number),
        "no_speech_threshold": Option(None, number),
    }

    def check_option(self, name: str, value: Any) -> None:
        """Check an option of a call. Raises ValueError for an unknown one, or a value that is refused."""
        self._accepted(name, value)

    def without_lengths(self) -> GenerationConfig:
        """Common options alone, without lengths and temperatures, which each window has of its own."""
        known = self.__dict__.get("_common")
        if known is None or known[0] != self.options:
            own = {"max_length", "max_new_tokens", "temperature", "do_sample"}
            common = GenerationConfig(
                **{
                    name: value
                    for name, value in self.options.items()
                    if name in GenerationConfig.known and name not in own
                }
            )
            common.source = self.source
            known = self.__dict__["_common"] = dict(self.options), common
        config: GenerationConfig = known[1]
        return config

    @contextmanager
    def naming_its_file(self, call: Mapping[str, Any]) -> Iterator[None]:
        """Context in which an error about an option that is the checkpoint's names its file."""
        try:
            yield
        except ValueError as error:
            option = str(error).partition(" ")[0].partition("[")[0]
            if self.source is None or call.get(option) is not None or option not in self.options:
                raise
            raise ValueError(f"{self.source}: {error}") from error

    def read(self, name: str, call: Mapping[str, Any]) -> Any:
        """Value of an option: of the call, else of the checkpoint, else the default.

        Raises:
            ValueError: a value that is not accepted.
        """
        option = self.known[name]
        value = call.get(name)
        value = self.options.get(name) if value is None else value
        return option.default if value is None else option.read(name, value)


@dataclass(frozen=True, slots=True)
class WhisperOptions:
    """Options of one recording, from which those of each of its windows follow.

    Attributes:
        windows: options by which windows follow each other.
        choices: languages of which the model chooses one for the first window; empty where it is known.
        timestamps: rule of times; None where none are wanted.
        no_speech_token: token of no speech; None where its probability is not wanted.
        patience: rule that ends a beam search; None for `early_stopping`.
        seed: seed of draws; None draws one.
        token_log_probs: True reports the log-probability of each token, see `GenerationOptions`.
    """

    windows: WindowOptions
    choices: tuple[int, ...]
    timestamps: TimestampRule | None
    no_speech_token: int | None
    patience: float | None
    seed: int | None
    _config: WhisperGenerationConfig
    _call: Mapping[str, Any]  # common options
    _limit: int
    _vocabulary: int
    token_log_probs: bool = False

    def request(self, window: Window, language: int | None = None, attempt: int = 0) -> GenerationOptions:
        """Options of the request that decodes a window.

        Args:
            window: the window.
            language: token of the language, where it was chosen in an earlier window.
            attempt: number of the window's earlier requests, for other draws.

        Raises:
            ValueError: an option out of range, such as more tokens than the decoder has positions.
        """
        prompt = self.prompt(window, language)
        starts_at = len(prompt) - len(self.windows.start_tokens)
        choices = self.choices if language is None else ()
        sampling = window.temperature > 0
        call = {
            **self._call,
            "max_length": self._max_length(len(prompt)),
            "max_new_tokens": None,
            "do_sample": sampling,
            "temperature": window.temperature if sampling else 1.0,
            "num_return_sequences": 1,
        }
        if sampling:
            call["num_beams"] = 1
            if self.seed is not None:
                call["seed"] = (self.seed + 1_000_003 * window.start + 7919 * attempt) % 2**63
        config = self._config.without_lengths()
        resolved = config.resolve(call, self._limit, None, self._vocabulary, len(prompt))
        return replace(
            resolved,
            prompt_tokens=prompt,
            start_index=starts_at,
            choices=choices,
            no_speech_token=self.no_speech_token,
            timestamps=self.timestamps,
            score_after_rules=True,
            patience=None if sampling else self.patience,
            token_log_probs=self.token_log_probs,
        )

    def prompt(self, window: Window, language: int | None = None) -> tuple[int, ...]:
        """Prompt of a window, with the token of the language where that was chosen by the model."""
        prompt, starts_at = window.prompt_tokens, len(window.prompt_tokens) - len(self.windows.start_tokens)
        if not self.choices or language is None:
            return prompt
        return (*prompt[: starts_at + 1], language, *prompt[starts_at + 2 :])

    @property
    def searches(self) -> bool:
        """True where the first attempt is a beam search."""
        beams = self._config.read("num_beams", self._call)
        return bool(beams > 1 and not self.windows.temperatures[0])

    def _max_length(self, prompt: int) -> int:
        """Maximum length of a window's tokens with a prompt of so many.

        Raises:
            ValueError: more tokens than the decoder has positions.
        """
        new, length = (self._config.read(name, self._call) for name in ("max_new_tokens", "max_length"))
        if new is None:
            length = _DEFAULT_NEW_TOKENS if length is None else length
            return int(min(length + min(prompt, self.windows.max_previous_tokens), self._limit))
        with self._config.naming_its_file(self._call):
            if prompt + new > self._limit:
                raise ValueError(
                    f"max_new_tokens {new} and a prompt of {prompt} tokens are {prompt + new}, and the "
                    f"decoder has {self._limit} positions; give fewer new tokens or a shorter prompt"
                )
        return int(prompt + new)


def resolve_whisper(
    config: WhisperGenerationConfig,
    call: Mapping[str, Any],
    *,
    limit: int,
    vocabulary: int,
    window_frames: int,
    is_long: bool,
) -> WhisperOptions:
    """Resolve the options of one recording: the call's, else the checkpoint's, else transformers' defaults.

    Args:
        config: options of the checkpoint.
        call: arguments of `generate` by name, None for those not given.
        limit: decoder positions.
        vocabulary: vocabulary size.
        window_frames: frames that the encoder reads.
        is_long: True for a recording of several windows, which needs times.

    Raises:
        ValueError: an option that is unknown, out of range, or that the checkpoint cannot serve.
    """
    with config.naming_its_file(call):
        return _resolved(config, call, limit, vocabulary, window_frames, is_long)


def _resolved(
    config: WhisperGenerationConfig,
    call: Mapping[str, Any],
    limit: int,
    vocabulary: int,
    window_frames: int,
    is_long: bool,
) -> WhisperOptions:
    """Implement `resolve_whisper`, with errors that name no file."""
    common = {name: value for name, value in call.items() if name in GenerationConfig.known}
    for name, value in call.items():
        config.check_option(name, value)
    _check_tokens(config, call, vocabulary)
    no_timestamps = config.read("no_timestamps_token_id", call)
    wants_times = is_long or config.read("return_timestamps", call)
    if is_long and call.get("return_timestamps") is False:
        raise ValueError(
            "return_timestamps is False, and a recording of over 30 s needs times to find its next window; "
            "leave it out, or cut the recording"
        )
    if wants_times and no_timestamps is None:
        raise ValueError("times need no_timestamps_token_id, and generation_config.json has none; give it")
    if wants_times and no_timestamps == vocabulary - 1:
        raise ValueError(
            f"no_timestamps_token_id is {no_timestamps}, the vocabulary's last; times need tokens behind it"
        )
    start = config.read("decoder_start_token_id", call)
    if start is None:
        raise ValueError("decoder_start_token_id is not set by the call nor by the checkpoint; give it")
    prompt, choices = _start_tokens(config, call, start, wants_times, no_timestamps)
    first_time = vocabulary + 1 if no_timestamps is None else no_timestamps + 1
    ends = token_ids("eos_token_id", config.read("eos_token_id", call))
    end = ends[0] if ends else -1
    suppressed: tuple[int, ...] = config.read("suppress_tokens", call) or ()
    previous = config.read("prev_sot_token_id", call)
    if previous is None:
        previous = suppressed[-2] if len(suppressed) >= 2 else start
    temperatures = config.read("temperature", {"temperature": call.get("temperature")})
    if temperatures is None:
        temperatures = (1.0,) if config.read("do_sample", call) else (0.0,)
    silence = config.read("no_speech_threshold", call)
    if silence is not None and no_timestamps is None:
        raise ValueError("no_speech_threshold needs no_timestamps_token_id in generation_config.json")
    windows = WindowOptions(
        start_tokens=prompt,
        first_time=first_time,
        end_token=end,
        previous_token=previous,
        temperatures=temperatures,
        compression_ratio_threshold=config.read("compression_ratio_threshold", call),
        logprob_threshold=config.read("logprob_threshold", call),
        no_speech_threshold=silence,
        condition_on_prev_tokens=config.read("condition_on_prev_tokens", call),
        prompt_ids=tuple(config.read("prompt_ids", call) or ()),
        hotwords=tuple(config.read("hotword_ids", call) or ()),
        prompt_all_windows=config.read("prompt_condition_type", call) == "all-segments",
        max_previous_tokens=limit // 2 - 1,
        window_frames=window_frames,
    )
    if windows.prompt_all_windows and not windows.condition_on_prev_tokens:
        raise ValueError("prompt_condition_type 'all-segments' needs condition_on_prev_tokens=True")
    rule = None
    if wants_times and no_timestamps is not None:
        largest = config.read("max_initial_timestamp_index", call)
        if largest is not None:
            largest = min(largest, vocabulary)  # added to a token id of 32 bits
        rule = TimestampRule(first_time, no_timestamps, end, largest)
    return WhisperOptions(
        windows=windows,
        choices=choices,
        timestamps=rule,
        no_speech_token=None if no_timestamps is None else no_timestamps - 1,
        patience=_patience(config, call),
        seed=common.pop("seed", None),
        _config=config,
        _call={name: value for name, value in common.items() if name != "temperature"},
        _limit=limit,
        _vocabulary=vocabulary,
    )


def _patience(config: WhisperGenerationConfig, call: Mapping[str, Any]) -> float | None:
    """Patience of beam search; None where none is given.

    Raises:
        ValueError: patience without beams, or with another rule that ends a beam search.
    """
    patience: float | None = config.read("patience", call)
    if patience is None:
        return None
    if config.read("num_beams", call) == 1:
        raise ValueError(f"patience {patience} is a rule of beam search, and num_beams is 1; use more beams")
    rule = config.read("early_stopping", call)
    if rule is not False:
        raise ValueError(
            f"patience {patience} and early_stopping {rule!r} both end a beam search; give one of them"
        )
    return patience


def _check_tokens(config: WhisperGenerationConfig, call: Mapping[str, Any], vocabulary: int) -> None:
    """Check that Whisper's own options name tokens of the vocabulary.

    Raises:
        ValueError: a token outside the vocabulary; the message names the option and the token.
    """
    named: list[tuple[str, int | None]] = [
        (f"{table}[{shown(key)}]", token)
        for table in ("lang_to_id", "task_to_id")
        for key, token in (config.read(table, call) or {}).items()
    ]
    named += [(name, config.read(name, call)) for name in ("no_timestamps_token_id", "prev_sot_token_id")]
    named += [("forced_decoder_ids", token) for _, token in config.read("forced_decoder_ids", call) or ()]
    named += [("prompt_ids", token) for token in config.read("prompt_ids", call) or ()]
    for name, token in named:
        if token is not None and token >= vocabulary:
            raise ValueError(f"{name} names token {token}; the model's are 0 to {vocabulary - 1}")
    if config.read("no_timestamps_token_id", call) == 0:
        raise ValueError("no_timestamps_token_id is 0; it must be 1 or more: before it is that of no speech")


def language_ids(
    config: WhisperGenerationConfig, languages: Sequence[str], call: Mapping[str, Any]
) -> list[int]:
    """Token ids of languages, each a code, an English name, or a token such as "<|en|>".

    Raises:
        ValueError: a language that the checkpoint does not have, or a checkpoint without languages.
    """
    known = config.read("lang_to_id", call)
    if known is None or config.read("is_multilingual", call) is False:
        raise ValueError(
            f"language {languages[0]!r} is given, and this checkpoint knows English alone; leave it out"
        )
    ids = []
    for language in languages:
        name = language.lower()
        token = name if name in known else f"<|{LANGUAGE_CODES.get(name, name)}|>"
        if token not in known:
            codes = ", ".join(sorted(one.strip("<|>") for one in known))
            raise ValueError(f"language {language!r} is not one of this checkpoint's ({codes})")
        ids.append(known[token])
    return ids


def _start_tokens(
    config: WhisperGenerationConfig,
    call: Mapping[str, Any],
    start: int,
    wants_times: bool,
    no_timestamps: int | None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokens that begin a transcript, as transformers writes them, and the languages to choose from."""
    language, task = config.read("language", call), config.read("task", call)
    if task is not None and config.read("is_multilingual", call) is False:
        raise ValueError(
            f"task {task!r} is given, and this checkpoint transcribes English alone; leave it out"
        )
    languages = config.read("lang_to_id", call)
    tasks = config.read("task_to_id", call)
    tokens: list[int | None] = [start]
    if language is None and task is None:
        forced = config.read("forced_decoder_ids", call) or ()
        if forced and [place for place, _ in forced] != list(range(1, len(forced) + 1)):
            raise ValueError(f"forced_decoder_ids {shown(list(forced))} must be of places 1, 2, 3 and so on")
        tokens += [token for _, token in forced]
    choices: tuple[int, ...] = ()
    if language is not None:
        tokens[1:2] = language_ids(config, [language], call)
    elif languages and (len(tokens) == 1 or tokens[1] is None):
        choices = tuple(languages.values())
        tokens[1:2] = [choices[0]]  # replaced by the choice
    if task is not None:
        if tasks is None or task not in tasks:
            raise ValueError(f"task {task!r} is not one of this checkpoint's task_to_id ({shown(tasks)})")
        tokens.append(tasks[task])
    elif language is not None and tasks and not set(tasks.values()) & set(tokens):
        tokens.append(tasks["transcribe"])
    written = [token for token in tokens if token is not None]
    if wants_times and written[-1] == no_timestamps:
        written.pop()
    elif not wants_times and no_timestamps is not None and written[-1] != no_timestamps:
        written.append(no_timestamps)
    return tuple(written), choices
