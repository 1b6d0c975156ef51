"""Files of journals in a folder: their names, and their removal. Imports no torch."""

import hashlib
import os
import re
from pathlib import Path

SUFFIX = ".windows"
_MAX_NAME = 100  # characters of a recording's name in that of its journal


def journal_path(folder: Path, recording: str | os.PathLike[str], channel: int | None = None) -> Path:
    """Path of a recording's journal in a folder of them, of one channel or of all mixed."""
    path = os.path.abspath(os.path.expanduser(recording))
    digest = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
    name = re.sub(r"[^\w.-]", "_", os.path.basename(path), flags=re.ASCII)[:_MAX_NAME]
    return folder / f"{name}-{digest}{'' if channel is None else f'.{channel}'}{SUFFIX}"


def remove_journals(folder: Path, recording: str | os.PathLike[str] | None = None) -> None:
    """Remove a recording's journals from a folder, by default all, and the folder once it is empty."""
    first = "" if recording is None else journal_path(folder, recording).name.removesuffix(SUFFIX)
    try:
        for path in folder.iterdir():
            # The digest ends the name: a longer one is of a channel.
            if path.name.startswith(first) and path.name.endswith(SUFFIX):
                path.unlink()
        folder.rmdir()
    except OSError:  # it is not there, has other files, or cannot be written: a journal is no result
        pass
