"""Multipart forms with a recording: small ones in memory, larger ones in a temporary file.

A form is read as it arrives. Nothing of it is opened or named by what the client says: a temporary file has
no name at all on Linux, so that none is left behind, even by a killed process.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ..audio.file_objects import FileContent
from .errors import ApiError
from .settings import MIB, ServerSettings
from .state import ServerState, state_of

_BLOCK = 256 << 10  # bytes written to a file at once, in another thread
_DESCRIPTORS = Path("/proc/self/fd")  # paths of open files, those without a name too
_MULTIPART = b"multipart/form-data"
_MAX_NAME = 255  # characters of a file's name


class ClientLeftError(Exception):
    """Error of a client that has closed its connection; there is nothing to answer."""


@dataclass
class Upload:
    """Uploaded recording.

    Args:
        filename: name that the client gave, for messages and its suffix alone; never opened.
        content: bytes, or the path of a temporary file of the server.
        size: bytes.
    """

    filename: str
    content: bytes | Path
    size: int

    def named(self, message: str) -> str:
        """Message with the client's name of the recording in place of the temporary file's."""
        if not isinstance(self.content, Path):
            return message
        return message.replace(str(self.content), self.filename)


class Form:
    """Fields of a form in their order, and the recording in its `file` field; close it once it is used.

    Args:
        fields: names and values of the fields that are text.
        file: recording; None where there is none.
        storage: storage of the recording.
    """

    def __init__(
        self, fields: list[tuple[str, str]], file: Upload | None, storage: "_Storage | None" = None
    ) -> None:
        self.fields = fields
        self.file = file
        self._storage = storage

    def close(self) -> None:
        """Remove the temporary file and free the memory of the recording; may be called again."""
        if self._storage is not None:
            self._storage.close()


async def read_form(request: Request, settings: ServerSettings) -> Form:
    """Read the form of a request.

    Raises:
        ApiError: the body is no multipart form (415, 400), too large (413), too slow (408), or cannot be
            stored (507).
        ClientLeftError: the client has left before its end.
    """
    parser = _FormParser(_boundary(request), settings, state_of(request.app))
    try:
        async for chunk in _body(request, settings):
            parser.write(chunk)
            if parser.storage is not None:
                await parser.storage.store()
        return await parser.form()
    except BaseException:
        if parser.storage is not None:
            parser.storage.close()
        raise


def _boundary(request: Request) -> bytes:
    """Boundary of the parts of a request's form. Raises ApiError for any other content."""
    given = request.headers.get("content-type", "")
    kind, options = parse_options_header(given)
    if kind != _MULTIPART:
        shown = f"content type {given[:100]!r}" if given else "no content type"
        message = f"{shown}; send a form as multipart/form-data, with the recording in its field 'file'"
        raise ApiError(415, message, code="unsupported_content_type", headers=_closing(request))
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 200:
        raise _broken("its content type has no boundary, or one of over 200 characters")
    return boundary


async def _body(request: Request, settings: ServerSettings) -> AsyncIterator[bytes]:
    """Body of a request in chunks. Raises ApiError where it is too large or too slow."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > settings.max_upload_bytes:
        raise _too_large(settings, request)
    clock = asyncio.get_running_loop().time
    start, size = clock(), 0
    while True:
        allowed = start + settings.client_timeout + size / settings.min_body_rate
        try:
            async with asyncio.timeout_at(min(allowed, clock() + settings.client_timeout)):
                message = await request.receive()
        except TimeoutError:
            text = f"the body came too slowly: {size} bytes in {clock() - start:.0f} s; send it again"
            raise ApiError(408, text, code="request_timeout", headers={"connection": "close"}) from None
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > settings.max_upload_bytes:
            raise _too_large(settings, request)
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


class _FormParser:
    """Parser of a form's parts, which go to its fields or to the storage of its recording."""

    def __init__(self, boundary: bytes, settings: ServerSettings, state: ServerState) -> None:
        self.storage: _Storage | None = None
        self._settings, self._state = settings, state
        self._fields: list[tuple[str, str]] = []
        self._filename = ""
        self._is_complete = False
        # Of the current part.
        self._name = ""
        self._value: bytearray | None = None  # of a field; None for the recording
        self._header_name, self._header_value, self._header_size = bytearray(), bytearray(), 0
        self._disposition = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_content,
                "on_part_data": self._add_content,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def write(self, chunk: bytes) -> None:
        """Parse the next bytes. Raises ApiError."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _broken(str(error)) from None

    async def form(self) -> Form:
        """Form at the end of its bytes. Raises ApiError."""
        if not self._is_complete:
            raise _broken("it ends before its last boundary; send it again, whole")
        if self.storage is None:
            return Form(self._fields, None)
        if not self.storage.size:
            raise ApiError(400, f"the file {self._filename!r} is empty (0 bytes); record it again", "file")
        content = await self.storage.content(self._filename)
        return Form(self._fields, Upload(self._filename, content, self.storage.size), self.storage)

    def _begin_part(self) -> None:
        self._disposition, self._header_size = b"", 0

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header_value += data[start:end]

    def _count_header(self, size: int) -> None:
        self._header_size += size
        if self._header_size > self._settings.max_part_header_bytes:
            raise _broken(f"a part has headers of over {self._settings.max_part_header_bytes} bytes")

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _begin_content(self) -> None:
        """Begin a field, or the recording."""
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise _broken("a part has no name; give each a Content-Disposition with one")
        self._name = options[b"name"].decode("utf-8", "replace")
        if b"filename" in options:
            self._value = None
            if self._name != "file":
                message = f"the field {self._name[:64]!r} is a file; the recording goes into the field 'file'"
                raise ApiError(400, message, self._name[:64], "unknown_parameter")
            if self.storage is not None:
                raise ApiError(400, "there are two files; send one recording a request", "file")
            self._filename = options[b"filename"].decode("utf-8", "replace")[:_MAX_NAME] or "file"
            self.storage = _Storage(self._settings, self._state)
            return
        if self._name == "file":
            message = "the field 'file' is text; send the recording as a file, with a filename"
            raise ApiError(400, message, "file")
        if len(self._fields) == self._settings.max_fields:
            raise _broken(f"there are over {self._settings.max_fields} fields")
        self._value = bytearray()

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        if self._value is None:
            assert self.storage is not None
            self.storage.add(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > self._settings.max_field_bytes:
            message = (
                f"the field {self._name[:64]!r} has over {self._settings.max_field_bytes} bytes; shorten it"
            )
            raise ApiError(400, message, self._name[:64])

    def _end_part(self) -> None:
        if self._value is not None:
            try:
                self._fields.append((self._name, self._value.decode()))
            except UnicodeDecodeError:
                raise ApiError(400, f"the field {self._name[:64]!r} is not UTF-8", self._name[:64]) from None

    def _end(self) -> None:
        self._is_complete = True


class _Storage:
    """Storage of a recording: memory, or a temporary file where it is large or much is in memory."""

    def __init__(self, settings: ServerSettings, state: ServerState) -> None:
        self.size = 0
        self._settings, self._state = settings, state
        self._buffer = bytearray()  # what is not in the file
        self._reserved = 0  # bytes of the memory of all recordings
        self._file: IO[bytes] | None = None

    def add(self, content: bytes) -> None:
        """Append bytes, which `store` puts where they belong."""
        self._buffer += content
        self.size += len(content)

    async def store(self) -> None:
        """Keep the appended bytes in memory or write them to the file. Raises ApiError on a full disk."""
        is_due = not self._fits() if self._file is None else len(self._buffer) >= _BLOCK
        if is_due:
            await self._write()

    async def content(self, name: str) -> bytes | Path:
        """All bytes, or the path of the file, at the end."""
        if self._file is None:
            content = FileContent(self._buffer)
            content.name = name
            self._buffer = bytearray()
            return content
        if self._buffer:
            await self._write()
        return _path(self._file)

    def close(self) -> None:
        """Remove the file and free the memory."""
        self._state.upload_bytes -= self._reserved
        self._reserved = 0
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # of bytes that a full disk has refused already
                file.close()

    def _fits(self) -> bool:
        """Reserve memory for all bytes; False where they go to a file."""
        more = len(self._buffer) - self._reserved
        if len(self._buffer) > self._settings.memory_upload_bytes or not self._state.take_memory(more):
            self._state.upload_bytes -= self._reserved
            self._reserved = 0
            return False
        self._reserved += more
        return True

    async def _write(self) -> None:
        content, self._buffer = self._buffer, bytearray()
        try:
            if self._file is None:
                self._file = await asyncio.to_thread(_temporary_file, self._settings.upload_dir)
            await asyncio.to_thread(_write_out, self._file, content)
        except OSError as error:
            message = f"the server cannot store the upload: {error.strerror}; send it again later"
            raise ApiError(507, message, code="insufficient_storage") from error


def _temporary_file(folder: Path | None) -> IO[bytes]:
    """Temporary file, which is gone when closed; without a name where its descriptor has a path."""
    if _DESCRIPTORS.is_dir():
        return tempfile.TemporaryFile(dir=folder)
    file: Any = tempfile.NamedTemporaryFile(dir=folder, prefix="tritone-")  # noqa: SIM115
    return file  # type: ignore[no-any-return]


def _write_out(file: IO[bytes], content: bytearray) -> None:
    file.write(content)
    file.flush()


def _path(file: IO[bytes]) -> Path:
    return _DESCRIPTORS / str(file.fileno()) if _DESCRIPTORS.is_dir() else Path(file.name)


def _broken(problem: str) -> ApiError:
    return ApiError(400, f"the form cannot be read: {problem}", code="invalid_multipart_form")


def _too_large(settings: ServerSettings, request: Request) -> ApiError:
    limit = f"{settings.max_upload_bytes / MIB:g} MiB"
    message = f"the body is larger than {limit}, the most that this server takes; send a shorter recording"
    return ApiError(413, message, "file", "file_too_large", headers=_closing(request))


def _closing(request: Request) -> dict[str, str]:
    """Header that closes the connection of a client which waits for leave to send its body."""
    return {"connection": "close"} if "expect" in request.headers else {}
