"""Destination of a command's results: standard output, a file for all, or a folder with files of each."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

from ...journal_files import SUFFIX
from ..terminal import refuse
from .document_output import DocumentOutput
from .formats import ALL, SUBTITLES, Format, format_of_file, parse_formats
from .lines import LineFormat, Name, Origin, Result
from .results_file import ResultsFile
from .results_folder import ResultsFolder
from .standard_output import StandardOutput


class Writer(Protocol):
    """Writer of results in order."""

    def begin(self, names: Iterable[Name]) -> None:
        """Prepare for the results of these names, before any `write`."""

    def write(self, name: Name, *results: Result, reference: str | None = None) -> None:
        """Write a result, or those of all channels; JSON lines have the reference text too.

        Raises:
            OSError: they cannot be written.
        """

    def finish(self) -> None:
        """Check that all results are written. OSError where they are not."""


@dataclass(frozen=True)
class Output:
    """Destination of results: a folder, a file, or standard output where both paths are None.

    Args:
        path: path of a file for all results.
        folder: path of a folder with a file for each recording and format.
        given: formats that the call names; none is text, to a file what its suffix says, else JSON Lines, to
            a folder all.
        overwrite: True writes from scratch.
        layout: arguments of `Transcription.to_srt`.
        roots: folders that the call names, whose structure a folder of results keeps.
    """

    path: Path | None
    given: tuple[Format, ...] = ()
    overwrite: bool = False
    folder: Path | None = None
    layout: Mapping[str, Any] = field(default_factory=dict)
    roots: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.path is not None and self.folder is not None:
            refuse("--output is one file for all results, --output-dir a folder; give one of them")
        if self.overwrite and self.path is None and self.folder is None:
            refuse("--overwrite is about the file of --output or the folder of --output-dir; name one")
        if len(self.formats) > 1 and self.folder is None:
            refuse(
                f"--format names {len(self.formats)} formats, which are a file each; name a folder with "
                "-o/--output-dir"
            )
        if self.layout and not any(one in SUBTITLES for one in self.formats):
            name = next(iter(self.layout)).replace("_", "-")
            refuse(f"--{name} is of subtitles, and the format is {self.formats[0]}; add --format srt or vtt")

    @property
    def formats(self) -> tuple[Format, ...]:
        """Formats of the results."""
        if self.path is not None:
            return (format_of_file(self.path, self.given),)
        return self.given or ((Format.TEXT,) if self.folder is None else ALL)

    @property
    def label(self) -> str:
        """Name of the destination in messages."""
        if self.folder is not None:
            return f"--output-dir {self.folder}"
        return "standard output" if self.path is None else f"--output {self.path}"

    @property
    def journals(self) -> Path | None:
        """Folder of journals, from which an interrupted recording goes on; None for a pipe or terminal."""
        if self.folder is not None:
            return self.folder / ".tritone-windows"
        if self.path is None or (self.path.exists() and not self.path.is_file()):
            return None
        return self.path.with_name(f"{self.path.name}{SUFFIX}")

    @property
    def is_standard(self) -> bool:
        """True for standard output."""
        return self.path is None and self.folder is None

    def check_inputs(self, names: Sequence[Name], split: bool) -> None:
        """End the command where the output cannot take these results, or is one of the recordings.

        Args:
            names: paths of the recordings, or the texts.
            split: True for a result of each channel.
        """
        from ...audio.reader import AUDIO_SUFFIXES

        (first, *_) = self.formats
        if self.folder is None and not first.is_of_lines and (len(names) > 1 or split):
            several = "the channels of a recording" if split else f"{len(names)} recordings"
            refuse(
                f"{first} is a file of one result, and here are {several}; give -o/--output-dir, which has a "
                "file for each, or --format jsonl"
            )
        # Without --overwrite a recording is refused as a file of another program.
        if self.path is None or not self.overwrite or not os.path.isfile(self.path):
            return
        for name in names:
            if not isinstance(name, Path):
                return
            # A file with a recording's suffix is refused as an output anyway.
            may_be = os.path.islink(name) or name.suffix.lower() not in AUDIO_SUFFIXES
            if may_be and os.path.isfile(name) and os.path.samefile(name, self.path):
                refuse(f"--output {self.path}: is the recording {name}; name another file")

    def open(
        self, origin: Origin, names: Sequence[Name], of_texts: bool, resources: ExitStack
    ) -> ResultsFile | ResultsFolder | None:
        """Open what holds results of earlier runs, closed with `resources`; None where nothing does.

        Ends the command where the destination cannot be used.
        """
        if self.is_standard and sys.stdout is None:
            refuse("standard output is closed; open it, or name a file with --output")
        try:
            if self.folder is not None:
                paths = [name for name in names if isinstance(name, Path)]
                return resources.enter_context(
                    ResultsFolder(
                        self.folder,
                        self.formats,
                        origin,
                        paths,
                        roots=self.roots,
                        layout=self.layout,
                        overwrite=self.overwrite,
                    )
                )
            if self.path is not None:
                self._check_path(self.path)
                (chosen,) = self.formats
                if chosen.is_of_lines:
                    return resources.enter_context(
                        ResultsFile(
                            self.path,
                            LineFormat(chosen),
                            origin,
                            overwrite=self.overwrite,
                            of_texts=of_texts,
                        )
                    )
        except OSError as error:
            refuse(f"{self.label}: cannot be written ({error.strerror})")
        except ValueError as error:
            refuse(f"{self.label.partition(' ')[0]} {error}")
        return None

    def writer(self, origin: Origin, show_name: bool) -> Writer:
        """Writer to a destination that holds no results of earlier runs."""
        (chosen,) = self.formats
        if chosen.is_of_lines:
            return StandardOutput(LineFormat(chosen), origin, show_name)
        return DocumentOutput(self.path, chosen, origin, self.layout)

    def _check_path(self, path: Path) -> None:
        from ...audio.reader import AUDIO_SUFFIXES

        for each in (path, Path(os.path.realpath(path))):
            if each.suffix.lower() in AUDIO_SUFFIXES:
                refuse(f"--output {path}: has a recording's name; give it another suffix")
        if self.formats[0].is_of_lines:
            return
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            refuse(f"--output {path}: cannot be written; make its folder, or name another")
        if not self.overwrite and os.path.isfile(path):
            refuse(f"--output {path}: is there already; name another file, or --overwrite it")


def recognizer_output(
    path: Path | None,
    folder: Path | None,
    formats: Sequence[str] | None,
    overwrite: bool,
    layout: Mapping[str, Any],
    arguments: Sequence[str],
) -> Output:
    """Destination of transcriptions.

    Args:
        path, folder, formats, overwrite: --output, --output-dir, --format and --overwrite.
        layout: arguments of `Transcription.to_srt`; those that are None are left out.
        arguments: files, folders and globs that the call names.
    """
    given = {name: value for name, value in layout.items() if value is not None}
    return Output(path, parse_formats(formats), overwrite, folder, given, tuple(_roots(arguments)))


def classifier_output(path: Path | None, formats: Sequence[str] | None, overwrite: bool) -> Output:
    """Destination of classifications, which are lines."""
    output = Output(path, parse_formats(formats), overwrite)
    for chosen in output.formats:
        if not chosen.is_of_lines:
            refuse(f"{output.label}: labels have no {chosen}; --format text or jsonl, or another suffix")
    return output


def _roots(arguments: Sequence[str]) -> Iterator[Path]:
    """Folders that arguments name, and those before the first wildcard of globs."""
    for argument in arguments:
        if os.path.isdir(argument):
            yield Path(argument)
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            parts = takewhile(lambda part: not glob.has_magic(part), Path(argument).parts)
            yield Path(*parts)
