"""Generation task of an engine: cache size, options and text of a model that decodes token by token."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ...scheduler.block_allocator import PAGE_SIZE
from ...scheduler.request import GenerationOptions, RequestOutput
from ..audio.errors import TooLongError
from ..audio.segments import pieces
from ..config import EngineConfig
from ..gpu.memory import EncodeSize, encode_size, fitting_pages, fitting_rows
from ..gpu.warm_up import warm_up_options
from ..jobs import Prepared
from ..outputs import OutputProcessor, Transcription, not_finite
from ..session import Session
from .base import EngineTask, Verb
from .generation_windows import MIN_SHARE, PieceSession
from .inputs import Inputs, ReadOptions
from .window_results import WindowResult, join_texts, mean_score
from .windowed_recordings import WindowedRecordings, while_wanted

_MAX_USUAL_SECONDS = 60.0  # of recordings whose decode steps are recorded ahead of need
_SEED_STEP = 1_000_003  # between the seeds of a recording's pieces
LOG_PROBS = "token_log_probs"  # option that the model does not know, as those below
_OF_ENGINE = ("max_window", LOG_PROBS)


class GenerationTask(EngineTask):
    """Task of an engine with a model that generates text from recordings.

    Args:
        model: a `GenerativeModel` with `resolve_options` and `generation_loop`.
        inputs: reader of recordings of any length.
        tokenizer: tokenizer of the same checkpoint.
        config: configuration with the cache size, budgets and default lengths.
    """

    verb: Verb = "transcribe"
    inputs: WindowedRecordings

    def __init__(self, model: Any, inputs: WindowedRecordings, tokenizer: Any, config: EngineConfig) -> None:
        self.name = type(model).__name__
        self.inputs = inputs
        self._model, self._tokenizer, self._config = model, tokenizer, config
        self._max_length: int = model.max_length  # asked for each request, and found by a walk over modules
        on_gpu = model.device.type == "cuda"
        if on_gpu:
            num_rows = config.num_rows or fitting_rows(model, config)
            size = encode_size(
                model, inputs.front_end, inputs.max_input_seconds, config.encode_budget, config
            )
        else:
            num_rows = config.num_rows or config.rows_on_cpu
            size = EncodeSize(config.encode_budget or config.encode_budget_on_cpu, 0)
        self.loop = model.generation_loop(
            inputs.front_end,
            num_pages=config.num_pages or self._default_pages(num_rows, size.peak),
            num_rows=num_rows,
            encode_budget=size.budget,
            graphs=config.graphs and on_gpu,
            overlap=config.overlap and on_gpu,
            config=config.runner,
        )
        usual_options = self._usual_options(config.usual_seconds)
        self.warm_up_options = [one for each in usual_options for one in warm_up_options(each, num_rows)]
        # Longer ones are rare, and take much wider tables.
        usual = config.usual_seconds, _MAX_USUAL_SECONDS
        durations = [min(seconds, inputs.max_input_seconds) for seconds in usual]
        self.usual_demands = [
            (options, self._encode_tokens(one)) for one in durations for options in self._usual_options(one)
        ]
        self.max_in_flight = config.in_flight_per_row * num_rows
        self.max_in_flight_seconds = math.inf  # bounded by the number of requests
        self._processor = TokenProcessor(tokenizer)

    def check(self, language: str | None, options: dict[str, Any]) -> dict[str, Any]:
        """Validate the options of a call, set `max_window`, and `forced_bos_token_id` from its language.

        Raises:
            ValueError: an unknown option or language, or a value out of range.
        """
        options = {**options, "max_window": self.inputs.check_window(options.get("max_window"))}
        if language is not None:
            if options.get("forced_bos_token_id") is not None:
                raise ValueError("language and forced_bos_token_id say the same thing; give one of them")
            known = getattr(self._tokenizer, "lang_code_to_id", {})
            if language not in known:
                there = ", ".join(sorted(known)) or "none: it has one language; leave it out"
                raise ValueError(f"language {language!r} is not one of this checkpoint's ({there})")
            options = {**options, "forced_bos_token_id": known[language]}
        resolved = self.resolve(options, self._config.usual_seconds)
        if resolved.num_return_sequences != 1:
            raise ValueError("num_return_sequences must be 1 here; model.generate returns several")
        check_log_probs(options.get(LOG_PROBS), resolved.num_beams)
        return options

    def resolve(self, options: dict[str, Any], duration: float) -> GenerationOptions:
        """Generation options for a recording of `duration` seconds, completed by defaults."""
        config = self._config
        length = 1 + config.extra_tokens + math.ceil(config.tokens_per_second * duration)
        own = {name: value for name, value in options.items() if name not in _OF_ENGINE}
        resolved: GenerationOptions = self._model.resolve_options(
            self._max_length, default_max_length=min(length, self._max_length), **own
        )
        return replace(resolved, token_log_probs=True) if options.get(LOG_PROBS) else resolved

    def start(
        self, snapshot: Any, reading: ReadOptions, options: dict[str, Any], is_wanted: Callable[[], bool]
    ) -> Prepared | Session:
        """Inputs of a recording of one window; a session of a longer one.

        Raises:
            AudioError: the recording cannot be used.
        """
        inputs, rate = self.inputs, self.inputs.sampling_rate
        with suppress(TooLongError):
            read = snapshot
            if not isinstance(snapshot, Inputs):
                read = inputs.read(snapshot, reading, options, is_wanted)
            if not inputs.is_part_of_long(read, options):
                return read, self.resolve(options, read.duration)
        blocks = inputs.blocks(snapshot, reading)
        cut = pieces(while_wanted(blocks, is_wanted), rate, options["max_window"], MIN_SHARE)
        if blocks.speech is not None:
            cut = blocks.speech.split(cut, inputs.min_input_seconds)

        def resolve(piece: int, duration: float) -> GenerationOptions:
            resolved = self.resolve(options, duration)
            if not resolved.do_sample:
                return resolved
            return replace(resolved, seed=(resolved.seed + _SEED_STEP * piece) % 2**63)

        return PieceSession(
            blocks,
            cut,
            rate,
            inputs.min_input_seconds,
            resolve,
            self._processor.decode,
            self._tokenizer.all_special_ids,
        )

    def _usual_options(self, duration: float) -> list[GenerationOptions]:
        """Options of usual requests for recordings of `duration` seconds, each with rules of its own."""
        return [self.resolve({}, duration)]

    def output_processor(self, options: dict[str, Any]) -> "TokenProcessor":
        """Output processor of decoded tokens, the same for all requests."""
        return self._processor

    def _encode_tokens(self, seconds: float) -> int:
        """Number of encoder positions of a recording."""
        front_end = self.inputs.front_end
        frames = front_end.frame_count(int(seconds * front_end.sampling_rate))
        return int(self._model.encoder_length(frames))

    def _default_pages(self, num_rows: int, encoding: int) -> int:
        """Default number of cache pages.

        Enough for a recording of usual length in each row, and for the longest with a few beams; on a GPU as
        many as fit, but no more than the rows can fill.
        """
        config, max_seconds = self._config, self.inputs.max_input_seconds

        def pages(seconds: float, hypotheses: int, tokens: int | None = None) -> int:
            cross = math.ceil(self._encode_tokens(seconds) / PAGE_SIZE)
            tokens = tokens or self.resolve({}, seconds).max_length
            return cross + hypotheses * math.ceil(tokens / PAGE_SIZE)

        longest = pages(max_seconds, config.beams_of_longest)
        if self._model.device.type != "cuda":
            return max(longest, num_rows * pages(min(config.usual_seconds, max_seconds), 1))
        full = max(longest, num_rows * pages(max_seconds, 1, self._max_length))
        fitting = fitting_pages(self._model, num_rows, encoding, config, self._kept_width())
        return max(min(full, fitting), 1)

    def _kept_width(self) -> int:
        """Width of the encoder outputs that requests may keep; 0 where none do."""
        return 0


class TokenProcessor(OutputProcessor[Transcription]):
    """Output processor of generation: decodes token ids to text.

    Args:
        tokenizer: tokenizer of the model's checkpoint.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.whole_words = bool(tokenizer.clean_up_tokenization_spaces)

    def decode(self, token_ids: tuple[int, ...]) -> str:
        """Decode token ids to text, without special tokens."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def error_of(self, output: RequestOutput) -> Exception | None:
        """Error of a best hypothesis whose score is not finite, or that has no token left to choose."""
        if output.error is not None or not output.hypotheses:
            return None
        best = output.hypotheses[0]
        if not best.token_ids or best.score == -math.inf:
            return ValueError(
                "the options forbid every token of a step; take some from suppress_tokens or bad_words_ids, "
                "or raise no_repeat_ngram_size"
            )
        return None if math.isfinite(best.score) else not_finite("scores")

    def process(
        self, output: RequestOutput, token_ids: tuple[int, ...], duration: float, source: Any
    ) -> Transcription:
        """Build the Transcription of a request; a cancelled one has the text streamed so far."""
        return Transcription(
            text=self.decode(token_ids) if output.error is None else "",
            token_ids=token_ids,
            finish_reason=output.finish_reason,
            duration=duration,
            score=output.hypotheses[0].score if output.hypotheses else None,
            error=output.error,
            source=source,
            token_log_probs=output.hypotheses[0].token_log_probs if output.hypotheses else None,
        )

    def text_of(self, parts: Sequence[Any]) -> str:
        """Text of the first windows of a recording."""
        return join_texts(part.text for part in parts)

    def join(
        self, output: RequestOutput, parts: Sequence[Any], duration: float, source: Any
    ) -> Transcription:
        """Build the Transcription of a recording in windows; a cancelled one has the windows so far."""
        windows: Sequence[WindowResult] = parts
        segments = tuple(segment for window in windows for segment in window.segments)
        words = None
        if windows[0].words is not None:
            words = tuple(word for window in windows for word in window.words or ())
        log_probs = None
        if segments and segments[0].token_log_probs is not None:
            log_probs = tuple(one for segment in segments for one in segment.token_log_probs or ())
        return Transcription(
            text=self.text_of(windows),
            token_ids=tuple(token for segment in segments for token in segment.token_ids),
            finish_reason=output.finish_reason,
            duration=duration,
            score=mean_score(windows),
            words=words,
            segments=segments,
            language=windows[0].language,
            source=source,
            token_log_probs=log_probs,
        )

    def to_text(self, result: Transcription) -> str:
        """Text of the transcription."""
        return result.text


def check_log_probs(wanted: Any, num_beams: int) -> None:
    """Validate the option `token_log_probs`.

    Raises:
        ValueError: it is neither True nor False, or True in a beam search.
    """
    if wanted is not None and not isinstance(wanted, bool):
        raise ValueError(f"{LOG_PROBS} must be True or False, got {wanted!r}")
    if wanted and num_beams > 1:
        raise ValueError(
            f"{LOG_PROBS}=True is for greedy search and sampling, and num_beams is {num_beams}: beams share "
            "their histories, which keep no scores; give num_beams=1 too, or leave it out"
        )
