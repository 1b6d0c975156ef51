"""Sources of encoded audio: paths, bytes and file objects, each opened as a binary file."""

import io
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from .errors import AudioError
from .paths import path_problem

_BUFFER = 1 << 16  # bytes


class Window(io.RawIOBase):
    """Bytes `start` to `stop` of a file as a file of their own, some of them replaced.

    Damaged headers make decoders seek anywhere: positions before the start are the start, since an exception
    in a decoder's callback is printed, not raised.

    Args:
        file: binary file that can seek; not closed here.
        start, stop: first byte, and the byte after the last.
        patches: offsets from `start`, each with the bytes that replace those in the file.
    """

    def __init__(
        self, file: BinaryIO, start: int, stop: int, patches: tuple[tuple[int, bytes], ...] = ()
    ) -> None:
        self._file, self._start, self._size, self._patches = file, start, stop - start, patches
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Offset from the window's start."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset, never to before the start, and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the current position and return the number of bytes."""
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(self._size - self._position, 0))
        if not wanted:
            return 0
        self._file.seek(self._start + self._position)
        content = self._file.read(wanted)
        count = len(content)
        view[:count] = content
        for offset, replacement in self._patches:
            for index, byte in enumerate(replacement, offset - self._position):
                if 0 <= index < count:
                    view[index] = byte
        self._position += count
        return count


def window(file: BinaryIO, start: int, stop: int, patches: tuple[tuple[int, bytes], ...] = ()) -> BinaryIO:
    """Buffered window on a file: decoders read a few bytes at a time."""
    return io.BufferedReader(Window(file, start, stop, patches), _BUFFER)


class Source:
    """Encoded audio that can be opened any number of times.

    Args:
        source: path, bytes (or bytearray or memoryview), or binary file object, which counts from its
            position to its end.

    Raises:
        AudioError: the source is missing, empty, or not a file.
    """

    def __init__(self, source: Any) -> None:
        self.path: str | None = None
        self.suffix = ""
        self._content: bytes | None = None
        self._file: BinaryIO | None = None
        if isinstance(source, str | os.PathLike):
            self.path = self.name = os.fsdecode(source)
            self.suffix = Path(self.name).suffix.lower()
            _check_file(self.name)
        elif isinstance(source, bytes | bytearray | memoryview):
            self._content = source if isinstance(source, bytes) else bytes(source)
            self.name = getattr(source, "name", f"audio of {len(source)} bytes")  # of a file object's content
            self.suffix = Path(self.name).suffix.lower()
        else:
            self._take_file(source)
        with self.open() as file:
            self.size = file.seek(0, os.SEEK_END)
        if not self.size:
            raise AudioError(f"{self.name}: is empty (0 bytes); copy or record it again")

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Open the source as a binary file at its start."""
        if self.path is not None:
            try:
                return open(self.path, "rb")
            except OSError as error:
                raise AudioError(path_problem(self.path, error)) from error
        if self._content is not None:
            return io.BytesIO(self._content)
        assert self._file is not None
        self._file.seek(0)
        return nullcontext(self._file)

    def _take_file(self, file: Any) -> None:
        name = getattr(file, "name", None)
        self.name = name if isinstance(name, str) else "file object"
        self.suffix = Path(self.name).suffix.lower()
        try:
            seekable = file.seekable()
            if not isinstance(file.read(0), bytes):
                raise AudioError(f"{self.name}: is a text file object; open it in mode 'rb'")
            if not seekable:
                self._content = file.read()
                return
            start = file.tell()
            stop = file.seek(0, os.SEEK_END)
        except (AttributeError, OSError, ValueError) as error:
            if isinstance(error, AudioError):
                raise
            raise AudioError(f"{self.name}: cannot be read ({error}); pass an open binary file") from error
        self._file = window(file, start, max(start, stop))


def is_encoded(source: Any) -> bool:
    """Check whether a source is encoded audio (a path, bytes, a file object), not an array or tensor."""
    return isinstance(source, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(source, "read")


def _check_file(name: str) -> None:
    path = Path(name)
    try:
        if path.is_dir():
            raise AudioError(f"{name}: is a folder; name its recordings (find_audio lists them)")
        if path.exists() and not path.is_file():
            raise AudioError(f"{name}: is a pipe or device; write it to a file first")
        with path.open("rb"):
            pass
    except AudioError:
        raise
    except (OSError, ValueError) as error:
        raise AudioError(path_problem(name, error)) from error
