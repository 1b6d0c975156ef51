"""Folders of results: a file for each recording and format, which a later run completes."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Self

from ...outputs import Transcription
from .append_file import AppendFile, replace_whole
from .file_names import plan_names
from .formats import Format, document
from .lines import Name, Origin, Result, encoded, name_text

INDEX = ".tritone-results"  # without a format's suffix, so that no result has this name
_HEADER = "# tritone "


class _Entry(NamedTuple):
    """Recording in the index."""

    channels: int | None  # that have files of their own; None where they are mixed
    formats: frozenset[Format]


_NOTHING = _Entry(None, frozenset())


class ResultsFolder:
    """Folder of results, with a file for each recording and format; an existing folder is completed.

    A hidden index file has the origin of all results in its first line, then a line for each recording with
    the name of its files. The line is written before them, and each file in one step under its final name, so
    after a kill at any moment every file is whole and known. Files that are not in the index are left alone.

    Args:
        folder: path of the folder, which is made where it does not exist.
        formats: formats to write.
        origin: model and options that the results come from.
        paths: recordings of this run, each once.
        roots: folders that the call names, whose structure is kept.
        layout: arguments of `Transcription.to_srt`.
        overwrite: True writes over whatever files have the names of results.

    Raises:
        ValueError: the results there are of another model or options, another run is writing them, or a file
            that is no result has the name of one.
        OSError: the folder cannot be read or written.
    """

    def __init__(
        self,
        folder: Path,
        formats: Sequence[Format],
        origin: Origin,
        paths: Sequence[Path],
        *,
        roots: Sequence[Path] = (),
        layout: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        self._folder = folder
        self._formats = formats
        self._origin = origin
        self._layout = dict(layout or {})
        self._overwrite = overwrite
        self._known: dict[Path, _Entry] = {}  # recordings in the index
        self._is_split = origin.options.get("channels") == "split"
        names: dict[Path, str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as resources:
            self._index = AppendFile(folder / INDEX)
            resources.callback(self._index.close)
            if not overwrite:
                names = self._read()
            self._names = plan_names(paths, roots, names)
            self._done = {path for path in paths if self._is_complete(path)}
            self._refuse_foreign(paths)
            resources.pop_all()

    @property
    def count(self) -> int:
        """Number of recordings of this run whose files were all there when the folder was opened."""
        return len(self._done)

    def has(self, name: Name) -> bool:
        """Check whether all files of a recording were there when the folder was opened."""
        return name in self._done

    def failed(self, name: Name) -> bool:
        """Check whether a recording failed in an earlier run, which a folder does not tell."""
        return False

    def begin(self, names: Iterable[Name]) -> None:
        """Cut a torn line from the index, or with `overwrite` all of it."""
        self._index.cut()
        if not self._index.end:
            self._append(_HEADER + json.dumps(asdict(self._origin), ensure_ascii=False, allow_nan=False))

    def write(self, name: Name, *results: Result, reference: str | None = None) -> None:
        """Write the files of a recording that are not there yet; a failure has none.

        Raises:
            OSError: the disk is full, a file that is no result has the name of one, or the index was deleted,
                replaced or changed.
        """
        assert isinstance(name, Path)
        good = [result for result in results if result.error is None]
        if not good:
            return
        before = self._known.get(name, _NOTHING)
        known = _Entry(len(results) if self._is_split else None, before.formats | set(self._formats))
        if known != before:
            record = {"path": name_text(name), "name": name_text(Path(self._names[name]))}
            formats = [one for one in Format if one in known.formats]
            self._append(json.dumps(record | {"formats": formats, "channels": known.channels}))
            self._known[name] = known
        for result in good:
            assert isinstance(result, Transcription)
            for each in self._formats:
                path = self._file(name, each, result.channel)
                is_ours = each in before.formats
                if is_ours and _is_whole(path):
                    continue
                if not (is_ours or self._overwrite) and os.path.lexists(path):
                    raise FileExistsError(_foreign(path))
                path.parent.mkdir(parents=True, exist_ok=True)
                content = document(each, name, result, self._origin, self._layout, len(results), reference)
                replace_whole(path, encoded(content))

    def finish(self) -> None:
        """Check that the index is whole and on its disk. Raises OSError as `write` does."""
        self._index.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()

    def _append(self, line: str) -> None:
        self._index.append(encoded(line) + b"\n")

    def _file(self, path: Path, chosen: Format, channel: int | None) -> Path:
        """Path of a recording's file."""
        part = "" if channel is None else f".channel{channel}"
        return self._folder / f"{self._names[path]}{part}{chosen.suffix}"

    def _files(self, path: Path, formats: Iterable[Format]) -> Iterator[Path]:
        """Paths of a recording's files; where its channels are not known, those of the first."""
        channels = self._known.get(path, _NOTHING).channels or (1 if self._is_split else None)
        for channel in (None,) if channels is None else range(channels):
            for each in formats:
                yield self._file(path, each, channel)

    def _is_complete(self, path: Path) -> bool:
        formats = self._known.get(path, _NOTHING).formats
        return formats.issuperset(self._formats) and all(map(_is_whole, self._files(path, self._formats)))

    def _refuse_foreign(self, paths: Sequence[Path]) -> None:
        """Raise ValueError where a file that is no result, or a recording, has the name of a result."""
        there: list[Path] = []
        for path in paths:
            new = set(self._formats) - self._known.get(path, _NOTHING).formats
            there += filter(os.path.lexists, self._files(path, new))
        if there and not self._overwrite:
            raise ValueError(_foreign(there[0]))
        recordings = {_identity(path) for path in paths} - {None} if there else set()
        for file in there:
            if _identity(file) in recordings:
                raise ValueError(f"{file}: is one of the recordings; name another folder")

    def _read(self) -> dict[Path, str]:
        """Read the names that the index has, and the byte at which its last complete line ends."""
        names: dict[Path, str] = {}
        for number, line in enumerate(self._index.lines(), 1):
            if not line.endswith(b"\n"):
                break  # torn
            try:
                if number == 1:
                    if not line.startswith(_HEADER.encode()):
                        raise ValueError("no header")
                    origin = Origin(**json.loads(line[len(_HEADER) :]))
                else:
                    path, name, entry = _parse(line)
                    names[path], self._known[path] = name, entry
            except (ValueError, TypeError, LookupError, RecursionError):
                raise ValueError(
                    f"{self._index.path}: line {number} is not one that tritone writes; name another folder, "
                    "or --overwrite its results"
                ) from None
            if number == 1 and origin != self._origin:
                raise ValueError(
                    f"{self._folder}: made with {origin}, but this call has {self._origin}; give the same, "
                    "name another folder, or --overwrite its results"
                )
            self._index.end += len(line)
        return names


def _is_whole(path: Path) -> bool:
    # No result is empty. After a power failure a file may be there whose content has not reached the disk.
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _parse(line: bytes) -> tuple[Path, str, _Entry]:
    """Path, name in the folder, and the rest of a line of the index."""
    record = json.loads(line)
    path, name, channels = _path(record["path"]), _path(record["name"]), record["channels"]
    if name.is_absolute() or ".." in name.parts:
        raise ValueError("a name outside the folder")
    formats = frozenset(map(Format, record["formats"]))
    return path, os.fspath(name), _Entry(None if channels is None else int(channels), formats)


def _path(text: str) -> Path:
    """Path of a text that `name_text` has made."""
    return Path(os.fsdecode(text.encode("utf-8", "surrogateescape")) if os.sep == "/" else text)


def _foreign(path: Path) -> str:
    return f"{path}: is there already and no result of tritone; name another folder, or --overwrite it"
