"""Session of a recording that Whisper transcribes window by window, and the results of these."""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...models.whisper.compression import text_compression_ratio
from ...models.whisper.feature_extractor import WhisperFeatureExtractor
from ...models.whisper.generation import WhisperGenerationMixin
from ...models.whisper.options import WhisperOptions
from ...models.whisper.window_reader import WindowReader, measure
from ...models.whisper.windows import FRAME_SECONDS, Decoded, Window, sequential_windows
from ...models.whisper.windows import Segment as Span
from ...models.whisper.word_times import TokenTimes
from ...scheduler.request import AudioExcerpt, FinishReason, RequestOutput
from ..audio.reader import AudioBlocks, AudioError
from ..audio.segments import pieces
from ..audio.speech import SpeechBlocks, SpeechTimes
from ..openmp import one_core
from ..outputs import Segment
from ..outputs import Span as Word
from ..session import PartsInOrder, Session, SessionCall, SessionRequest
from .window_results import WindowResult
from .windowed_recordings import while_wanted
from .word_times import WordTimes


class Source(Protocol):
    """Protocol of the inputs of a recording's windows."""

    def input(self, window: Window) -> Tensor | AudioExcerpt:
        """Input of a request for a window, not before the last one that was asked for."""


class ShortSource:
    """Source of a recording of one window, padded with silence; the rest behind a pair of times is another.

    Args:
        samples: float32 [samples] at the model's rate, on the CPU.
        extractor: feature extractor of the model.
    """

    def __init__(self, samples: Tensor, extractor: WhisperFeatureExtractor) -> None:
        self.frames = -(-len(samples) // extractor.hop_length)
        self._samples, self._extractor = samples, extractor
        self._reader: WindowReader | None = None

    def input(self, window: Window) -> Tensor | AudioExcerpt:
        """Input of a request for a window."""
        if not window.start:
            return self._samples
        if self._reader is None:
            padded = self._samples.new_zeros(self._extractor.n_samples)
            padded[: len(self._samples)] = self._samples
            level = measure([padded], self._extractor)
            self._reader = WindowReader([padded], self._extractor, level.maximum)
        part = self._reader.window(window.start)
        assert part is not None  # a window begins before the end
        return part


class LongSource:
    """Source of a recording of any length, which is read twice, in flat memory.

    The maximum of its features is computed on the CPU, in the thread that reads.

    Args:
        open_blocks: function that begins to read the recording, at its beginning.
        extractor: feature extractor of the model.
        is_wanted: function that returns False once the result is not wanted any more.

    Raises:
        AudioError: the recording cannot be used.
        Unwanted: the result is not wanted any more.
    """

    def __init__(
        self,
        open_blocks: Callable[[], AudioBlocks | SpeechBlocks],
        extractor: WhisperFeatureExtractor,
        is_wanted: Callable[[], bool],
    ) -> None:
        blocks = open_blocks()
        with one_core():  # several would wait for each other in each block
            level = measure(while_wanted(blocks, is_wanted), extractor)
        self.warnings = tuple(blocks.warnings)
        self.speech = blocks.speech
        self.samples = level.samples
        self.frames = level.samples // extractor.hop_length
        again = while_wanted(open_blocks(), is_wanted)
        self._reader = WindowReader(again, extractor, level.maximum)

    def input(self, window: Window) -> AudioExcerpt:
        """Input of a request for a window."""
        part = self._reader.window(window.start)
        if part is None or part.excerpt.frames < window.frames:
            raise AudioError("the recording has become shorter while it was read; leave it alone meanwhile")
        return part


@dataclass(frozen=True, slots=True)
class WindowedPiece:
    """Recording, or a piece of one that is decoded independently of the others.

    Attributes:
        source: inputs of its windows.
        frames: frames of audio.
        begin, end: seconds from the recording's beginning.
    """

    source: Source
    frames: int
    begin: float
    end: float


def pieces_at_pauses(
    blocks: Iterable[np.ndarray], extractor: WhisperFeatureExtractor, longest: float
) -> Iterator[WindowedPiece]:
    """Pieces of up to `longest` seconds, cut at pauses."""
    rate = extractor.sampling_rate
    for piece in pieces(blocks, rate, longest):
        source = ShortSource(torch.from_numpy(piece.samples), extractor)
        yield WindowedPiece(source, source.frames, piece.start / rate, piece.end / rate)


class Texts:
    """Texts of windows, and what follows from them.

    Args:
        tokenizer: tokenizer of the checkpoint.
        options: options of the recording.
        languages: codes of languages by token.
        language: code of the language of a checkpoint that knows one; None otherwise.
    """

    def __init__(
        self, tokenizer: Any, options: WhisperOptions, languages: dict[int, str], language: str | None
    ) -> None:
        self._tokenizer, self._languages, self._language = tokenizer, languages, language
        self._first_time = options.windows.first_time
        self._has_times = options.timestamps is not None

    def text(self, tokens: Sequence[int]) -> str:
        """Text of tokens without special tokens and times."""
        kept = [token for token in tokens if token < self._first_time]
        return str(self._tokenizer.decode(kept, skip_special_tokens=True))

    def ratio(self, tokens: Sequence[int]) -> float:
        """Compression ratio of a window's text, as in openai's transcribe."""
        return text_compression_ratio(self.text(tokens).strip())

    def language(self, tokens: Sequence[int]) -> str | None:
        """Code of the language among the tokens of a prompt; None where it is not known."""
        return next((self._languages[one] for one in tokens if one in self._languages), self._language)

    def segment(self, span: Span, begin: float, end: float) -> Segment:
        """Segment of a piece from `begin` to `end` in seconds, which its times do not pass."""
        decoded = span.decoded
        span_end = min(begin + span.end, end) if self._has_times else end
        return Segment(
            text=self.text(span.tokens),
            start=min(begin + span.start, end),
            end=span_end,
            token_ids=span.tokens,
            score=decoded.score,
            compression_ratio=span.compression_ratio,
            no_speech_probability=decoded.no_speech_probability,
            temperature=span.window.temperature,
            window_start=begin + span.window.start * FRAME_SECONDS,
            token_log_probs=span.token_log_probs,
        )


@dataclass(slots=True)
class _Progress:
    """Progress of a piece: its windows in turn."""

    begin: float  # seconds
    end: float
    source: Source | None  # of its inputs; None once complete
    steps: Generator[Window, Decoded, Any]
    found: list[Span]  # grows with the steps
    window: Window
    attempt: int = 0  # number of earlier requests for the window
    count: int = 0  # of the spans that have a result
    decoded: Decoded | None = None  # result of the window that has ended


class WindowSession(Session):
    """Session of a recording in windows: those of a piece in turn, pieces independently of each other.

    Where the language is to be detected, the first window's is that of all.

    Args:
        pieces: pieces of the recording in order, read as far as they are decoded.
        options: options of the recording.
        texts: texts of its windows.
        duration: seconds of audio; by default those of the pieces that have been read.
        warnings: function that returns the warnings about the reading so far.
        word_times: computation of words with times; None where they are not wanted.
        speech: times of the speech that the pieces are cut from; None where they are all of the recording.
    """

    def __init__(
        self,
        pieces: Iterable[WindowedPiece],
        options: WhisperOptions,
        texts: Texts,
        warnings: Callable[[], Sequence[str]] = tuple,
        duration: float = 0.0,
        word_times: WordTimes | None = None,
        speech: SpeechTimes | None = None,
    ) -> None:
        self._word_times, self._calls = word_times, deque[SessionCall]()
        self._pieces, self._options, self._texts = iter(pieces), options, texts
        self._warnings = warnings
        self._open = dict[int, _Progress]()
        self._to_ask = deque[int]()  # pieces whose next window can be decoded
        self._results = PartsInOrder[WindowResult]()
        self._language: int | None = None  # its token, where it is to be detected
        self._all_begun = False
        self.duration, self.warnings, self.speech = duration, tuple(warnings()), speech

    @property
    def is_complete(self) -> bool:
        """True once all windows have ended."""
        return self._all_begun and not self._results.is_open

    def next_request(self) -> SessionRequest | SessionCall | None:
        """Request for the next window of a piece, or for the first one of another; word times go first."""
        if self._calls:
            return self._calls.popleft()
        if not self._to_ask:
            waits = self._options.choices and self._language is None and self._open
            if waits or not self._begin():
                return None
        key = self._to_ask.popleft()
        one = self._open[key]
        options = self._options.request(one.window, self._language, one.attempt)
        assert one.source is not None
        keep_encoded = self._word_times is not None
        seconds = one.window.frames * FRAME_SECONDS
        return SessionRequest(key, one.source.input(one.window), options, keep_encoded, seconds)

    def receive(self, key: int, output: RequestOutput | TokenTimes) -> list[WindowResult]:
        """Take the result of a window, or times of its tokens; returns those that none is missing before."""
        one = self._open[key]
        if isinstance(output, TokenTimes):
            return self._end_window(key, one, output)
        before = one.window
        one.decoded = decoded = WhisperGenerationMixin.decoded(output, self._options, before)
        if self._language is None:
            self._language = decoded.language_token
        try:
            one.window = one.steps.send(decoded)
        except StopIteration:
            one.source = None
        if one.source is not None and one.window.start == before.start:
            one.attempt += 1
            self._to_ask.append(key)
            return []
        one.attempt = 0
        has_text = len(one.found) > one.count
        if has_text and output.finish_reason is FinishReason.LENGTH:
            self.finish_reason = FinishReason.LENGTH
        if self._word_times is None or output.encoded is None or not has_text:
            return self._end_window(key, one)
        compute = self._word_times.call(output.encoded, before, self._language, decoded)
        self._calls.append(SessionCall(key, compute))
        return []

    def _end_window(self, key: int, one: _Progress, times: TokenTimes | None = None) -> list[WindowResult]:
        """Add the result of a window that has ended, and go on to the piece's next one."""
        self._results.add(key, self._result(one, times))
        if one.source is None:
            self._results.end(key)
            del self._open[key]
        else:
            self._to_ask.append(key)
        return self._results.take()

    def _begin(self) -> bool:
        """Begin the next piece; False where there is none."""
        piece = next(self._pieces, None)
        self.warnings = tuple(self._warnings())
        if piece is None:
            self._all_begun = True
            return False
        found = list[Span]()
        steps = sequential_windows(piece.frames, self._options.windows, self._texts.ratio, found)
        key = self._results.begin()
        self._open[key] = _Progress(piece.begin, piece.end, piece.source, steps, found, next(steps))
        self._to_ask.append(key)
        self.duration = max(self.duration, piece.end)
        return True

    def _result(self, one: _Progress, times: TokenTimes | None) -> WindowResult:
        """Result of a window that has ended."""
        assert one.decoded is not None
        spans, one.count = one.found[one.count :], len(one.found)
        prompt = self._options.windows.start_tokens if self._language is None else (self._language,)
        segments = tuple(self._texts.segment(span, one.begin, one.end) for span in spans)
        words: tuple[Word, ...] | None = None if self._word_times is None else ()
        if self._word_times is not None and times is not None:
            # What is behind the next window's beginning belongs to that one.
            after = math.inf if one.source is None else one.begin + one.window.start * FRAME_SECONDS
            words = self._word_times.words(spans, times, one.begin, min(after, one.end), prompt)
        return WindowResult(
            text="".join(segment.text for segment in segments),
            segments=segments,
            score=one.decoded.score,
            tokens=len(one.decoded.tokens) if segments else 0,
            language=self._texts.language(prompt),
            words=words,
        )
