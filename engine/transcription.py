"""Transcription jobs: what a recording became, the handle on one that is under way, and many in order."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from ..scheduler.request import FinishReason

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Span:
    """A word or a character of a transcription, and from when to when it is said, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Transcription:
    """What one recording became.

    Args:
        text: empty where `error` is set. Without special tokens, but for those that a CTC model says.
        token_ids: with the start token and the end token, as `generate` returns them; CTC's without
            repetitions and blanks.
        finish_reason: "stop" at an end token, "length" at the longest length, "cancelled" or "error"; CTC
            always ends with "stop".
        duration: seconds of audio; 0 where the recording could not be read.
        score: beam search's sequence score, otherwise the tokens' mean log-probability, for CTC that of the
            best path's frames; None without tokens.
        error: why there is no text.
        words: of a model that knows when they are said (CTC), in order; None of others.
        characters: likewise, spaces included.
        source: what was submitted.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    duration: float
    score: float | None = None
    error: Exception | None = None
    words: tuple[Span, ...] | None = None
    characters: tuple[Span, ...] | None = None
    source: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A transcription before it is read, which is left to the thread that asks for it.

    `answer` is the model's to a one-shot request, see `Completion`.
    """

    finish_reason: FinishReason
    token_ids: tuple[int, ...] = ()
    duration: float = 0.0
    score: float | None = None
    error: Exception | None = None
    answer: "Mapping[str, Tensor] | None" = None


class Reader(Protocol):
    """Makes text of what a model says. Any thread may call it.

    `whole_words` is whether more tokens may change the last word of a text.
    """

    @property
    def whole_words(self) -> bool: ...
    def text(self, token_ids: tuple[int, ...]) -> str: ...
    def transcription(self, outcome: Outcome) -> Transcription: ...


class TokenReader:
    """Reads what a model generates.

    Args:
        decode: token ids to text, without special tokens.
        whole_words: see `Reader`.
    """

    def __init__(self, decode: Callable[[tuple[int, ...]], str], whole_words: bool) -> None:
        self.text = decode
        self.whole_words = whole_words

    def transcription(self, outcome: Outcome) -> Transcription:
        """The transcription of an outcome without an error."""
        token_ids = outcome.token_ids
        return Transcription(
            self.text(token_ids), token_ids, outcome.finish_reason, outcome.duration, outcome.score
        )


class Handle:
    """One submitted recording. All methods may be called from any thread.

    Iterating yields its text piece by piece as it is decoded, from the beginning each time; the pieces join
    to `result().text`. Beam search and CTC know their text only at the end and yield it in one piece.
    """

    def __init__(self, source: Any, reader: Reader, cancel: Callable[["Handle"], bool]) -> None:
        self.source = source
        self._reader = reader
        self._cancel = cancel
        self._changed = threading.Condition()
        self._token_ids: tuple[int, ...] = ()
        self._outcome: Outcome | None = None
        self._transcription: Transcription | None = None

    def result(self, timeout: float | None = None) -> Transcription:
        """Waits for the end, at most `timeout` seconds, and returns it; a cancelled one keeps what it had.

        Raises TimeoutError where it has not ended by then (it goes on), and the recording's own error.
        """
        transcription = self.outcome(timeout)
        if transcription.error is not None:
            raise transcription.error
        return transcription

    def outcome(self, timeout: float | None = None) -> Transcription:
        """As `result`, but returns a failed transcription, with its `error`, where `result` raises it."""
        with self._changed:
            if not self._changed.wait_for(self.done, timeout):
                raise TimeoutError(f"not finished after {timeout} s; it goes on: ask again, or cancel()")
            if self._transcription is None:
                self._transcription = self._to_transcription()
            return self._transcription

    def done(self) -> bool:
        """Whether it has ended, one way or another."""
        return self._outcome is not None

    def cancel(self) -> bool:
        """Asks for the end; `result` then has finish reason "cancelled". False where it has ended already."""
        return not self.done() and self._cancel(self)

    def __iter__(self) -> Iterator[str]:
        yielded, seen = "", 0
        while True:
            token_ids = self._tokens_beyond(seen)
            if self.done():
                break
            seen = len(token_ids)
            text = _settled(self._reader.text(token_ids), self._reader.whole_words)
            if len(text) > len(yielded) and text.startswith(yielded):
                piece, yielded = text[len(yielded) :], text
                yield piece
        if rest := self.result().text[len(yielded) :]:
            yield rest

    def add_tokens(self, token_ids: tuple[int, ...]) -> None:
        """For the engine: tokens that this recording has gone on by."""
        with self._changed:
            self._token_ids += token_ids
            self._changed.notify_all()

    def finish(self, outcome: Outcome) -> None:
        """For the engine: the end. Only the first counts."""
        with self._changed:
            self._outcome = self._outcome or outcome
            self._changed.notify_all()

    def _tokens_beyond(self, seen: int) -> tuple[int, ...]:
        """Waits for more than `seen` tokens or the end, and returns all there are."""
        with self._changed:
            self._changed.wait_for(lambda: self.done() or len(self._token_ids) > seen)
            return self._token_ids

    def _to_transcription(self) -> Transcription:
        end = self._outcome
        assert end is not None  # callers have waited for it
        if not end.token_ids:  # a cancelled one has what it streamed
            end = replace(end, token_ids=self._token_ids)
        if end.error is None:
            return replace(self._reader.transcription(end), source=self.source)
        return Transcription(
            "", end.token_ids, end.finish_reason, end.duration, end.score, end.error, source=self.source
        )


def in_order(sources: Iterable[Any], submit: Callable[[Any], Handle], ahead: int) -> Iterator[Transcription]:
    """Submits sources as they come, at most `ahead` at a time, and yields each one's outcome in their order.

    A failed one is yielded with its `error`. `sources` may be endless; it is read in the caller's thread, and
    one at a time once the next outcome is there. What is left is cancelled where the caller stops early.
    """
    remaining = iter(sources)
    under_way: deque[Handle] = deque()
    exhausted = False
    try:
        while True:
            # One new for each one yielded keeps the engine busy even where results are always there.
            wanted = 1
            while not exhausted and len(under_way) < ahead and (wanted or not under_way[0].done()):
                wanted = 0
                try:
                    under_way.append(submit(next(remaining)))
                except StopIteration:
                    exhausted = True
            if not under_way:
                return
            yield under_way.popleft().outcome()
    finally:
        for handle in under_way:
            handle.cancel()


def _settled(text: str, whole_words: bool) -> str:
    """The part of a text that more tokens cannot change.

    A character may still lack bytes; and where the tokenizer takes spaces away before punctuation, the last
    word may turn out to be the beginning of "n't".
    """
    text = text.rstrip("\ufffd")
    return text[: max(text.rfind(" "), 0)] if whole_words else text
