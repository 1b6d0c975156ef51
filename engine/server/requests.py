"""Middleware around every request: its id, errors, line in the log, and end where the client leaves."""

import asyncio
import logging
import re
import time
import uuid
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError, unavailable
from .state import ServerState
from .uploads import ClientLeftError

_log = logging.getLogger(__name__)
_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
LEFT = 499  # status of a request whose client has left, as nginx logs it
API = "/v1/"  # beginning of the paths that are counted


def note_result(request: Request, model: str, result: Any) -> None:
    """Note the result of a request, for the metrics and the log.

    Args:
        request: request, which may have several results.
        model: name of the model.
        result: Transcription or Classification.
    """
    request.state.results.append((model, result))


class TrackRequests:
    """Middleware that gives each request its id, and cancels the task of one whose client has left.

    Errors that nothing else has answered are answered here, so that these answers have an id too.

    Args:
        app: application behind it.
        state: state of the server.
    """

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Exchange(scope, receive, send, self._state).run(self._app)
        else:
            await self._app(scope, receive, send)


class _Exchange:
    """Exchange of one request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, state: ServerState) -> None:
        self._scope, self._receive, self._send, self._state = scope, receive, send, state
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        self._id = given.decode() if _ID.fullmatch(given) else uuid.uuid4().hex
        self._results: list[tuple[str, Any]] = []
        scope.setdefault("state", {}).update(request_id=self._id, results=self._results)
        self._start = time.perf_counter()
        self._status = 0  # until the answer begins
        self._is_stream = self._is_complete = self._has_left = False
        self._watcher: asyncio.Task[None] | None = None  # once the body is read
        self._task: asyncio.Task[Any] | None = None

    async def run(self, app: ASGIApp) -> None:
        """Run the application for the request."""
        self._task = task = asyncio.current_task()
        assert task is not None
        self._state.tasks.add(task)
        try:
            await app(self._scope, self.receive, self.send)
        except ClientLeftError:
            self._has_left = True
        except asyncio.CancelledError:
            if not (self._has_left or self._state.is_cancelling):
                raise
            task.uncancel()
            if not self._has_left:
                await self._fail(unavailable("the server is stopping; send the request again"))
        except Exception:
            _log.exception("request %s failed", self._id)
            message = f"the server has failed on this request; its log has request {self._id}"
            await self._fail(ApiError(500, message, code="internal_error"))
        finally:
            self._state.tasks.discard(task)
            if self._watcher is not None:
                self._watcher.cancel()
            self._note_end()

    async def receive(self) -> Message:
        """Next part of the body; behind its end, the client's leaving."""
        if self._watcher is not None:
            await asyncio.shield(self._watcher)
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._has_left = not self._is_complete
        elif not message.get("more_body", False):
            self._watcher = asyncio.create_task(self._watch())
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, with the headers of every answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = list(message.get("headers", ()))
            there = {name.lower(): value for name, value in headers}
            self._is_stream = there.get(b"content-type", b"").startswith(b"text/event-stream")
            for name, value in self._headers():
                if name not in there:
                    headers.append((name, value))
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._is_complete = True  # before the client may close for it
        await self._send(message)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", self._id.encode()), (b"x-content-type-options", b"nosniff")]
        if self._scope["path"].startswith(API):
            headers.append((b"cache-control", b"no-store"))
        return headers

    async def _watch(self) -> None:
        """Wait for the client to leave, and cancel the request's task then."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._is_complete and self._task is not None:
            self._has_left = True
            self._task.cancel()

    async def _fail(self, error: ApiError) -> None:
        """Answer with an error, or end a stream with it."""
        if not self._status:
            await error.response()(self._scope, self.receive, self.send)
        elif self._is_stream and not self._is_complete:
            await self.send({"type": "http.response.body", "body": error.event()})

    def _note_end(self) -> None:
        seconds = time.perf_counter() - self._start
        status = LEFT if self._has_left and not self._is_complete else self._status
        path = self._scope["path"]
        if path.startswith(API):
            for model, result in self._results:
                self._state.metrics.observe(model, result)
            self._state.metrics.count(status)
        if _log.isEnabledFor(logging.INFO):
            of_audio = "".join(
                f", {getattr(result, 'duration', None) or 0.0:.2f} s of audio for {model}"
                for model, result in self._results
            )
            shown = self._scope.get("raw_path", path.encode()).decode("latin-1")
            method = self._scope["method"]
            _log.info("%s %s %d in %.3f s%s (%s)", method, shown, status, seconds, of_audio, self._id)
