"""Result lines in text or JSON, and results files that a later run continues."""

import contextlib
import errno
import json
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, Self

from ..outputs import Classification, Segment, Transcription
from .terminal import CONTROLS, visible_line

try:
    import fcntl
except ImportError:  # not on Windows, where two runs may write one file
    fcntl = None  # type: ignore[assignment]

MAX_LINE_BYTES = 1 << 26  # a day of speech has a quarter of it; a longer line was not written here
_HEADER = "# tritone "  # first line of a text file, before the origin of its lines
# All characters that some programs take for the end of a line; JSON escapes the first half by itself.
_LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_JSON_ESCAPES = str.maketrans({control: f"\\u{ord(control):04x}" for control in CONTROLS})
# In a text file each line is one request, and its first tab ends the path or text. On Windows a path has no
# such characters, and a backslash is a separator there.
_ESCAPES = str.maketrans({special: repr(special)[1:-1] for special in "\\\t" + _LINE_ENDS})
_PATH_ESCAPES = _ESCAPES if os.sep == "/" else {}

Name = Path | str  # name of a result: the recording's path, or the text itself
Result = Transcription | Classification


class LineFormat(StrEnum):
    """Format of result lines: plain text or JSON Lines."""

    TEXT = "text"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Origin:
    """Model and options that produced a result; all lines of a results file share them."""

    model: str  # absolute path of a checkpoint's folder, or its name
    options: dict[str, Any]  # options that change results, by name

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in ({"model": self.model} | self.options).items())


class _Line(NamedTuple):
    """Line of a results file; a header has no name, and in a text file only the header has the origin."""

    name: str | None
    origin: Origin | None = None
    failed: bool = False
    channel: int = 0
    channels: int = 1  # of the recording, each with a line of its own


def json_line(
    name: Name, result: Result, origin: Origin, ascii_only: bool = False, *, channels: int = 1
) -> str:
    """Format a result or failure as one line with a JSON object; one of a channel has their number too."""
    record: dict[str, Any] = {_key(name): _text(name)}
    if result.channel is not None:
        record |= {"channel": result.channel, "channels": channels}
    if isinstance(result, Transcription):
        record["text"] = None if result.error is not None else result.text
        record["token_ids"] = list(result.token_ids)
    else:
        record["labels"] = None if result.error is not None else [asdict(label) for label in result.labels]
    record["finish_reason"] = str(result.finish_reason)
    if isinstance(name, Path):
        record["duration"] = round(result.duration, 3)
    if isinstance(result, Transcription):
        if result.speech_duration is not None:
            record["speech_duration"] = round(result.speech_duration, 3)
        record["score"] = result.score
        if result.language is not None:
            record["language"] = result.language
    record["error"] = message_of(result.error) if result.error is not None else None
    if result.warnings:
        record["warnings"] = list(result.warnings)
    if isinstance(result, Transcription) and result.words is not None:
        record["words"] = [
            {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
            | ({} if word.confidence is None else {"confidence": round(word.confidence, 3)})
            for word in result.words
        ]
    if isinstance(result, Transcription) and result.segments is not None:
        record["segments"] = [_segment(segment) for segment in result.segments]
    line = json.dumps(record | asdict(origin), ensure_ascii=ascii_only, allow_nan=False)
    return line.translate(_JSON_ESCAPES)


def _segment(segment: Segment) -> dict[str, Any]:
    """Fields of a segment, its times in milliseconds' precision."""
    times = {"start": round(segment.start, 3), "end": round(segment.end, 3)}
    return asdict(segment) | times | {"token_ids": list(segment.token_ids)}


def text_line(name: Name | None, result: Result, channels: int = 1) -> str:
    """Format a result as one line of text: name, tab, then the transcript or the labels and scores.

    The result of a channel begins with it and their number: 0/2, tab.

    Without a name the line begins after the tab. Labels and scores are separated by tabs. A backslash, tab or
    line end in a name or label is written as Python writes it: \\\\, \\t, \\n.
    """
    if isinstance(result, Transcription):
        text = " ".join(result.text.split())
    else:
        text = "\t".join(f"{label.label.translate(_ESCAPES)}\t{label.score:.6f}" for label in result.labels)
    if result.channel is not None:
        text = f"{result.channel}/{channels}\t{text}"
    return text if name is None else f"{_escaped(name)}\t{text}"


def message_of(error: Exception) -> str:
    """Message of an error, or its `repr` where the message is empty."""
    return str(error) or repr(error)


class ResultsFile:
    """Results file with one line per recording or text; an existing file is continued.

    It survives a kill at any moment: each line is handed to the operating system at once, the next run drops
    a last line without its line end, and other changes are made to a copy that then replaces the file.
    Opening only creates the file; `begin` changes it.

    Args:
        path: path of the file. A pipe or device is written to and never read.
        line_format: format of the lines. A text file begins with a header line that holds the origin; each
            JSON line holds its own.
        origin: model and options that the results come from.
        overwrite: True starts from scratch, whatever the file holds.
        of_texts: True for results of texts, False for results of recordings.

    Raises:
        ValueError: the file is of another program, model or options, or another run is writing it.
        OSError: the file cannot be read or written.
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
        # A link stays one when its file is replaced; /dev/stdout is no link to a path that can be opened.
        is_other = os.path.exists(path) and not os.path.isfile(path)
        self._path = path if is_other else Path(os.path.realpath(path))
        self._format = line_format
        self._origin = origin
        self._key = "text" if of_texts else "path"
        self._results: set[str] = set()  # names with a result in the file
        self._failures: set[str] = set()  # names that failed in an earlier run, or lack a channel
        self._end = 0  # bytes of whole lines, those of this run included
        with contextlib.ExitStack() as resources:
            # Unbuffered: a line is in the file when `write` returns, and `close` has nothing left to write.
            self._file = resources.enter_context(self._path.open("ab", buffering=0))
            self._is_regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
            if self._is_regular:
                _lock(self._file, path)
                if not overwrite:
                    self._read(path)
            self._resources = resources.pop_all()

    @property
    def count(self) -> int:
        """Number of results in the file when it was opened, without failures."""
        return len(self._results)

    def has(self, name: Name) -> bool:
        """Check whether the file held a result, not a failure, of this name when it was opened."""
        return self._name(name) in self._results

    def failed(self, name: Name) -> bool:
        """Check whether the file held a failure of this name when it was opened."""
        return self._name(name) in self._failures

    def begin(self, names: Iterable[Name]) -> None:
        """Remove an incomplete last line and the failures of these names from the file, before any `write`.

        With `overwrite`, remove everything.
        """
        if not self._is_regular:
            return
        self._check_place()
        if again := self._failures.intersection(map(self._name, names)):
            self._remove_failures(again)
        else:
            self._file.truncate(self._end)
        if self._format is LineFormat.TEXT and not self._end:
            self._append(_HEADER + json.dumps(asdict(self._origin), ensure_ascii=False, allow_nan=False))

    def write(self, name: Name, *results: Result) -> None:
        """Append a result, or those of all channels, as lines; in a text file failures are left out.

        Raises:
            OSError: the disk is full, or the file was deleted, replaced or changed since `begin`.
        """
        for result in results:
            if self._format is LineFormat.JSONL:
                self._append(json_line(name, result, self._origin, channels=len(results)))
            elif result.error is None:
                self._append(text_line(name, result, len(results)))

    def finish(self) -> None:
        """Check that the file holds all results, on its disk. Raises OSError as `write` does."""
        if self._is_regular:
            self._check()
            os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def _append(self, line: str) -> None:
        data = _encoded(line) + b"\n"
        if self._is_regular:
            self._check()
        try:
            _write(self._file, data)
        except OSError:
            if self._is_regular:
                with contextlib.suppress(OSError):
                    self._file.truncate(self._end)  # no half of a line on a full disk
            raise
        self._end += len(data)

    def _check(self) -> None:
        self._check_place()
        size = os.fstat(self._file.fileno()).st_size
        if size != self._end:
            raise OSError(
                errno.EIO,
                f"changed by another program during the run: {size} bytes instead of {self._end}; results "
                "may be missing there. Run again, with one writer at a time",
            )

    def _check_place(self) -> None:
        try:
            in_place = os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno()))
        except (FileNotFoundError, NotADirectoryError):
            in_place = False
        if not in_place:
            raise OSError(
                errno.ESTALE,
                "deleted, moved or replaced during the run: results written until then are not there. Run "
                "again, and leave the file in its place",
            )

    def _read(self, path: Path) -> None:
        """Read the names in an existing file, and the byte at which its last complete line ends."""
        channels: dict[str, set[int]] = {}  # of each name with results of channels
        for number, line in enumerate(self._lines(), 1):
            if not line.endswith(b"\n"):
                beginning = b""
                if self._format is LineFormat.JSONL:
                    beginning = f'{{"{self._key}": '.encode()
                elif number == 1:
                    beginning = _HEADER.encode()
                torn = line.rstrip(b"\0")  # zeros are what a power failure may leave of a line
                if len(line) >= MAX_LINE_BYTES or torn[: len(beginning)] != beginning[: len(torn)]:
                    raise ValueError(_foreign(path, number, self._format))
                return
            parsed = self._parse(line, number, path)
            if parsed.origin is not None and parsed.origin != self._origin:
                raise ValueError(
                    f"{path}: made with {parsed.origin} (line {number}), but this call has {self._origin}; "
                    "give the same, name another file, or --overwrite it"
                )
            if parsed.name is not None:
                there = channels.setdefault(parsed.name, set())
                if not parsed.failed:
                    there.add(parsed.channel)
                (self._results if len(there) == parsed.channels else self._failures).add(parsed.name)
            self._end += len(line)
        self._failures -= self._results

    def _lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            if not os.path.samestat(os.fstat(file.fileno()), os.fstat(self._file.fileno())):
                raise OSError(errno.ESTALE, "replaced while it was opened; run again")
            while line := file.readline(MAX_LINE_BYTES):
                yield line

    def _parse(self, line: bytes, number: int, path: Path) -> "_Line":
        """Parse a complete line."""
        try:
            if self._format is LineFormat.JSONL:
                not_finite: list[str] = []  # earlier versions wrote the score NaN of damaged weights
                record = json.loads(line, parse_constant=not_finite.append)
                name, failed = record[self._key], record["error"] is not None or bool(not_finite)
                if not isinstance(name, str):
                    raise ValueError("a name that is no text")
                channel = int(record.get("channel", 0)), int(record.get("channels", 1))
                return _Line(name, Origin(record["model"], record["options"]), failed, *channel)
            if number == 1:
                if not line.startswith(_HEADER.encode()):
                    raise ValueError("no header")
                return _Line(None, Origin(**json.loads(line[len(_HEADER) :])))
            name, tab, rest = line.decode().partition("\t")
            if not tab:
                raise ValueError("no tab")
            if self._origin.options.get("channels") != "split":
                return _Line(name)
            index, _, count = rest.partition("\t")[0].partition("/")
            return _Line(name, channel=int(index), channels=int(count))
        except (ValueError, TypeError, LookupError, RecursionError):
            raise ValueError(_foreign(path, number, self._format)) from None

    def _name(self, name: Name) -> str:
        """Convert a name to the string that `_parse` reads back from the file."""
        if self._format is LineFormat.JSONL:
            return _text(name)
        return _encoded(_escaped(name)).decode()

    def _remove_failures(self, names: set[str]) -> None:
        """Replace the file by a copy without the lines of these names: failures, and results of channels."""
        with contextlib.ExitStack() as resources:
            copy = self._create_beside(resources)
            _lock(copy, self._path)
            end = 0
            for number, line in enumerate(self._lines(), 1):
                if not line.endswith(b"\n"):
                    break  # torn
                if self._parse(line, number, self._path).name not in names:
                    _write(copy, line)
                    end += len(line)
            os.fsync(copy.fileno())
            self._check_place()
            os.replace(copy.name, self._path)
            # The lock on the old file stays, for a run that opened it before it was replaced.
            self._resources.enter_context(resources.pop_all())
            self._file, self._end = copy, end

    def _create_beside(self, resources: contextlib.ExitStack) -> FileIO:
        """Create a file in the same folder, with this one's owner and rights; `resources` remove it."""
        # The name cannot be foreseen, and no link is followed: in a folder that others write to, one may be
        # planted. It is short, because the file's own name may be as long as names can be.
        path = self._path.with_name(f".tritone-{secrets.token_hex(8)}.part")
        copy = open(path, "xb", buffering=0, opener=_open_private)  # noqa: SIM115
        resources.callback(path.unlink, missing_ok=True)
        resources.enter_context(copy)
        status = os.fstat(self._file.fileno())
        mode = stat.S_IMODE(status.st_mode)
        if hasattr(os, "fchown"):
            try:
                os.fchown(copy.fileno(), status.st_uid, status.st_gid)
            except PermissionError:  # another user's file: it becomes ours, and our group has no part in it
                mode &= ~stat.S_IRWXG
        os.chmod(copy.fileno() if os.chmod in os.supports_fd else path, mode)
        return copy


class StandardOutput:
    """Writer of results to standard output, with `begin` and `write` as of `ResultsFile`."""

    def __init__(self, line_format: LineFormat, origin: Origin, show_name: bool) -> None:
        self._format = line_format
        self._origin = origin
        self._show_name = show_name  # in lines of text

    def begin(self, names: Iterable[Name]) -> None:
        """Do nothing: standard output holds no earlier lines."""

    def write(self, name: Name, *results: Result) -> None:
        """Print a result, or those of all channels, as lines; in text format failures are left out."""
        encoding = sys.stdout.encoding or "utf-8"
        is_unicode = encoding.lower().replace("-", "") == "utf8"
        for result in results:
            if self._format is LineFormat.JSONL:
                line = json_line(name, result, self._origin, not is_unicode, channels=len(results))
            elif result.error is None:
                line = text_line(name if self._show_name else None, result, len(results))
                if sys.stdout.isatty():
                    line = visible_line(line)
            else:
                continue
            print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)

    def finish(self) -> None:
        """Do nothing: each line has been handed to the operating system."""


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o600)


def _write(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _key(name: Name) -> str:
    return "path" if isinstance(name, Path) else "text"


def _text(name: Name) -> str:
    """Text of a name: bytes that are not UTF-8 as lone surrogates, which `os.fsencode` turns back."""
    if isinstance(name, Path) and os.sep == "/":
        # Through bytes: in a locale of another encoding the same file must have the same name.
        return os.fsencode(name).decode("utf-8", "surrogateescape")
    return str(name)


def _escaped(name: Name) -> str:
    return _text(name).translate(_PATH_ESCAPES if isinstance(name, Path) else _ESCAPES)


def _encoded(line: str) -> bytes:
    # A path that is no UTF-8 holds surrogates, which backslashreplace writes as JSON's own escapes.
    return line.encode("utf-8", "backslashreplace")


def _foreign(path: Path, number: int, line_format: LineFormat) -> str:
    return (
        f"{path}: line {number} is not one that tritone writes as {line_format} with its model and options; "
        "name another file, or --overwrite it"
    )


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
