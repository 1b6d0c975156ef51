"""Access to a checkpoint's files, in a folder or in a repository on the Hub."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .contents import read_json, unreadable

# Arguments of `hub.HubCheckpoint`, which documents them.
HUB_OPTIONS = (
    *("cache_dir", "force_download", "local_files_only", "proxies", "resume_download", "revision", "token"),
)
_HUB_ID = re.compile(r"(?!.*(\.\.|--))\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)


class Checkpoint:
    """Files of one checkpoint by name, in a local folder; base class of `hub.HubCheckpoint`."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self.name = name
        self.folder = folder

    def __str__(self) -> str:
        return self.name

    @property
    def own_name(self) -> str:
        """Name of the checkpoint without its parent folders."""
        return self.name if self.folder is None else self.folder.resolve().name

    def find(self, filename: str) -> Path | None:
        """Path of a file; None where the checkpoint does not have it.

        Raises:
            OSError: a folder, a broken link or a pipe is in the place of the file, or there are no rights.
        """
        path = None if self.folder is None else self.folder / filename
        if path is None:
            return None
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(path, error) from None
        if not path.is_file():
            kind = "folder" if path.is_dir() else "link to nowhere" if path.is_symlink() else "device or pipe"
            raise FileNotFoundError(f"{path} is a {kind}, not a file; put the file in its place")
        return path

    def has(self, filename: str) -> bool:
        """True where the checkpoint has a file, without fetching it."""
        return self.find(filename) is not None

    def require(self, filename: str) -> Path:
        """Path of a file that the checkpoint must have.

        Raises:
            OSError: the checkpoint does not have it (FileNotFoundError), or the Hub does not answer.
        """
        path = self.find(filename)
        if path is None:
            raise self.lacks(filename)
        return path

    def lacks(self, what: str, remedy: str = "it is not a complete checkpoint") -> OSError:
        """Error to raise for a file that the checkpoint does not have."""
        return FileNotFoundError(f"{self} has no {what}; {remedy}")


def open_checkpoint(
    name_or_dir: str | os.PathLike[str] | Checkpoint, **kwargs: Any
) -> tuple[Checkpoint, dict[str, Any]]:
    """Open a checkpoint; returns it and the `kwargs` that are not options for finding its files.

    Args:
        name_or_dir: a folder, the id of a repository on the Hub, or an opened checkpoint.
        **kwargs: arguments of `HUB_OPTIONS`, `trust_remote_code`, and others, which are returned.

    Raises:
        FileNotFoundError: neither a folder nor the id of a repository.
        ValueError: `trust_remote_code=True`.
    """
    refuse_remote_code(kwargs)
    hub = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
    if isinstance(name_or_dir, Checkpoint):
        return name_or_dir, kwargs
    path = Path(name_or_dir).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise unreadable(path, error) from None
    if exists:
        from .originals import open_original

        if (original := open_original(name_or_dir, path)) is not None:
            return original, kwargs
    if is_folder:
        return Checkpoint(os.fspath(name_or_dir), path), kwargs
    if isinstance(name_or_dir, str) and _HUB_ID.fullmatch(name_or_dir) and not exists:
        from .hub import HubCheckpoint

        return HubCheckpoint(name_or_dir, **hub), kwargs
    problem = "it is a file" if exists else "it does not exist"
    raise FileNotFoundError(
        f"no checkpoint folder {os.fspath(name_or_dir)!r}: {problem}; give the path of a folder that holds "
        "config.json and weights, or the id of a repository on the Hub"
    )


def refuse_remote_code(kwargs: dict[str, Any]) -> None:
    """Remove `trust_remote_code` from keyword arguments, and refuse it if set.

    Raises:
        ValueError: it is set.
    """
    if kwargs.pop("trust_remote_code", None):
        raise ValueError(
            "trust_remote_code=True is refused: no code out of a checkpoint is run; leave it out"
        )


def single_file(name_or_dir: str | os.PathLike[str] | Checkpoint) -> Path | None:
    """Path of a file that is given in place of a checkpoint; None for a checkpoint, such as openai's .pt."""
    if isinstance(name_or_dir, Checkpoint):
        return None
    path = Path(name_or_dir).expanduser()
    try:
        return path if path.is_file() and path.suffix != ".pt" else None
    except OSError as error:
        raise unreadable(path, error) from None


def write_json(path: Path, content: dict[str, Any]) -> str:
    """Write a JSON object to a file; returns the file's path as text."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return str(path)


def find_shards(checkpoint: Checkpoint, index: Path) -> Iterator[tuple[Path, set[str]]]:
    """Path of each weight shard that an index file names, with the names of the tensors in it.

    Raises:
        FileNotFoundError: the checkpoint lacks a shard.
        ValueError: a broken index, or a shard outside the checkpoint's folder.
    """
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise ValueError(f"{index} must hold weight_map, an object of file names; fetch it again")
    names: dict[str, set[str]] = defaultdict(set)
    for name, shard in weight_map.items():
        names[shard].add(name)
    for shard in sorted(names):
        if not re.fullmatch(r"\w[\w.-]{0,254}", shard):  # no file system has longer names
            raise ValueError(f"{index} names a shard outside its folder: {shard[:255]!r}")
        if (path := checkpoint.find(shard)) is None:
            raise checkpoint.lacks(f"{shard}, which its index names", "fetch it again")
        yield path, names[shard]


def add_shard(tensors: dict[str, Any], shard: dict[str, Any], index: Path) -> None:
    """Add a shard's tensors to `tensors`; ValueError for a name that an earlier shard had."""
    if both := tensors.keys() & shard.keys():
        raise ValueError(f"{index} leads to several values of {min(both)!r}; fetch it again")
    tensors |= shard
