"""Task of an engine with Whisper: recordings of any length, with languages, times and fallbacks."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, get_args

from ...models.core.generation_config import option_key
from ...models.whisper.languages import language_code
from ...models.whisper.options import WhisperOptions
from ...models.whisper.windows import Window, window_prompt
from ...scheduler.request import GenerationOptions, RequestOutput
from ..audio.errors import TooLongError
from ..audio.speech import SpeechTimes
from ..config import EngineConfig, Windows
from ..jobs import Prepared
from ..outputs import Transcription
from ..session import Session
from .generation import LOG_PROBS, GenerationTask, TokenProcessor, check_log_probs
from .inputs import Inputs, ReadOptions, check_choice
from .windowed_recordings import WindowedRecordings, while_wanted
from .windows import (
    LongSource,
    ShortSource,
    Texts,
    WindowedPiece,
    WindowSession,
    pieces_at_pauses,
)
from .word_times import WordTimes

_NO_TOKEN = 1 << 31  # above every token id
_OF_ENGINE = ("windows", "max_window", "word_timestamps", LOG_PROBS)  # options that the model does not know
_MAX_RESOLUTIONS = 256  # kept of an engine


class WhisperTask(GenerationTask):
    """Task of an engine with Whisper.

    Args:
        model, tokenizer, config: as of a `GenerationTask`.
        inputs: reader of recordings of any length.
    """

    inputs: WindowedRecordings

    def __init__(self, model: Any, inputs: WindowedRecordings, tokenizer: Any, config: EngineConfig) -> None:
        known = model.generation_config.read
        self._resolutions = dict[bytes, WhisperOptions]()
        ids = known("lang_to_id", {}) or {}
        self._languages = {token: name.strip("<|>") for name, token in ids.items()}
        # What a checkpoint that knows English alone transcribes; those without the option do not tell.
        self._language = "en" if known("is_multilingual", {}) is False else None
        self._defaults = {"task": "transcribe"} if ids and known("task_to_id", {}) else {}
        if known("max_length", {}) is None and known("max_new_tokens", {}) is None:
            self._defaults["max_length"] = model.max_length
        super().__init__(model, inputs, tokenizer, config)

    def check(self, language: str | None, options: dict[str, Any]) -> dict[str, Any]:
        """Validate the options of a call; `prompt` becomes `prompt_ids`, `hotwords` `hotword_ids`.

        Raises:
            ValueError: an unknown option or language, or a value out of range.
        """
        call = {name: value for name, value in options.items() if value is not None}
        check_choice("windows", call.setdefault("windows", "sequential"), get_args(Windows))
        if call["windows"] == "pauses":
            call["max_window"] = self.inputs.check_window(call.get("max_window"))
        elif "max_window" in call:
            raise ValueError(
                f"max_window {call['max_window']!r} is for windows cut at pauses; sequential ones have the "
                "model's length; give windows='pauses' (--windows pauses) too, or leave it out"
            )
        if language is not None:
            call["language"] = language
        if self._language is not None:  # options that say what the checkpoint does anyway
            if language_code(call.get("language", self._language)) == self._language:
                call.pop("language", None)
            if call.get("task") == "transcribe":
                del call["task"]
        prompt = call.pop("prompt", None)
        if prompt is not None:
            if "prompt_ids" in call:
                raise ValueError("prompt and prompt_ids say the same thing; give one of them")
            if not isinstance(prompt, str):
                raise ValueError(f"prompt must be a text, got {prompt!r}")
            call["prompt_ids"] = self._tokenizer.get_prompt_ids(prompt, None)
        hotwords = call.pop("hotwords", None)
        if hotwords is not None:
            if not isinstance(hotwords, str):
                raise ValueError(f"hotwords must be a text, got {hotwords!r}")
            call["hotword_ids"] = self._tokenizer.get_prompt_ids(hotwords, None)[1:]
        if hasattr(call.get("prompt_ids"), "tolist"):
            call["prompt_ids"] = call["prompt_ids"].tolist()
        if self._model.generation_config.read("num_return_sequences", call) != 1:
            raise ValueError("num_return_sequences must be 1 here; model.generate returns several")
        wants_words = call.setdefault("word_timestamps", False)
        if not isinstance(wants_words, bool):
            raise ValueError(f"word_timestamps must be True or False, got {wants_words!r}")
        if wants_words:
            _ = self._model.alignment_heads  # which the checkpoint must name
        self.resolve(call, self._config.usual_seconds)
        searches = 0.0 in self._resolved(call).windows.temperatures  # at others it samples
        num_beams = self._model.generation_config.read("num_beams", call) if searches else 1
        check_log_probs(call.get(LOG_PROBS), num_beams)
        return call

    def resolve(self, options: dict[str, Any], duration: float) -> GenerationOptions:
        """Generation options of the first request of a recording of one window."""
        return _first_request(self._resolved(options))

    def _kept_width(self) -> int:
        """Width of encoder outputs, which windows keep for times of words."""
        return int(self._model.config.d_model) if self._model.has_alignment_heads else 0

    def _usual_options(self, duration: float) -> list[GenerationOptions]:
        """Options of recordings of one window, and of long ones, which have times."""
        options = super()._usual_options(duration)
        if self._model.generation_config.read("no_timestamps_token_id", {}) is not None:
            options.append(_first_request(self._resolved({}, is_long=True)))
        return list(dict.fromkeys(options))

    def start(
        self, snapshot: Any, reading: ReadOptions, options: dict[str, Any], is_wanted: Callable[[], bool]
    ) -> Prepared | Session:
        """Inputs of a recording of one window that takes one request; a session of all others.

        Raises:
            AudioError: the recording cannot be used.
        """
        inputs, extractor = self.inputs, self.inputs.front_end

        def session(
            pieces: Iterable[WindowedPiece],
            resolved: WhisperOptions,
            warnings: Callable[[], Sequence[str]],
            duration: float = 0.0,
            speech: SpeechTimes | None = None,
        ) -> WindowSession:
            texts = self._texts(resolved)
            words = None
            if options["word_timestamps"]:
                words = WordTimes(self._model, self._tokenizer, resolved, texts.language)
            return WindowSession(pieces, resolved, texts, warnings, duration, words, speech)

        try:
            short = snapshot
            if not isinstance(snapshot, Inputs):
                short = inputs.read(snapshot, reading, options, is_wanted)
        except TooLongError:
            if options["windows"] == "pauses":
                blocks = inputs.blocks(snapshot, reading)
                wanted = while_wanted(blocks, is_wanted)
                pieces = pieces_at_pauses(wanted, extractor, options["max_window"])
                resolved = self._resolved(options)
                return session(pieces, resolved, lambda: blocks.warnings, speech=blocks.speech)
            resolved = self._resolved(options, is_long=True)
            long = LongSource(lambda: inputs.blocks(snapshot, reading), extractor, is_wanted)
            end = long.samples / inputs.sampling_rate
            whole = WindowedPiece(long, long.frames, 0.0, end)
            return session([whole], resolved, lambda: long.warnings, end, long.speech)
        is_long = inputs.is_part_of_long(short, options)
        resolved = self._resolved(options, is_long and options["windows"] == "sequential")
        if short.values is None or not (is_long or options["word_timestamps"] or _takes_several(resolved)):
            return short, _first_request(resolved)
        source = ShortSource(short.values, extractor)
        whole = WindowedPiece(source, source.frames, 0.0, short.duration)
        return session([whole], resolved, lambda: short.warnings, short.duration, short.speech)

    def output_processor(self, options: dict[str, Any]) -> "WhisperProcessor":
        """Output processor of results with these options."""
        return WhisperProcessor(self._tokenizer, self._texts(self._resolved(options)))

    def _texts(self, resolved: WhisperOptions) -> Texts:
        return Texts(self._tokenizer, resolved, self._languages, self._language)

    def _resolved(self, options: dict[str, Any], is_long: bool = False) -> WhisperOptions:
        """Options of a recording: a call's, else the checkpoint's, else the engine's defaults."""
        key = option_key(options, self._model.generation_config.options, is_long)
        found = None if key is None else self._resolutions.get(key)
        if found is None:
            call = {name: value for name, value in options.items() if name not in _OF_ENGINE}
            for name, value in self._defaults.items():
                if name != "max_length" or "max_new_tokens" not in call:
                    call.setdefault(name, value)
            if is_long:  # which has times in any case
                call.pop("return_timestamps", None)
            found = self._model.whisper_options(call, is_long=is_long, limit=self._max_length)
            if found.timestamps is None:  # a time that is decoded all the same is no end of a segment
                found = replace(found, windows=replace(found.windows, first_time=_NO_TOKEN))
            if options.get(LOG_PROBS):
                found = replace(found, token_log_probs=True)
            if key is not None:
                if len(self._resolutions) >= _MAX_RESOLUTIONS:
                    self._resolutions.clear()
                self._resolutions[key] = found
        return found


class WhisperProcessor(TokenProcessor):
    """Output processor of Whisper: text, segments and language of one request or of all windows.

    Args:
        tokenizer: tokenizer of the checkpoint.
        texts: texts of the recording's windows.
    """

    def __init__(self, tokenizer: Any, texts: Texts) -> None:
        super().__init__(tokenizer)
        self._texts = texts
        self.whole_words = False  # spaces are tokens' own

    def decode(self, token_ids: tuple[int, ...]) -> str:
        """Decode token ids to text without the space before its first word."""
        return super().decode(token_ids).lstrip()

    def process(
        self, output: RequestOutput, token_ids: tuple[int, ...], duration: float, source: Any
    ) -> Transcription:
        """Build the Transcription of a recording that took one request, or has no result."""
        result = super().process(output, token_ids, duration, source)
        return replace(result, language=self._texts.language(token_ids)) if token_ids else result

    def text_of(self, parts: Sequence[Any]) -> str:
        """Text of windows without the space before its first word."""
        return "".join(part.text for part in parts).lstrip()


def _first_request(options: WhisperOptions) -> GenerationOptions:
    """Options of the request for a recording's first window."""
    windows = options.windows
    prompt = window_prompt((), windows, conditioned=windows.condition_on_prev_tokens)
    return options.request(Window(0, windows.window_frames, prompt, windows.temperatures[0]))


def _takes_several(options: WhisperOptions) -> bool:
    """True where a recording of one window may take several requests, or its result several parts."""
    windows = options.windows
    return (
        options.timestamps is not None
        or len(windows.temperatures) > 1
        or windows.no_speech_threshold is not None
    )
