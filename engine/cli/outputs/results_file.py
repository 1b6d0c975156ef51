"""Results files of one line for each recording or text, which a later run continues."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, Self

from .append_file import MAX_LINE_BYTES, AppendFile
from .lines import LineFormat, Name, Origin, Result, encoded, escaped, json_line, name_text, text_line

_HEADER = "# tritone "  # first line of a text file, before the origin of its lines


class _Line(NamedTuple):
    """Line of a results file; a header has no name, and in a text file only the header has the origin."""

    name: str | None
    origin: Origin | None = None
    failed: bool = False
    channel: int = 0
    channels: int = 1  # of the recording, each with a line of its own


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
        self._format = line_format
        self._origin = origin
        self._key = "text" if of_texts else "path"
        self._results: set[str] = set()  # names with a result in the file
        self._failures: set[str] = set()  # names that failed in an earlier run, or lack a channel
        with contextlib.ExitStack() as resources:
            self._file = AppendFile(path)
            resources.callback(self._file.close)
            if self._file.is_regular and not overwrite:
                self._read(path)
            resources.pop_all()

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
        if not self._file.is_regular:
            return
        if again := self._failures.intersection(map(self._name, names)):
            self._file.check_place()
            self._file.replace(self._lines_without(again))
        else:
            self._file.cut()
        if self._format is LineFormat.TEXT and not self._file.end:
            self._append(_HEADER + json.dumps(asdict(self._origin), ensure_ascii=False, allow_nan=False))

    def write(self, name: Name, *results: Result, reference: str | None = None) -> None:
        """Append a result, or those of all channels, as lines; in a text file failures are left out.

        Raises:
            OSError: the disk is full, or the file was deleted, replaced or changed since `begin`.
        """
        for result in results:
            if self._format is LineFormat.JSONL:
                self._append(
                    json_line(name, result, self._origin, channels=len(results), reference=reference)
                )
            elif result.error is None:
                self._append(text_line(name, result, len(results)))

    def finish(self) -> None:
        """Check that the file holds all results, on its disk. Raises OSError as `write` does."""
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _append(self, line: str) -> None:
        self._file.append(encoded(line) + b"\n")

    def _read(self, path: Path) -> None:
        """Read the names in an existing file, and the byte at which its last complete line ends."""
        channels: dict[str, set[int]] = {}  # of each name with results of channels
        for number, line in enumerate(self._file.lines(), 1):
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
            self._file.end += len(line)
        self._failures -= self._results

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
            return name_text(name)
        return encoded(escaped(name)).decode()

    def _lines_without(self, names: set[str]) -> Iterator[bytes]:
        """Whole lines without those of these names: failures, and results of channels."""
        for number, line in enumerate(self._file.lines(), 1):
            if not line.endswith(b"\n"):
                return  # torn
            if self._parse(line, number, self._file.path).name not in names:
                yield line


def _foreign(path: Path, number: int, line_format: LineFormat) -> str:
    return (
        f"{path}: line {number} is not one that tritone writes as {line_format} with its model and options; "
        "name another file, or --overwrite it"
    )
