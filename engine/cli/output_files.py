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

from ..outputs import Classification, Transcription

try:
    import fcntl
except ImportError:  # not on Windows, where two runs may write one file
    fcntl = None  # type: ignore[assignment]

LONGEST_LINE = 1 << 22  # bytes; what has more before its first line's end was not written here
_HEADER = "# tritone "  # begins a text file: what its lines were made with
# Whatever some reader takes for the end of a line: JSON escapes the first half by itself.
_LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_JSON_ESCAPES = str.maketrans({end: f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"})
# In a text file each line is one request, and its first tab ends the path or text. On Windows a path has no
# such characters, and a backslash is a separator there.
_ESCAPES = str.maketrans({special: repr(special)[1:-1] for special in "\\\t" + _LINE_ENDS})
_PATH_ESCAPES = _ESCAPES if os.sep == "/" else {}

Name = Path | str  # of what a result is of: a recording's path, or a text itself
Line = Transcription | Classification


class LineFormat(StrEnum):
    """How a result becomes a line."""

    TEXT = "text"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a result comes from beside its recording or text; one file's lines share it.

    Args:
        model: a checkpoint's folder, absolute, or its name.
        options: those that change results, by name.
    """

    model: str
    options: dict[str, Any]

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in ({"model": self.model} | self.options).items())


def json_line(name: Name, result: Line, origin: Origin, ascii_only: bool = False) -> str:
    """A result or a failure as a JSON object."""
    record: dict[str, Any] = {_key(name): str(name)}
    if isinstance(result, Transcription):
        record["text"] = None if result.error is not None else result.text
        record["token_ids"] = list(result.token_ids)
    else:
        record["labels"] = None if result.error is not None else [asdict(label) for label in result.labels]
    record["finish_reason"] = str(result.finish_reason)
    if isinstance(name, Path):
        record["duration"] = round(result.duration, 3)
    if isinstance(result, Transcription):
        record["score"] = result.score
    record["error"] = message_of(result.error) if result.error is not None else None
    if isinstance(result, Transcription) and result.words is not None:
        record["words"] = [
            {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
            for word in result.words
        ]
    return json.dumps(record | asdict(origin), ensure_ascii=ascii_only).translate(_JSON_ESCAPES)


def text_line(name: Name | None, result: Line) -> str:
    """A result as its path or text, a tab and what was said, or as that alone; always one line.

    Of a classification that is each label, a tab and its score, all with tabs between them. A backslash, tab
    or line end within the path or text is written as Python writes it: \\\\, \\t, \\n.
    """
    if isinstance(result, Transcription):
        said = " ".join(result.text.split())
    else:
        said = "\t".join(f"{label.label.translate(_ESCAPES)}\t{label.score:.6f}" for label in result.labels)
    return said if name is None else f"{_shown(name)}\t{said}"


def message_of(error: Exception) -> str:
    """What an error says; its type where that is nothing."""
    return str(error) or repr(error)


class ResultsFile:
    """A file of lines, one a recording or text, continued where it exists.

    A process may be killed at any moment: each line is handed to the system at once, a last line without its
    end is dropped by the next run, and whatever else is rewritten is rewritten beside the file and then moved
    into its place. Opening changes nothing but that the file exists; `begin` does.

    Args:
        path: the file; made where it does not exist. A pipe or device is written to and never read.
        line_format: of its lines. A text file begins with a line that says what made it; each JSON line says
            so itself.
        origin: what its lines are made with.
        overwrite: begin anew, whatever the file holds.
        of_texts: whether its lines are of texts, not of recordings.

    Raises:
        ValueError: a file that something else wrote, that was made with another model or other options, or
            that another run is writing.
        OSError: a file that cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        line_format: LineFormat,
        origin: Origin,
        *,
        overwrite: bool = False,
        of_texts: bool = False,
    ) -> None:
        self._path = Path(os.path.realpath(path))  # a link stays one when its file is replaced
        self._format = line_format
        self._origin = origin
        self._key = "text" if of_texts else "path"
        self._results: set[str] = set()  # names of what has its result there
        self._failures: set[str] = set()  # of what failed in an earlier run
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
        """Recordings or texts whose result is there already."""
        return len(self._results)

    def has(self, name: Name) -> bool:
        """Whether its result, not a failure, was there when the file was opened."""
        return self._name(name) in self._results

    def failed(self, name: Name) -> bool:
        """Whether its failure was there when the file was opened."""
        return self._name(name) in self._failures

    def begin(self, names: Iterable[Name]) -> None:
        """Makes room for the lines of these: call it before `write`.

        Drops a torn last line and their failures; or everything, to begin anew.
        """
        if not self._is_regular:
            return
        if again := self._failures.intersection(map(self._name, names)):
            self._take_out_failures(again)
        else:
            self._file.truncate(self._end)
        if self._format is LineFormat.TEXT and not self._end:
            self._append(_HEADER + json.dumps(asdict(self._origin), ensure_ascii=False))

    def write(self, name: Name, result: Line) -> None:
        """Adds a result's line; a failure has none in a text file. Raises OSError, for a full disk say."""
        if self._format is LineFormat.JSONL:
            self._append(json_line(name, result, self._origin))
        elif result.error is None:
            self._append(text_line(name, result))

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
                beginning = b""
                if self._format is LineFormat.JSONL:
                    beginning = f'{{"{self._key}": '.encode()
                elif number == 1:
                    beginning = _HEADER.encode()
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
        """A whole line's name, what it was made with, and whether it is a failure."""
        try:
            if self._format is LineFormat.JSONL:
                record = json.loads(line)
                name, failed = record[self._key], record["error"] is not None
                if not isinstance(name, str):
                    raise ValueError("a name that is no text")
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

    def _name(self, name: Name) -> str:
        """A name as it is read back from the file."""
        if self._format is LineFormat.JSONL:
            return str(name)
        return _encoded(_shown(name)).decode()

    def _take_out_failures(self, names: set[str]) -> None:
        """Moves a copy without these lines into the file's place, and goes on with that."""
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

    def __init__(self, line_format: LineFormat, origin: Origin, show_name: bool) -> None:
        self._format = line_format
        self._origin = origin
        self._show_name = show_name  # in lines of text

    def begin(self, names: Iterable[Name]) -> None:
        """As a file's; nothing is here to make room."""

    def write(self, name: Name, result: Line) -> None:
        """Prints a result's line."""
        encoding = sys.stdout.encoding or "utf-8"
        if self._format is LineFormat.JSONL:
            is_unicode = encoding.lower().replace("-", "") == "utf8"
            line = json_line(name, result, self._origin, ascii_only=not is_unicode)
        elif result.error is None:
            line = text_line(name if self._show_name else None, result)
        else:
            return
        print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _write(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _key(name: Name) -> str:
    return "path" if isinstance(name, Path) else "text"


def _shown(name: Name) -> str:
    return str(name).translate(_PATH_ESCAPES if isinstance(name, Path) else _ESCAPES)


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
