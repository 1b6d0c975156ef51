"""The handle on a request that is under way, what it ends with, and the results of many in order."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..scheduler.request import FinishReason

if TYPE_CHECKING:
    from torch import Tensor


class Result(Protocol):
    """What every kind of result has."""

    @property
    def finish_reason(self) -> FinishReason: ...
    @property
    def error(self) -> Exception | None: ...
    @property
    def duration(self) -> float: ...


R = TypeVar("R", bound=Result)


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """A result before it is read, which is left to the thread that asks for it.

    `answer` is the model's to a encoder-only request, see `scheduler.request`.
    """

    finish_reason: FinishReason
    token_ids: tuple[int, ...] = ()
    duration: float = 0.0
    score: float | None = None
    error: Exception | None = None
    answer: "Mapping[str, Tensor] | None" = None


class Reader(Protocol[R]):
    """Makes results of what a model says. Any thread may call it.

    `whole_words` is whether more tokens may change the last word of a text.
    """

    @property
    def whole_words(self) -> bool: ...
    def text(self, token_ids: tuple[int, ...]) -> str:
        """The text of tokens that a request has gone on by."""

    def result(self, outcome: RequestOutput, source: Any) -> R:
        """What an outcome without an error comes to; `source` is what was submitted."""

    def failure(self, outcome: RequestOutput, source: Any) -> R:
        """The same of one with an error."""

    def said(self, result: R) -> str:
        """The text of a result."""


class Handle(Generic[R]):
    """One submitted request. All methods may be called from any thread.

    Iterating over a transcription's yields its text piece by piece as it is decoded, from the beginning each
    time; the pieces join to `result().text`. Beam search and CTC know their text only at the end and yield it
    in one piece, and so does classification its best label.
    """

    def __init__(self, source: Any, reader: Reader[R], cancel: "Callable[[Handle[R]], bool]") -> None:
        self.source = source
        self._reader = reader
        self._cancel = cancel
        self._changed = threading.Condition()
        self._token_ids: tuple[int, ...] = ()
        self._outcome: RequestOutput | None = None
        self._result: R | None = None

    def result(self, timeout: float | None = None) -> R:
        """Waits for the end, at most `timeout` seconds, and returns it; a cancelled one keeps what it had.

        Raises TimeoutError where it has not ended by then (it goes on), and the request's own error.
        """
        result = self.outcome(timeout)
        if result.error is not None:
            raise result.error
        return result

    def outcome(self, timeout: float | None = None) -> R:
        """As `result`, but returns a failed one, with its `error`, where `result` raises it."""
        with self._changed:
            if not self._changed.wait_for(self.done, timeout):
                raise TimeoutError(f"not finished after {timeout} s; it goes on: ask again, or cancel()")
            if self._result is None:
                self._result = self._read()
            return self._result

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
        if rest := self._reader.said(self.result())[len(yielded) :]:
            yield rest

    def add_tokens(self, token_ids: tuple[int, ...]) -> None:
        """For the engine: tokens that this request has gone on by."""
        with self._changed:
            self._token_ids += token_ids
            self._changed.notify_all()

    def finish(self, outcome: RequestOutput) -> None:
        """For the engine: the end. Only the first counts."""
        with self._changed:
            self._outcome = self._outcome or outcome
            self._changed.notify_all()

    def _tokens_beyond(self, seen: int) -> tuple[int, ...]:
        """Waits for more than `seen` tokens or the end, and returns all there are."""
        with self._changed:
            self._changed.wait_for(lambda: self.done() or len(self._token_ids) > seen)
            return self._token_ids

    def _read(self) -> R:
        end = self._outcome
        assert end is not None  # callers have waited for it
        if not end.token_ids:  # a cancelled one has what it streamed
            end = replace(end, token_ids=self._token_ids)
        read = self._reader.result if end.error is None else self._reader.failure
        return read(end, self.source)


def in_order(sources: Iterable[Any], submit: Callable[[Any], Handle[R]], ahead: int) -> Iterator[R]:
    """Submits sources as they come, at most `ahead` at a time, and yields each one's outcome in their order.

    A failed one is yielded with its `error`. `sources` may be endless; it is read in the caller's thread, and
    one at a time once the next outcome is there. What is left is cancelled where the caller stops early.
    """
    remaining = iter(sources)
    under_way: deque[Handle[R]] = deque()
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
