"""Handles on submitted requests, and results of many in order."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic

from ..scheduler.request import RequestOutput
from .outputs import OutputProcessor, R


class Handle(Generic[R]):
    """One submitted request, returned by `Engine.submit`. Its methods may be called from any thread.

    Iterating over it yields text piece by piece as it is decoded, from the beginning each time; the pieces
    join to `result().text`. Beam search and CTC yield their text in one piece at the end, a classifier its
    best label.
    """

    def __init__(
        self, source: Any, processor: OutputProcessor[R], cancel: "Callable[[Handle[R]], bool]"
    ) -> None:
        self.source = source
        self._processor = processor
        self._cancel = cancel
        self._changed = threading.Condition()
        self._token_ids: tuple[int, ...] = ()
        self._output: RequestOutput | None = None
        self._duration = 0.0
        self._result: R | None = None

    def result(self, timeout: float | None = None) -> R:
        """Wait for the end and return the Transcription or Classification; a cancelled one may be partial.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            TimeoutError: the request has not ended by then; it goes on.
            Exception: the request's own error.
        """
        result = self.outcome(timeout)
        if result.error is not None:
            raise result.error
        return result

    def outcome(self, timeout: float | None = None) -> R:
        """As `result`, but a failed request is returned with its `error` set, not raised."""
        with self._changed:
            if not self._changed.wait_for(self.done, timeout):
                raise TimeoutError(f"not finished after {timeout} s; it goes on: ask again, or cancel()")
            output = self._output
            if self._result is None and output is not None:
                token_ids = output.hypotheses[0].token_ids if output.hypotheses else self._token_ids
                self._result = self._processor.process(output, token_ids, self._duration, self.source)
            assert self._result is not None  # it is done
            return self._result

    def done(self) -> bool:
        """True once the request has finished, failed or been cancelled."""
        return self._output is not None

    def cancel(self) -> bool:
        """End the request, with finish reason "cancelled"; False where it has ended already."""
        return not self.done() and self._cancel(self)

    def __iter__(self) -> Iterator[str]:
        yielded, seen = "", 0
        while True:
            token_ids = self._wait_for_tokens(seen)
            if self.done():
                break
            seen = len(token_ids)
            text = _final_part(self._processor.decode(token_ids), self._processor.whole_words)
            if len(text) > len(yielded) and text.startswith(yielded):
                piece, yielded = text[len(yielded) :], text
                yield piece
        if rest := self._processor.to_text(self.result())[len(yielded) :]:
            yield rest

    def add_tokens(self, token_ids: tuple[int, ...]) -> None:
        """Append streamed tokens; for the engine."""
        with self._changed:
            self._token_ids += token_ids
            self._changed.notify_all()

    def finish(self, output: RequestOutput, duration: float = 0.0) -> None:
        """End the request, of `duration` seconds of audio; for the engine. Only the first call counts."""
        with self._changed:
            if self._output is None:
                self._output, self._duration = output, duration
            self._changed.notify_all()

    def _wait_for_tokens(self, seen: int) -> tuple[int, ...]:
        """Wait for more than `seen` tokens or the end, and return all tokens."""
        with self._changed:
            self._changed.wait_for(lambda: self.done() or len(self._token_ids) > seen)
            return self._token_ids


def in_order(sources: Iterable[Any], submit: Callable[[Any], Handle[R]], ahead: int) -> Iterator[R]:
    """Submit sources as they come and yield the outcome of each in their order.

    `sources` may be endless: it is read in the caller's thread, at most `ahead` before the outcome that is
    due, and one at a time once that is there. A caller that stops early cancels the requests under way.
    """
    remaining = iter(sources)
    under_way: deque[Handle[R]] = deque()
    exhausted = False
    try:
        while True:
            # A new one for each one yielded keeps the engine busy even where results are always there.
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


def _final_part(text: str, whole_words: bool) -> str:
    """The part of a text that more tokens cannot change.

    A character may still lack bytes; and where the tokenizer removes spaces before punctuation, the last word
    may turn out to be the beginning of "n't".
    """
    text = text.rstrip("\ufffd")
    return text[: max(text.rfind(" "), 0)] if whole_words else text
