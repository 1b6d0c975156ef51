"""Files that grow by whole lines, whatever kills the process: locked, checked, cut to whole lines."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, where two runs may write one file
    fcntl = None  # type: ignore[assignment]

MAX_LINE_BYTES = 1 << 26  # a day of speech has a quarter of it; a longer line was not written here


class AppendFile:
    """File to which whole lines are appended, each handed to the operating system at once.

    Opening creates and locks the file and changes nothing in it. A pipe or device is only written to.

    Args:
        path: path of the file.

    Raises:
        ValueError: another run is writing the file.
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        # A link stays one when its file is replaced; /dev/stdout is no link to a path that can be opened.
        is_other = os.path.exists(path) and not os.path.isfile(path)
        self.path = path if is_other else Path(os.path.realpath(path))
        self.end = 0  # bytes of whole lines that are read or written
        with contextlib.ExitStack() as resources:
            # Unbuffered: a line is in the file when `append` returns, and `close` has nothing left to write.
            self._file = resources.enter_context(self.path.open("ab", buffering=0))
            self.is_regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
            if self.is_regular:
                _lock(self._file, path)
            self._resources = resources.pop_all()

    def close(self) -> None:
        """Close and unlock the file."""
        self._resources.close()

    def lines(self) -> Iterator[bytes]:
        """Lines of the file; the last one may lack its end, and one of `MAX_LINE_BYTES` is cut there."""
        with self.path.open("rb") as file:
            if not os.path.samestat(os.fstat(file.fileno()), os.fstat(self._file.fileno())):
                raise OSError(errno.ESTALE, "replaced while it was opened; run again")
            while line := file.readline(MAX_LINE_BYTES):
                yield line

    def cut(self) -> None:
        """Cut a regular file to its first `end` bytes."""
        self.check_place()
        self._file.truncate(self.end)

    def append(self, data: bytes) -> None:
        """Append lines.

        Raises:
            OSError: the disk is full, or the file was deleted, replaced or changed by another program.
        """
        if self.is_regular:
            self.check()
        try:
            _write(self._file, data)
        except OSError:
            if self.is_regular:
                with contextlib.suppress(OSError):
                    self._file.truncate(self.end)  # no half of a line on a full disk
            raise
        self.end += len(data)

    def flush(self) -> None:
        """Check that the file holds all lines, on its disk. Raises OSError as `append` does."""
        if self.is_regular:
            self.check()
            os.fsync(self._file.fileno())

    def check(self) -> None:
        """Raise OSError unless the file is in its place and `end` bytes long."""
        self.check_place()
        size = os.fstat(self._file.fileno()).st_size
        if size != self.end:
            raise OSError(
                errno.EIO,
                f"changed by another program during the run: {size} bytes instead of {self.end}; results "
                "may be missing there. Run again, with one writer at a time",
            )

    def check_place(self) -> None:
        """Raise OSError unless the path still names the file that was opened."""
        try:
            in_place = os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except (FileNotFoundError, NotADirectoryError):
            in_place = False
        if not in_place:
            raise OSError(
                errno.ESTALE,
                "deleted, moved or replaced during the run: results written until then are not there. Run "
                "again, and leave the file in its place",
            )

    def replace(self, lines: Iterable[bytes]) -> None:
        """Replace the file by one of these lines, in one step."""
        with contextlib.ExitStack() as resources:
            copy = self._create_beside(resources)
            _lock(copy, self.path)
            end = 0
            for line in lines:
                _write(copy, line)
                end += len(line)
            os.fsync(copy.fileno())
            self.check_place()
            os.replace(copy.name, self.path)
            # The lock on the old file stays, for a run that opened it before it was replaced.
            self._resources.enter_context(resources.pop_all())
            self._file, self.end = copy, end

    def _create_beside(self, resources: contextlib.ExitStack) -> FileIO:
        """Create a file in the same folder, with this one's owner and rights; `resources` remove it."""
        copy = create_temporary(self.path.parent, resources)
        status = os.fstat(self._file.fileno())
        mode = stat.S_IMODE(status.st_mode)
        if hasattr(os, "fchown"):
            try:
                os.fchown(copy.fileno(), status.st_uid, status.st_gid)
            except PermissionError:  # another user's file: it becomes ours, and our group has no part in it
                mode &= ~stat.S_IRWXG
        os.chmod(copy.fileno() if os.chmod in os.supports_fd else copy.name, mode)
        return copy


def create_temporary(folder: Path, resources: contextlib.ExitStack, rights: int = 0o600) -> FileIO:
    """Create a temporary file in a folder; `resources` close and remove it."""
    # The name cannot be foreseen, and no link is followed: in a folder that others write to, one may be
    # planted. It is short, because the file that it becomes may have a name as long as names can be.
    path = folder / f".tritone-{secrets.token_hex(8)}.part"

    def create(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), rights)

    file = open(path, "xb", buffering=0, opener=create)  # noqa: SIM115
    resources.callback(path.unlink, missing_ok=True)
    return resources.enter_context(file)


def replace_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then give it its own in one step."""
    with contextlib.ExitStack() as resources:
        file = create_temporary(path.parent, resources, 0o666)
        _write(file, data)
        file.close()  # Windows renames no open file
        os.replace(file.name, path)


def _write(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _lock(file: FileIO, path: Path) -> None:
    """Lock a file exclusively until this process ends; ValueError where another run has locked it."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"{path}: another run is writing it; wait for its end, or name another file"
        ) from None
    except OSError:
        pass  # a file system without locks
