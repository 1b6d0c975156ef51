"""Inference engine for asyncio: results to await, text to iterate over, and no thread for a request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from inspect import iscoroutinefunction
from typing import Any, Self

from .audio.file_objects import read_to_end, read_to_end_async
from .engine import Engine
from .handle import Handle
from .outputs import Classification, Transcription
from .stats import EngineHealth, EngineStats


class AsyncEngine(AbstractAsyncContextManager["AsyncEngine"]):
    """Inference engine for asyncio, around an `Engine`: requests of all tasks share its batches.

        async with tritone.AsyncEngine("digits") as engine:
            result = await engine.transcribe("a.flac")
            async for piece in engine.stream("b.wav"):
                print(piece, end="")

    The task that waits for a result may be cancelled, which cancels the request. Nothing here blocks the
    event loop but the construction, which loads the model: `await asyncio.to_thread(AsyncEngine, ...)`.

    Args:
        *args, **kwargs: as of `Engine`.

    Attributes:
        engine: the engine, for what has no counterpart here.

    Raises:
        FileNotFoundError, ValueError: as of `Engine`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.engine = Engine(*args, **kwargs)

    @classmethod
    def of(cls, engine: Engine) -> Self:
        """Asynchronous view of an engine that runs; closing either closes both."""
        view = cls.__new__(cls)
        view.engine = engine
        return view

    async def transcribe(self, source: Any, **options: Any) -> Transcription:
        """Transcribe one recording.

        Args:
            source: as of `Engine.submit`; a file object is read in another thread, and one whose `read` is a
                coroutine, such as FastAPI's UploadFile, is awaited.
            **options: as of `Engine.submit`.

        Raises:
            Exception: as `Engine.submit`, and the error by which the request failed.
        """
        self.engine._check_verb("transcribe")
        return await (await self._submit(source, {"stream": False} | options))

    async def classify(self, source: Any, **options: Any) -> Classification:
        """Classify one recording or text; arguments as of `transcribe`, options as of `Engine.classify`."""
        source = await self._read(source)
        return await self.submit_classification(source, **({"stream": False} | options))

    async def stream(self, source: Any, **options: Any) -> AsyncIterator[str]:
        """Transcribe one recording and yield its text in chunks, as `Handle` does.

        Leaving the iteration early cancels the request: at once within `contextlib.aclosing`, otherwise when
        the iterator is collected. Arguments and errors are those of `transcribe`.
        """
        handle = await self._submit(source, options)
        try:
            async for chunk in handle:
                yield chunk
        finally:
            handle.cancel()

    def submit(self, source: Any, **options: Any) -> Handle[Transcription]:
        """Submit one request and return its handle, to await or iterate over; as `Engine.submit`.

        A file object is read here, in the event loop; `transcribe` and `stream` read it in another thread.
        """
        return self.engine.submit(source, **options)

    def submit_classification(self, source: Any, **options: Any) -> Handle[Classification]:
        """Submit one recording or text to a classifier and return its handle; as of Engine's method."""
        return self.engine.submit_classification(source, **options)

    def stats(self) -> EngineStats:
        """Statistics as of `Engine.stats`."""
        return self.engine.stats()

    def health(self) -> EngineHealth:
        """Health as of `Engine.health`."""
        return self.engine.health()

    async def close(self, *, cancel: bool = False, timeout: float | None = None) -> None:
        """Close the engine as `Engine.close` does, in another thread."""
        await asyncio.to_thread(self.engine.close, cancel=cancel, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        await self.close(cancel=exception_type is not None)

    async def _submit(self, source: Any, options: dict[str, Any]) -> Handle[Transcription]:
        """Submit a request without blocking the event loop by a file object."""
        return self.submit(await self._read(source), **options)

    async def _read(self, source: Any) -> Any:
        """Content of a file object; any other source as it is."""
        read = getattr(source, "read", None)
        if read is None:
            return source
        limit = self.engine.config.max_file_object_bytes
        if iscoroutinefunction(read):
            return await read_to_end_async(source, limit)
        return await asyncio.to_thread(read_to_end, source, limit)
