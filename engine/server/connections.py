"""Connections with time limits, which uvicorn's own do not have."""

import asyncio
import contextlib
import json
import socket
import struct
import uuid
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from .settings import ServerSettings

_RESET = struct.pack("ii", 1, 0)  # as SO_LINGER has it: a reset in place of an orderly end
_LAST_HEAD = 1.0  # seconds for the head of a first request, once the server is told to stop


class Connection(H11Protocol):
    """Connection of a client that must send a request's head, and take its answer, in bounded time.

    The time of a body is bounded where it is read. A client that is refused before it has sent its whole body
    goes on sending: what comes is dropped, for a while, so that it can read why.
    """

    settings: ServerSettings  # set by `connection_class`
    idle: "dict[Connection, None]"  # connections without a request, the one idle for longest first

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._is_last = False  # the server stops: one more request, if it comes soon

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for the connection, and wait for its first head."""
        super().connection_made(transport)
        if len(self.connections) > self.settings.max_connections:
            if not self.idle:
                self._refuse(503, "the server has all the connections that it takes; try again later")
                return
            next(iter(self.idle)).drop()
        self.idle[self] = None
        self._start("head", self.settings.client_timeout, self._refuse_slow_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self.idle.pop(self, None)
        for name in tuple(self._timers):
            self._stop(name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a head or body."""
        super().data_received(data)
        if self.conn.their_state is not h11.SEND_BODY:
            self._stop("linger")
        if not self._is_answering and "linger" not in self._timers and not self.transport.is_closing():
            self._start("head", self.settings.client_timeout, self._refuse_slow_head)

    def eof_received(self) -> None:
        """Answer a body that is shorter than it was declared."""
        if self._is_answering and self.cycle.more_body and not self.cycle.response_started:
            self._refuse(400, "the body is shorter than its Content-Length, or has no last chunk; send all")

    def handle_events(self) -> None:
        """Handle what has been received; a request stops the wait for its head."""
        super().handle_events()
        if self._is_answering:
            self.idle.pop(self, None)
            self._stop("head")
            if self._is_last:
                self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """Wait for the next request, and no longer than a while for the rest of this one's body."""
        self.idle[self] = None
        super().on_response_complete()
        if not self.transport.is_closing() and self.conn.their_state is h11.SEND_BODY:
            self._start("linger", self.settings.linger_seconds, self.drop)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, in the form of the API's errors."""
        self._refuse(400, f"{msg} Check what stands between the client and this server.")

    def pause_writing(self) -> None:
        """Bound the time in which the client reads nothing."""
        super().pause_writing()
        self._start("write", self.settings.client_timeout, self.abort)

    def resume_writing(self) -> None:
        """Go on with a client that reads again."""
        super().resume_writing()
        self._stop("write")

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        self.drop()

    def shutdown(self) -> None:
        """Close the connection once its request has ended, or one that is about to come."""
        if self.transport.is_closing():
            return
        if self.cycle is None:
            self._is_last = True
            self._start("head", _LAST_HEAD, self.drop)
        else:
            super().shutdown()

    def drop(self) -> None:
        """Close the connection, in bounded time even where its last bytes are not read."""
        self.idle.pop(self, None)
        if not self.transport.is_closing():
            self.transport.close()
        self._start("close", self.settings.client_timeout, self.abort)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse_slow_head(self) -> None:
        seconds = self.settings.client_timeout
        self._refuse(408, f"the request's head has not come within {seconds:g} s", "request_timeout")

    def _refuse(self, status: int, message: str, code: str | None = None) -> None:
        """Answer without the application, which has not begun to, and close the connection."""
        kind = "server_error" if status >= 500 else "invalid_request_error"
        error = {"message": message, "type": kind, "param": None, "code": code}
        body = json.dumps({"error": error}).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("x-request-id", uuid.uuid4().hex),
            ("connection", "close"),
        ]
        answer = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
        with contextlib.suppress(h11.LocalProtocolError):  # an answer has begun: it breaks off
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True  # for the application
        self.drop()

    def _start(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        """Start a timer; one that runs already goes on, unless it would end later."""
        running, end = self._timers.get(name), self.loop.time() + seconds
        if running is not None and not running.cancelled() and running.when() <= end:
            return
        self._stop(name)
        self._timers[name] = self.loop.call_at(end, call)

    def _stop(self, name: str) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()

    def abort(self) -> None:
        """Close the connection at once; what the client has not read is dropped, by the system too."""
        with contextlib.suppress(OSError):  # closed
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


def connection_class(settings: ServerSettings) -> type[Connection]:
    """Class of the connections of one server."""
    return type("Connection", (Connection,), {"settings": settings, "idle": {}})
