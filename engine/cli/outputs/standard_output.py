"""Results on standard output."""

import sys
from collections.abc import Iterable

from ..terminal import visible_line
from .lines import LineFormat, Name, Origin, Result, json_line, text_line


class StandardOutput:
    """Writer of results to standard output, with `begin` and `write` as of `ResultsFile`."""

    def __init__(self, line_format: LineFormat, origin: Origin, show_name: bool) -> None:
        self._format = line_format
        self._origin = origin
        self._show_name = show_name  # in lines of text

    def begin(self, names: Iterable[Name]) -> None:
        """Do nothing: standard output holds no earlier lines."""

    def write(self, name: Name, *results: Result, reference: str | None = None) -> None:
        """Print a result, or those of all channels, as lines; in text format failures are left out."""
        encoding = sys.stdout.encoding or "utf-8"
        is_unicode = encoding.lower().replace("-", "") == "utf8"
        for result in results:
            if self._format is LineFormat.JSONL:
                line = json_line(
                    name,
                    result,
                    self._origin,
                    not is_unicode,
                    channels=len(results),
                    reference=reference,
                )
            elif result.error is None:
                line = text_line(name if self._show_name else None, result, len(results))
                if sys.stdout.isatty():
                    line = visible_line(line)
            else:
                continue
            print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)

    def finish(self) -> None:
        """Do nothing: each line has been handed to the operating system."""
