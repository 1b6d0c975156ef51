"""Handles of submitted requests, and iteration over the results of many in input order."""

import os
import time
from asyncio import CancelledError
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, NoReturn

from ..scheduler.request import FinishReason, RequestOutput
from .bounds import QueueFullError
from .faults import attempt
from .outputs import OutputProcessor, R, in_recording
from .session import Part
from .signals import Signal
from .timings import Timings

if TYPE_CHECKING:
    from .audio.speech import SpeechTimes

FORKED = "this process was forked from the engine's, which has its threads; make an engine here"
_END = object()  # of an iterator
_NONE: Any = object()  # in place of a source
_PAUSE = 0.01  # seconds, until a full queue is tried again


class Handle(Generic[R]):
    """Handle of one submitted request, returned by `Engine.submit`. Any thread may call its methods.

    Iterating over it yields text in chunks as it is decoded, from the beginning for each iterator; the chunks
    join to `result().text`. A long recording yields the text of each of its windows; beam search and CTC
    yield theirs in one chunk at the end, a classifier its best label.

    In an event loop `await handle` returns the result, and `async for` yields the chunks. Cancelling the task
    that waits so cancels the request, unless `asyncio.shield` is between the two.
    """

    def __init__(
        self,
        source: object,
        processor: OutputProcessor[R],
        cancel: "Callable[[Handle[R]], bool]",
        channel: int | None = None,
        on_end: Callable[[R], None] | None = None,
    ) -> None:
        self.source = source
        self._processor = processor
        self._cancel: Callable[[Handle[R]], bool] | None = cancel
        self._channel = channel  # of the recording; None where its channels are mixed
        self._on_end = on_end  # called with the result before anything that waits for it goes on
        self._process = os.getpid()
        self._changed = Signal()
        self._token_ids: tuple[int, ...] = ()
        self._parts: tuple[Part, ...] = ()  # of a session
        self._output: RequestOutput | None = None
        self._duration = 0.0
        self._warnings: tuple[str, ...] = ()
        self._speech: SpeechTimes | None = None
        self._timings: Timings | None = None
        self._result: R | None = None

    def result(self, timeout: float | None = None) -> R:
        """Wait for the request to end and return its Transcription or Classification, partial if cancelled.

        Args:
            timeout: seconds to wait; None waits without limit.

        Raises:
            TimeoutError: the request has not ended in time; it continues.
            Exception: the error by which the request failed.
        """
        result = self.outcome(timeout)
        if result.error is not None:
            raise result.error
        return result

    def outcome(self, timeout: float | None = None) -> R:
        """Wait for the request and return its result as `result` does, but with `error` set, not raised."""
        if not self._wait_for(self.done, timeout):
            raise TimeoutError(f"not finished after {timeout} s; it goes on: ask again, or cancel()")
        if self._result is None:
            assert self._output is not None
            self._result = self._make_result(self._output)
        return self._result

    def done(self) -> bool:
        """Check whether the request has finished, failed or been cancelled."""
        return self._output is not None

    def cancel(self) -> bool:
        """Cancel the request, which ends with finish reason "cancelled"; False where it has ended already."""
        cancel = self._cancel
        return cancel is not None and cancel(self)

    def __iter__(self) -> Iterator[str]:
        chunks = _Chunks(self._text)
        while self._wait_for(lambda: self.done() or self._count > chunks.seen) and not self.done():
            if chunk := chunks.next():
                yield chunk
        if rest := chunks.rest(self._processor.to_text(self.result())):
            yield rest

    def __await__(self) -> Generator[Any, None, R]:
        return self._awaited().__await__()

    async def __aiter__(self) -> AsyncIterator[str]:
        chunks = _Chunks(self._text)
        while True:
            await self._wait_in_loop(lambda: self.done() or self._count > chunks.seen)
            if self.done():
                break
            if chunk := chunks.next():
                yield chunk
        if rest := chunks.rest(self._processor.to_text(self.result())):
            yield rest

    def add_tokens(self, token_ids: tuple[int, ...]) -> None:
        """Append newly decoded tokens; called by the engine."""
        if self._output is None:
            self._token_ids += token_ids
            self._changed.notify_all()

    def add_part(self, part: Part) -> None:
        """Append a part of a session's result; called by the engine."""
        if self._output is None:
            self._parts += (part,)
            self._changed.notify_all()

    def checked(self, output: RequestOutput) -> RequestOutput:
        """Output of the loop, or the error in its place where its scores are not finite."""
        error = self._processor.error_of(output)
        return output if error is None else RequestOutput(output.request_id, (), FinishReason.ERROR, error)

    def finish(
        self,
        output: RequestOutput,
        duration: float = 0.0,
        warnings: tuple[str, ...] = (),
        speech: "SpeechTimes | None" = None,
        timings: Timings | None = None,
    ) -> None:
        """Set the final output, seconds of audio, warnings about its reading, times of its speech, its own.

        Called by the engine; only the first call counts.
        """
        if self._output is None:
            self._duration, self._warnings, self._speech = duration, warnings, speech
            self._timings = timings
            if self._on_end is not None:
                self._result = self._make_result(output)
                self._on_end(self._result)
            self._output = output
            self._cancel = None  # a finished handle keeps no engine alive
        self._changed.notify_all()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Handle belongs to a running engine and cannot be copied or pickled; its result can"
        )

    def _make_result(self, output: RequestOutput) -> R:
        """Result of the finished request; an error of the tokenizer, say, becomes its error."""
        token_ids = output.hypotheses[0].token_ids if output.hypotheses else self._token_ids
        try:
            if self._parts and output.error is None:
                result = attempt(self._processor.join, output, self._parts, self._duration, self.source)
            else:
                result = attempt(self._processor.process, output, token_ids, self._duration, self.source)
        except Exception as error:
            failed = RequestOutput(output.request_id, (), FinishReason.ERROR, output.error or error)
            result = self._processor.process(failed, token_ids, self._duration, self.source)
        if self._speech is not None:
            result = in_recording(result, self._speech)
        return replace(result, warnings=self._warnings, channel=self._channel, timings=self._timings)

    def _decode(self, token_ids: tuple[int, ...]) -> str:
        """Streamed text that is final; empty where it cannot be decoded, which the end shows."""
        try:
            return _final_part(attempt(self._processor.decode, token_ids), self._processor.whole_words)
        except Exception:
            return ""

    async def _awaited(self) -> R:
        await self._wait_in_loop(self.done)
        return self.result()

    @property
    def _count(self) -> int:
        """Number of tokens and parts so far."""
        return len(self._token_ids) + len(self._parts)

    def _text(self) -> tuple[str, int]:
        """Text so far that is final, and the number of tokens and parts that it is of."""
        token_ids, parts = self._token_ids, self._parts
        text = self._processor.text_of(parts) if parts else self._decode(token_ids)
        return text, len(token_ids) + len(parts)

    def _wait_for(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        self._check_process(condition)
        return self._changed.wait_for(condition, timeout)

    async def _wait_in_loop(self, condition: Callable[[], bool]) -> None:
        self._check_process(condition)
        try:
            await self._changed.wait_in_loop(condition)
        except CancelledError:
            self.cancel()
            raise

    def _check_process(self, condition: Callable[[], bool]) -> None:
        if self._process != os.getpid() and not condition():
            raise RuntimeError(FORKED)


class _Chunks:
    """Chunks of a growing text.

    Args:
        text: function that returns the text so far, and the number of tokens and parts that it is of.
    """

    def __init__(self, text: Callable[[], tuple[str, int]]) -> None:
        self._text, self._yielded, self.seen = text, "", 0

    def next(self) -> str:
        """Text behind that returned so far; empty while there is none."""
        text, self.seen = self._text()
        if len(text) <= len(self._yielded) or not text.startswith(self._yielded):
            return ""
        chunk, self._yielded = text[len(self._yielded) :], text
        return chunk

    def rest(self, text: str) -> str:
        """Text behind that returned so far, of the whole."""
        return text[len(self._yielded) :]


def in_order(sources: Iterable[Any], submit: Callable[[Any], Handle[R]], ahead: int) -> Iterator[R]:
    """Submit sources and yield their results in input order; a failed one has its `error` set.

    `sources` may be infinite: it is read in the caller's thread, at most `ahead` before the next result, and
    one at a time once that is ready. A caller that stops early cancels the requests in progress. An error of
    `sources` or `submit` is raised after the results of the sources before it.
    """
    remaining = iter(sources)
    under_way: deque[Handle[R]] = deque()
    exhausted, error, source = False, None, _NONE
    try:
        while True:
            # One new submission per result keeps the engine busy even if the next result is always ready.
            wanted = 1
            while not exhausted and len(under_way) < ahead and (wanted or not under_way[0].done()):
                wanted = 0
                try:
                    if source is _NONE:
                        source = attempt(next, remaining, _END)
                    if source is not _END:
                        under_way.append(submit(source))
                        source = _NONE
                        continue
                except QueueFullError:  # of other callers' requests, perhaps: the source is tried again
                    if not under_way:
                        time.sleep(_PAUSE)
                    break
                except Exception as raised:
                    error = raised
                exhausted = True
            if not under_way and not exhausted:
                continue
            if not under_way:
                break
            yield under_way.popleft().outcome()
    finally:
        for handle in under_way:
            handle.cancel()
    if error is not None:
        raise error


def _final_part(text: str, whole_words: bool) -> str:
    """Beginning of a streamed text that later tokens cannot change.

    The last character may still lack bytes; and where the tokenizer removes spaces before punctuation, the
    last word may turn out to be the beginning of "n't".
    """
    text = text.rstrip("\ufffd")
    return text[: max(text.rfind(" "), 0)] if whole_words else text
