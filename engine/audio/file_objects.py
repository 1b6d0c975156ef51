"""Content of file objects, read from their position to their end."""

from typing import Any

from .errors import AudioError

_BLOCK = 1 << 20  # bytes read at a time


class FileContent(bytes):
    """Content of a file object, with its name for messages and for the suffix of headerless audio."""

    name: str


def read_to_end(file: Any, limit: int) -> FileContent:
    """Bytes of a binary file object.

    Args:
        file: file object, which is not sought.
        limit: maximum number of bytes.

    Raises:
        AudioError: text in place of bytes, or more than `limit` bytes.
    """
    content = _Content(file, limit)
    while content.add(file.read(_BLOCK)):
        pass
    return content.result()


async def read_to_end_async(file: Any, limit: int) -> FileContent:
    """Bytes of a file object whose `read` is a coroutine; arguments and errors as of `read_to_end`."""
    content = _Content(file, limit)
    while content.add(await file.read(_BLOCK)):
        pass
    return content.result()


class _Content:
    """Content of a file object as far as it has been read."""

    def __init__(self, file: Any, limit: int) -> None:
        names = (getattr(file, name, None) for name in ("name", "filename"))  # the latter is an upload's
        self._name = next((name for name in names if isinstance(name, str)), type(file).__name__)
        self._limit = limit
        self._bytes = bytearray()

    def add(self, block: Any) -> bool:
        """Add a block; False at the end. Raises AudioError."""
        if not isinstance(block, bytes | bytearray | memoryview):
            raise AudioError(
                f"{self._name}: its read() gave {type(block).__name__}, not bytes; open it in binary mode, "
                "blocking"
            )
        self._bytes += block
        if len(self._bytes) > self._limit:
            raise AudioError(
                f"{self._name}: more than {self._limit} bytes; write it to a file and pass its path, or "
                "raise max_file_object_bytes of EngineConfig"
            )
        return len(block) > 0

    def result(self) -> FileContent:
        """All bytes."""
        content = FileContent(self._bytes)
        content.name = self._name
        return content
