"""Search for recordings: files, folders and globs to a list of paths."""

import errno
import fnmatch
import glob
import heapq
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from .errors import AudioError
from .formats import AUDIO_SUFFIXES
from .paths import is_address, path_problem

_FolderId = tuple[int, int]  # device and inode
_Pattern = tuple[str, ...]  # components of a glob
_ALL: _Pattern = ("**",)  # everything below a folder


class Found(NamedTuple):
    """Path of a recording, or of a file or folder with a problem."""

    path: Path
    problem: AudioError | None = None


def find_audio(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List the recordings at the given paths, each once; in folders and globs, files with an audio suffix.

    Folders are searched recursively and sorted, without hidden files; folders behind symbolic links too, each
    real folder once. An existing path is never a glob.

    Raises:
        AudioError: a path that is empty, does not exist or is an address, a folder that cannot be listed, or
            a folder or glob without any recording.
    """
    search = AudioSearch()
    found: dict[Path, None] = {}
    for given in paths:
        for path, problem in search.find(given):
            if problem is not None:
                raise problem
            found[path] = None
    return list(found)


class AudioSearch:
    """Search for recordings in which a folder with several names, through links, keeps its first name.

    Attributes:
        others: number of files that folders and globs had and that were left out, by their suffix.
    """

    def __init__(self) -> None:
        self.others = 0
        self._names: dict[_FolderId, str] = {}

    def find(self, given: str | os.PathLike[str]) -> Iterator[Found]:
        """Yield the recordings at a path as `find_audio` does; a problem takes the place of its path."""
        name = os.fsdecode(given)
        try:
            is_folder = stat.S_ISDIR(os.stat(name).st_mode)
        except (OSError, ValueError) as error:
            if not glob.has_magic(name) or os.path.lexists(name):
                shown = str(Path(name)) if name else ""
                yield Found(Path(name), AudioError(path_problem(shown, error)))
                return
            walk, start = _Walk(self._names), _split(name)
        else:
            if not is_folder:
                yield Found(Path(name))
                return
            walk, start = _Walk(self._names), (name, _ALL)
        found = walk.run(*start)
        self.others += walk.others
        if not found:
            message = (
                f"{name}: no audio files there; looked for .wav, .mp3, .m4a and {len(AUDIO_SUFFIXES) - 3} "
                "more suffixes. Name files of others themselves"
            )
            if is_address(name):
                message = path_problem(name, FileNotFoundError(errno.ENOENT, ""))
            found.append((name, message))
        # As paths compare: the content of a folder stands where its name does.
        found.sort(key=lambda item: item[0].split(os.sep))
        for path, problem in found:
            yield Found(Path(path), None if problem is None else AudioError(problem))


class _Walk:
    """Walk from one folder through all those that a pattern leads to, each real folder once.

    Folders behind links come last, in the order of their names: a folder's name depends neither on the order
    in which a disk lists its names, nor on a link that is made later.
    """

    def __init__(self, names: dict[_FolderId, str]) -> None:
        self.others = 0
        self._names = names  # first name of each folder in the whole search
        self._seen: set[tuple[_FolderId, _Pattern]] = set()
        self._pending: list[tuple[bool, str, _Pattern]] = []  # a heap: link or not, folder, pattern
        self._found: list[tuple[str, str | None]] = []  # paths, and the messages of those with a problem

    def run(self, start: str, pattern: _Pattern) -> list[tuple[str, str | None]]:
        """Paths that match the pattern below a folder, unsorted, with None or the message of a problem."""
        self._pending.append((False, start, pattern))
        while self._pending:
            _, folder, parts = heapq.heappop(self._pending)
            try:
                status = os.stat(folder or os.curdir)
                identity = (status.st_dev, status.st_ino)
                if (identity, parts) not in self._seen:
                    self._seen.add((identity, parts))
                    self._visit(self._names.setdefault(identity, folder), parts[0], parts[1:])
            except (OSError, ValueError) as error:
                self._fail(folder or os.curdir, error)
        return self._found

    def _visit(self, folder: str, part: str, rest: _Pattern) -> None:
        """Follow the first component of a pattern in a folder."""
        if part == "**":
            if rest:
                self._push(False, folder, rest)
            self._list(folder, re.compile("").match, rest, (part, *rest), with_hidden=not rest)
        elif glob.has_magic(part):
            matches = re.compile(fnmatch.translate(part)).match
            self._list(folder, matches, rest, rest or _ALL, with_hidden=part.startswith("."))
        else:
            path = os.path.join(folder, part)
            if os.path.isdir(path):
                self._push(os.path.islink(path), path, rest or _ALL)
            elif not rest and _is_audio(path) and os.path.lexists(path):
                self._found.append((path, None))
            else:
                self._check(path)

    def _list(
        self,
        folder: str,
        matches: Callable[[str], object],
        rest: _Pattern,
        below: _Pattern,  # pattern of subfolders
        with_hidden: bool,
    ) -> None:
        # One entry at a time: a folder may hold millions of files of other kinds.
        with os.scandir(folder or os.curdir) as entries:
            for entry in entries:
                if (entry.name.startswith(".") and not with_hidden) or not matches(entry.name):
                    continue
                path = os.path.join(folder, entry.name)
                if _is_folder(entry):
                    self._push(entry.is_symlink(), path, below)
                elif _is_audio(path):
                    if not rest:
                        self._found.append((path, None))
                elif entry.is_symlink() and "." not in entry.name:
                    # It may be the name of a folder, on a disk that is not mounted.
                    self._check(path, is_link=True)
                elif not rest:
                    self.others += 1

    def _push(self, is_link: bool, folder: str, pattern: _Pattern) -> None:
        heapq.heappush(self._pending, (is_link, folder, pattern))

    def _check(self, path: str, is_link: bool = False) -> None:
        """Record a path that cannot be followed; one that is not there is left out, unless it is a link."""
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            if is_link:
                self._fail(path, error)
        except OSError as error:
            self._fail(path, error)

    def _fail(self, path: str, error: OSError | ValueError) -> None:
        self._found.append((path, path_problem(path, error)))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to what cannot be reached
        return False


def _split(pattern: str) -> tuple[str, _Pattern]:
    """Split a glob into the folder that it starts from and its components."""
    anchor = Path(pattern).anchor
    parts = [part for part in Path(pattern).parts if part != anchor]
    # A separator at the end stands for folders alone, with all that is in them.
    return anchor, (*parts, *_ALL) if pattern.endswith(os.sep) else tuple(parts)


def _is_audio(path: str) -> bool:
    # macOS leaves "._recording.wav" beside each recording on foreign disks.
    name = os.path.basename(path)
    return Path(name).suffix.lower() in AUDIO_SUFFIXES and not name.startswith(".")
