"""Server-sent events of a transcription that is streamed."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..handle import Handle
from ..outputs import Transcription
from .errors import ApiError, require_complete
from .log_probs import log_probs
from .parameters import Parameters
from .responses import encodable, token_usage

DELTA, DONE = "transcript.text.delta", "transcript.text.done"


class TranscriptStream(Response):
    """Answer with the events of a transcription: its text in deltas, then one `transcript.text.done`.

    An error before the first text is raised by `open`, so that it has a status; a later one is an event, and
    the last. A client that leaves cancels the request.

    Args:
        handle: handle of the request.
        parameters: parameters of the transcription.
        as_error: function that returns the API's error for one of the engine.
        on_result: function that is called with the result.
        on_end: function that is called at the end in any case.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        handle: Handle[Transcription],
        parameters: Parameters,
        as_error: Callable[[Exception], ApiError],
        on_result: Callable[[Transcription], None],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._handle, self._parameters = handle, parameters
        self._as_error, self._on_result, self._on_end = as_error, on_result, on_end
        self._chunks = aiter(handle)
        self._first: str | None = None

    async def open(self) -> None:
        """Wait for the first text. Raises the engine's error; a cancelled task cancels the request."""
        try:
            self._first = await anext(self._chunks, None)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Cancel what is not done, and free what belongs to the request."""
        self._handle.cancel()
        self._on_end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; a client that leaves ends this task."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(self._events()) as events:
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self.end()

    async def _events(self) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in self._texts():
                yield _event({"type": DELTA, "delta": encodable(chunk)})
            result = require_complete(await self._handle)
        except Exception as error:
            yield self._as_error(error).event()
            return
        self._on_result(result)
        done: dict[str, Any] = {"type": DONE, "text": encodable(result.text)}
        if self._parameters.log_probs:
            done["logprobs"] = log_probs(result, self._parameters.model)
        yield _event(done | {"usage": token_usage(result, self._parameters)})

    async def _texts(self) -> AsyncIterator[str]:
        if self._first is not None:
            yield self._first
        async for chunk in self._chunks:
            yield chunk


def _event(data: dict[str, Any]) -> bytes:
    """Bytes of an event, which has its type in the data alone, as OpenAI sends it."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
