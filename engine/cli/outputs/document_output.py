"""One result as a document, on standard output or in a file of its own."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...outputs import Transcription
from ..terminal import visible_line
from .append_file import replace_whole
from .formats import Format, document
from .lines import Name, Origin, Result, encoded


class DocumentOutput:
    """Writer of a single result, with `begin` and `write` as of `ResultsFile`; a failure leaves nothing.

    Args:
        path: path of the file, which is written in one step; None for standard output.
        chosen: format.
        origin: model and options that the result comes from.
        layout: arguments of `Transcription.to_srt`.
    """

    def __init__(
        self, path: Path | None, chosen: Format, origin: Origin, layout: Mapping[str, Any] | None = None
    ) -> None:
        self._path = path
        self._format = chosen
        self._origin = origin
        self._layout = dict(layout or {})

    def begin(self, names: Iterable[Name]) -> None:
        """Do nothing: there are no earlier results."""

    def write(self, name: Name, *results: Result, reference: str | None = None) -> None:
        """Write the document of a result. OSError where the disk or a pipe is full."""
        for result in results:
            assert isinstance(result, Transcription)
            if result.error is not None:
                continue
            content = document(self._format, name, result, self._origin, self._layout, len(results))
            if self._path is not None:
                self._write_file(encoded(content))
                continue
            encoding = sys.stdout.encoding or "utf-8"
            if sys.stdout.isatty():
                content = "\n".join(map(visible_line, content.split("\n")))
            print(content.encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)

    def finish(self) -> None:
        """Do nothing: the document has been handed to the operating system."""

    def _write_file(self, data: bytes) -> None:
        assert self._path is not None
        if self._path.exists() and not self._path.is_file():  # a pipe or device
            self._path.write_bytes(data)
        else:
            replace_whole(Path(self._path.resolve()), data)
