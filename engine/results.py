"""Lines of results, text or JSON, and files of them that a later run continues where they stop."""

import contextlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from io import FileIO
from pathlib import Path
from typing import Any, Self

from .transcription import Transcription

try:
    import fcntl
except ImportError:  # not on Windows, where two runs may write one file
    fcntl = None  # type: ignore[assignment]

LONGEST_LINE = 1 << 22  # bytes; what has more before its first line's end was not written here
_HEADER = "# tritone "  # begins a text file: what its lines were made with
_BEGINNINGS = {"jsonl": b'{"path": ', "text": _HEADER.encode()}
# Whatever some reader takes for the end of a line: JSON escapes the first half by itself.
_LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_JSON_ESCAPES = str.maketrans({end: f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"})
# In a text file each line is one recording, and its first tab ends the path. On Windows a path has no such
# characters, and a backslash is a separator there.
_PATH_ESCAPES = str.maketrans(
    {special: repr(special)[1:-1] for special in "\\\t" + _LINE_ENDS} if os.sep == "/" else {}
)


class LineFormat(StrEnum):
    """How a result becomes a line."""

    TEXT = "text"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a result comes from beside its recording; one file's lines share it.

    Args:
        model: a checkpoint's folder, absolute, or its name.
        options: those that change results, by name.
    """

    model: str
    options: dict[str, Any]

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in ({"model": self.model} | self.options).items())


def json_line(path: Path, result: Transcription, origin: Origin, ascii_only: bool = False) -> str:
    """A result or a failure as a JSON object."""
    failed = result.error is not None
    record: dict[str, Any] = {
        "path": str(path),
        "text": None if failed else result.text,
        "token_ids": list(result.token_ids),
        "finish_reason": str(result.finish_reason),
        "duration": round(result.duration, 3),
        "score": result.score,
        "error": message_of(result.error) if result.error is not None else None,
    }
    if result.words is not None:
        record["words"] = [
            {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
            for word in result.words
        ]
    return json.dumps(record | asdict(origin), ensure_ascii=ascii_only).translate(_JSON_ESCAPES)


def text_line(path: Path | None, result: Transcription) -> str:
    """A result as its path, a tab and its text, or as its text alone; always one line.

    A backslash, tab or line end within the path is written as Python writes it: \\\\, \\t, \\n.
    """
    text = " ".join(result.text.split())
    return text if path is None else f"{_shown(path)}\t{text}"


def message_of(error: Exception) -> str:
    """What an error says; its type where that is nothing."""
    return str(error) or repr(error)


class ResultsFile:
    """A file of lines, one a recording, continued where it exists.

    A process may be killed at any moment: each line is handed to the system at once, a last line without its
    end is dropped by the next run, and whatever else is rewritten is rewritten beside the file and then moved
    into its place. Opening changes nothing but that the file exists; `begin` does.

    Args:
        path: the file; made where it does not exist. A pipe or device is written to and never read.
        line_format: of its lines. A text file begins with a line that says what made it; each JSON line says
            so itself.
        origin: what its lines are made with.
        overwrite: begin anew, whatever the file holds.

    Raises:
        ValueError: a file that something else wrote, that was made with another model or other options, or
            that another run is writing.
        OSError: a file that cannot be read or written.
    """

    def __init__(
        self, path: Path, line_format: LineFormat, origin: Origin, *, overwrite: bool = False
    ) -> None:
        self._path = Path(os.path.realpath(path))  # a link stays one when its file is replaced
        self._format = line_format
        self._origin = origin
        self._results: set[str] = set()  # names of recordings whose result is there
        self._failures: set[str] = set()  # of recordings that failed in an earlier run
        self._end = 0  # bytes of whole lines
        with contextlib.ExitStack() as resources:
            # Unbuffered: a line is there when `write` returns, and nothing is left over to fail in `close`.
            self._file = resources.enter_context(self._path.open("ab", buffering=0))
            self._is_regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
            if self._is_regular:
                _lock(self._file, path)
                if not overwrite:
                    self._read(path)
            self._resources = resources.pop_all()

    @property
    def count(self) -> int:
        """Recordings whose result is there already."""
        return len(self._results)

    def has(self, path: Path) -> bool:
        """Whether a recording's result, not a failure, was there when the file was opened."""
        return self._name(path) in self._results

    def failed(self, path: Path) -> bool:
        """Whether a recording's failure was there when the file was opened."""
        return self._name(path) in self._failures

    def begin(self, paths: Iterable[Path]) -> None:
        """Makes room for these recordings' lines: call it before `write`.

        Drops a torn last line and these recordings' failures; or everything, to begin anew.
        """
        if not self._is_regular:
            return
        if again := self._failures.intersection(map(self._name, paths)):
            self._take_out_failures(again)
        else:
            self._file.truncate(self._end)
        if self._format is LineFormat.TEXT and not self._end:
            self._append(_HEADER + json.dumps(asdict(self._origin), ensure_ascii=False))

    def write(self, path: Path, result: Transcription) -> None:
        """Adds a recording's line; a failure has none in a text file. Raises OSError, for a full disk say."""
        if self._format is LineFormat.JSONL:
            self._append(json_line(path, result, self._origin))
        elif result.error is None:
            self._append(text_line(path, result))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def _append(self, line: str) -> None:
        _write(self._file, _encoded(line) + b"\n")

    def _read(self, path: Path) -> None:
        """Takes note of what is there."""
        for number, line in enumerate(self._lines(), 1):
            if not line.endswith(b"\n"):
                beginning = (
                    _BEGINNINGS[self._format] if number == 1 or self._format is LineFormat.JSONL else b""
                )
                torn = line.rstrip(b"\0")  # zeros are what a power failure may leave of a line
                if len(line) >= LONGEST_LINE or torn[: len(beginning)] != beginning[: len(torn)]:
                    raise ValueError(_foreign(path, number, self._format))
                return
            name, origin, failed = self._parse(line, number, path)
            if origin is not None and origin != self._origin:
                raise ValueError(
                    f"{path}: made with {origin} (line {number}), but this call has {self._origin}; "
                    "give the same, name another file, or --overwrite it"
                )
            if name is not None:
                (self._failures if failed else self._results).add(name)
            self._end += len(line)

    def _lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while line := file.readline(LONGEST_LINE):
                yield line

    def _parse(self, line: bytes, number: int, path: Path) -> tuple[str | None, Origin | None, bool]:
        """A whole line's recording, what it was made with, and whether it is a failure."""
        try:
            if self._format is LineFormat.JSONL:
                record = json.loads(line)
                name, failed = record["path"], record["error"] is not None
                if not isinstance(name, str):
                    raise ValueError("a path that is no text")
                return name, Origin(record["model"], record["options"]), failed
            if number == 1:
                if not line.startswith(_HEADER.encode()):
                    raise ValueError("no header")
                return None, Origin(**json.loads(line[len(_HEADER) :])), False
            name, tab, _ = line.decode().partition("\t")
            if not tab:
                raise ValueError("no tab")
            return name, None, False
        except (ValueError, TypeError, LookupError, RecursionError):
            raise ValueError(_foreign(path, number, self._format)) from None

    def _name(self, path: Path) -> str:
        """A recording's name as it is read back from the file."""
        if self._format is LineFormat.JSONL:
            return str(path)
        return _encoded(_shown(path)).decode()

    def _take_out_failures(self, names: set[str]) -> None:
        """Moves a copy without these recordings' into the file's place, and goes on with that."""
        beside = self._path.with_name(self._path.name + ".part")
        with contextlib.ExitStack() as resources:
            copy = resources.enter_context(beside.open("wb", buffering=0))
            _lock(copy, beside)
            shutil.copymode(self._path, beside)
            for number, line in enumerate(self._lines(), 1):
                if not line.endswith(b"\n"):
                    break  # torn
                name, _, failed = self._parse(line, number, self._path)
                if not (failed and name in names):
                    _write(copy, line)
            os.fsync(copy.fileno())
            os.replace(beside, self._path)
            # The lock on the old file stays, for who opened it before it was replaced.
            self._resources.enter_context(resources.pop_all())
            self._file = copy


class StandardOutput:
    """Lines to standard output; a failure has none there as text."""

    def __init__(self, line_format: LineFormat, origin: Origin, show_path: bool) -> None:
        self._format = line_format
        self._origin = origin
        self._show_path = show_path  # in lines of text

    def begin(self, paths: Iterable[Path]) -> None:
        """As a file's; nothing is here to make room."""

    def write(self, path: Path, result: Transcription) -> None:
        """Prints a recording's line."""
        encoding = sys.stdout.encoding or "utf-8"
        if self._format is LineFormat.JSONL:
            is_unicode = encoding.lower().replace("-", "") == "utf8"
            line = json_line(path, result, self._origin, ascii_only=not is_unicode)
        elif result.error is None:
            line = text_line(path if self._show_path else None, result)
        else:
            return
        print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _write(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _shown(path: Path) -> str:
    return str(path).translate(_PATH_ESCAPES)


def _encoded(line: str) -> bytes:
    # A path that is no UTF-8 holds surrogates, which backslashreplace writes as JSON's own escapes.
    return line.encode("utf-8", "backslashreplace")


def _foreign(path: Path, number: int, line_format: LineFormat) -> str:
    return (
        f"{path}: line {number} is not one that tritone writes as {line_format} with its model and options; "
        "name another file, or --overwrite it"
    )


def _lock(file: FileIO, path: Path) -> None:
    """Keeps a second run away from a file until this one ends, however it ends."""
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
