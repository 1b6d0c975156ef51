"""Server process: application under uvicorn, from its first line to its orderly end."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType
from typing import Any

import uvicorn

from .app import create_app
from .connections import connection_class
from .models import ServedModels
from .settings import ServerSettings
from .state import ServerState, state_of

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_BACKLOG = 512  # connections that wait to be taken, and are then all at once
_SPARE_DESCRIPTORS = 256  # for the models and the files that are read


def serve(
    models: ServedModels,
    settings: ServerSettings,
    sockets: list[socket.socket],
    started: Callable[[], None] = lambda: None,
) -> None:
    """Serve until a signal, then let the requests under way end.

    The first SIGTERM or SIGINT closes the sockets; requests that have not ended within `drain_timeout`
    seconds are cancelled. The second one kills the process.

    Args:
        models: engines by name, closed at the end.
        settings: settings of the server.
        sockets: bound sockets to listen on.
        started: function that is called once clients can connect.
    """
    settings = _within_descriptors(settings)
    app = create_app(models, settings)
    for name in ("uvicorn.error", "python_multipart.multipart"):  # a client's faults are in its answers
        logging.getLogger(name).setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        http=connection_class(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        backlog=_BACKLOG,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=max(round(settings.keep_alive_seconds), 1),
    )
    with _models_kept_from_collection():
        _Server(config, state_of(app), started).run(sockets)


@contextlib.contextmanager
def _models_kept_from_collection() -> Iterator[None]:
    """Context in which garbage collection leaves out all that exists now.

    A full collection looks at some 240,000 objects of the models and libraries, and stops all threads for a
    tenth of a second. At the end they are collected again: the libraries free what they own by that.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Server(uvicorn.Server):
    """uvicorn's server with another end: bounded, the state told, and exit code 0."""

    def __init__(self, config: uvicorn.Config, state: ServerState, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._state, self._when_started = state, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell so."""
        await super().startup(sockets)
        self._when_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests end; cancel those that have not ended in time, and close what is still open then."""
        _log.info("stopping, with %d requests under way", len(self._state.tasks))
        timers = asyncio.create_task(self._end_late_requests())
        try:
            await super().shutdown(sockets)
        finally:
            timers.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals as `handle_exit` does; a server that was told to stop ends as it should, with 0."""
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; the next signal kills the process."""
        self._state.is_draining = True
        self.should_exit = True
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    async def _end_late_requests(self) -> None:
        await asyncio.sleep(self._state.settings.drain_timeout)
        if self._state.tasks:
            _log.warning("%d requests have not ended in time and are cancelled", len(self._state.tasks))
        self._state.cancel_requests()
        await asyncio.sleep(self._state.settings.linger_seconds)
        connection: Any
        for connection in tuple(self.server_state.connections):
            connection.abort()


def _within_descriptors(settings: ServerSettings) -> ServerSettings:
    """Settings with no more connections than the process may have files open, after raising that limit."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return settings
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft == resource.RLIM_INFINITY:
        return settings
    most = max((soft - _BACKLOG - _SPARE_DESCRIPTORS) // 2, 1)  # each may have a temporary file too
    if most < settings.max_connections:
        _log.warning("at most %d connections, since the process may open %d files", most, soft)
        return replace(settings, max_connections=most)
    return settings
