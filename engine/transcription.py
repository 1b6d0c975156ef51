"""Transcription jobs: what a recording became, the handle on one that is under way, and many in order."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..scheduler.request import FinishReason

Decode = Callable[[tuple[int, ...]], str]  # token ids to text, without special tokens


@dataclass(frozen=True, slots=True)
class Transcription:
    """What one recording became.

    Args:
        text: without special tokens; empty where `error` is set.
        token_ids: with the start token and the end token, as `generate` returns them.
        finish_reason: "stop" at an end token, "length" at the longest length, "cancelled" or "error".
        duration: seconds of audio; 0 where the recording could not be read.
        score: beam search's sequence score, otherwise the tokens' mean log-probability; None without tokens.
        error: why there is no text.
        source: what was submitted.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    duration: float
    score: float | None = None
    error: Exception | None = None
    source: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A transcription before its text is decoded, which is left to the thread that asks for it."""

    finish_reason: FinishReason
    token_ids: tuple[int, ...] = ()
    duration: float = 0.0
    score: float | None = None
    error: Exception | None = None


class Handle:
    """One submitted recording. All methods may be called from any thread.

    Iterating yields its text piece by piece as it is decoded, from the beginning each time; the pieces join
    to `result().text`. Beam search knows its text only at the end and yields it in one piece.
    """

    def __init__(
        self, source: Any, decode: Decode, whole_words: bool, cancel: Callable[["Handle"], bool]
    ) -> None:
        self.source = source
        self._decode = decode
        self._whole_words = whole_words
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
            text = _settled(self._decode(token_ids), self._whole_words)
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
        token_ids, error, text = end.token_ids or self._token_ids, end.error, ""
        if error is None:
            text = self._decode(token_ids)
        return Transcription(text, token_ids, end.finish_reason, end.duration, end.score, error, self.source)


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
