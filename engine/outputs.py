"""Results of requests, and the base class of output processors that build them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..scheduler.request import FinishReason, RequestOutput
from .session import Part
from .subtitles import formats
from .subtitles.cues import MAX_LINE_COUNT, MAX_LINE_WIDTH
from .timings import Timings

if TYPE_CHECKING:
    from .audio.speech import SpeechTimes


@dataclass(frozen=True, slots=True)
class Span:
    """Word or character of a transcription, with its start and end in the recording in seconds.

    Args:
        text, start, end: its text and times.
        confidence: mean probability of its tokens, from Whisper, or of its frames, from CTC; None from other
            models.
        speaker: name of its speaker, from `with_speakers`.
    """

    text: str
    start: float
    end: float
    confidence: float | None = None
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """Segment of a transcription: text between two times, or all text of a window.

    Args:
        text: text without special tokens and times.
        start, end: seconds from the recording's beginning.
        token_ids: token ids, times included.
        score: mean log-probability of the tokens of its window, or beam search's score.
        compression_ratio: bytes of the window's text over those of its compression; high for repetitions.
            This and the next two are of Whisper, None from other models.
        no_speech_probability: probability that the window has no speech; None where the model has no token
            for it.
        temperature: temperature at which the window was decoded; 0 for greedy or beam search.
        speaker: name of its speaker, from `with_speakers`.
        window_start: seconds from the recording's beginning to that of its window, from Whisper.
        token_log_probs: log-probability of each of `token_ids`, with the option of that name; None otherwise.
    """

    text: str
    start: float
    end: float
    token_ids: tuple[int, ...]
    score: float
    compression_ratio: float | None = None
    no_speech_probability: float | None = None
    temperature: float | None = None
    speaker: str | None = None
    window_start: float | None = None
    token_log_probs: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Transcription:
    """Result of transcribing one recording: text, token ids, score, and times where the model has them.

    Args:
        text: transcript without special tokens, except those that a CTC model decodes; empty where `error`
            is set.
        token_ids: token ids with the start and end token, as `generate` returns them; with `segments` those
            of these, without; for CTC those of the best path, without repetitions and blanks.
        finish_reason: "stop" at an end token, "length" at the maximum length, "cancelled" or "error"; a CTC
            model that succeeds always gives "stop".
        duration: seconds of audio; 0 where the recording could not be read.
        speech_duration: seconds that `vad_filter` kept of these; None without it.
        score: sequence score of beam search, otherwise the mean log-probability of the tokens, for CTC that
            of the best path's frames; None without tokens.
        error: exception by which the request failed; None otherwise.
        words: words with times, in order, from a CTC model, and from Whisper with `word_timestamps`; None
            otherwise.
        characters: characters with times, spaces included, from a CTC model.
        segments: segments of a recording in several windows, or with `return_timestamps`; None otherwise.
        language: code of the language, given or detected, of a model with languages, such as Whisper.
        warnings: problems that left a result, such as channels that cancel out.
        channel: index of the channel, from 0; None where the channels were mixed.
        source: recording as it was submitted.
        timings: seconds that the request took, by phase; None where no engine made the result.
        token_log_probs: with the option of that name, log-probabilities of the last of `token_ids`: of all
            that were generated, the end token included; with `segments` of each of `token_ids`. None
            otherwise, and without tokens.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    duration: float
    score: float | None = None
    error: Exception | None = None
    words: tuple[Span, ...] | None = None
    characters: tuple[Span, ...] | None = None
    segments: tuple[Segment, ...] | None = None
    language: str | None = None
    warnings: tuple[str, ...] = ()
    channel: int | None = None
    source: object = field(default=None, repr=False, compare=False)
    speech_duration: float | None = None
    timings: Timings | None = field(default=None, repr=False, compare=False)
    token_log_probs: tuple[float, ...] | None = None

    def to_srt(
        self,
        *,
        max_line_width: int = MAX_LINE_WIDTH,
        max_line_count: int = MAX_LINE_COUNT,
        highlight_words: bool = False,
    ) -> str:
        """Subtitles in the SubRip format; a line feed alone where nothing is said.

        Words have their own times. Where only segments are known, their text shares their time by characters;
        where neither is, the whole text shares the recording's. A cue ends with a segment, at a pause, or
        where its lines are full, best behind a sentence; none begins before the end of the one before.

        Args:
            max_line_width: columns of a line; a wide character of East Asia takes two.
            max_line_count: lines of a cue.
            highlight_words: True underlines each word in turn.

        Raises:
            ValueError: the transcription failed, an argument is out of range, or words are to be highlighted
                whose times are unknown.
        """
        return formats.srt(
            self,
            max_line_width=max_line_width,
            max_line_count=max_line_count,
            highlight_words=highlight_words,
        )

    def to_vtt(
        self,
        *,
        max_line_width: int = MAX_LINE_WIDTH,
        max_line_count: int = MAX_LINE_COUNT,
        highlight_words: bool = False,
    ) -> str:
        """Subtitles in the WebVTT format; arguments and errors are as of `to_srt`."""
        return formats.vtt(
            self,
            max_line_width=max_line_width,
            max_line_count=max_line_count,
            highlight_words=highlight_words,
        )

    def to_tsv(self) -> str:
        """Table with the columns start, end (milliseconds) and text, as openai-whisper writes it.

        A row is a segment; without segments it is a cue of `to_srt`. ValueError for a failed transcription.
        """
        return formats.tsv(self)

    def to_json(self) -> str:
        """JSON object with text, segments, words, language and duration, named as openai-whisper names them.

        Words stand at the top, as in OpenAI's API, and in their segments. ValueError for a failed
        transcription.
        """
        return formats.to_json(self)


@dataclass(frozen=True, slots=True)
class Label:
    """Label that a classifier assigns, with its score."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Classification:
    """Result of classifying one recording or text: labels with scores.

    Args:
        labels: labels, best first; empty where `error` is set or the request was cancelled. Scores are
            probabilities: softmax over all labels, or the sigmoid of each for a multi-label model or one
            with a single label; for regression the raw logits.
        finish_reason: "stop", "cancelled" or "error".
        duration: seconds of audio; 0 for a text, or where the recording could not be read.
        error: exception by which the request failed; None otherwise.
        warnings, channel, timings: as of a Transcription.
        source: recording or text as it was submitted.
    """

    labels: tuple[Label, ...]
    finish_reason: FinishReason
    duration: float = 0.0
    error: Exception | None = None
    warnings: tuple[str, ...] = ()
    channel: int | None = None
    source: object = field(default=None, repr=False, compare=False)
    timings: Timings | None = field(default=None, repr=False, compare=False)


def not_finite(name: str) -> Exception:
    """Error of a request whose scores or logits are NaN or infinite."""
    return RuntimeError(
        f"the model's {name} are not finite: its weights are damaged, or it overflows in float16; run it in "
        "float32 or bfloat16, or fetch the checkpoint again"
    )


R = TypeVar("R", bound=Transcription | Classification)


def in_recording(result: R, speech: "SpeechTimes") -> R:
    """Result of a recording's speech alone, with times and duration of the recording."""
    if not isinstance(result, Transcription):
        return replace(result, duration=speech.duration)

    def moved(spans: tuple[Span, ...] | None) -> tuple[Span, ...] | None:
        if spans is None:
            return None
        times = [speech.word(one.start, one.end) for one in spans]
        return tuple(
            replace(one, start=start, end=end) for one, (start, end) in zip(spans, times, strict=True)
        )

    segments = result.segments
    if segments is not None:
        segments = tuple(_segment_in_recording(one, speech) for one in segments)
    return replace(
        result,
        words=moved(result.words),
        characters=moved(result.characters),
        segments=segments,
        duration=speech.duration,
        speech_duration=speech.speech_duration,
    )


def _segment_in_recording(segment: Segment, speech: "SpeechTimes") -> Segment:
    start, end = speech.segment(segment.start, segment.end)
    window = segment.window_start
    if window is not None:  # which begins in the segment or before it
        window = min(speech.word(window, window)[0], start)
    return replace(segment, start=start, end=end, window_start=window)


class OutputProcessor(ABC, Generic[R]):
    """Base class of converters from a request's output to its result. Any thread may call one."""

    whole_words = False  # True where more tokens may change the last word of a text

    def decode(self, token_ids: tuple[int, ...]) -> str:
        """Decode streamed token ids to text; empty for a model that does not stream."""
        return ""

    @abstractmethod
    def error_of(self, output: RequestOutput) -> Exception | None:
        """Error of an output whose numbers mean nothing, such as NaN; None for a good or failed one."""

    @abstractmethod
    def process(self, output: RequestOutput, token_ids: tuple[int, ...], duration: float, source: Any) -> R:
        """Build the result of a request that has ended.

        Args:
            output: output of the generation loop for the request.
            token_ids: token ids of its best hypothesis; without one, those streamed so far.
            duration: seconds of audio.
            source: recording or text as it was submitted.
        """

    def text_of(self, parts: Sequence[Part]) -> str:
        """Text of the first parts of a session's result."""
        return "".join(part.text for part in parts)

    def join(self, output: RequestOutput, parts: Sequence[Part], duration: float, source: Any) -> R:
        """Build the result of a session that has ended, from the parts that it has returned."""
        raise NotImplementedError(f"a {type(self).__name__} has no results of several parts")

    @abstractmethod
    def to_text(self, result: R) -> str:
        """Complete text that iterating over the request's handle yields."""
