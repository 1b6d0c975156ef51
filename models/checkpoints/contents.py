"""Checks of a checkpoint's files before they are read: rights, size, pointers in their place; JSON."""

import json
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 64 * 2**20  # weight maps and vocabularies take a few megabytes at most
# Bounds on the memory of a parsed JSON file; the largest vocabularies have about a tenth of each.
MAX_JSON_CONTAINERS = 2_000_000
MAX_JSON_VALUES = 8_000_000
_POINTERS = {
    b"version https://git-lfs.github.com/spec/": ("Git LFS", "git lfs pull"),
    b"version https://hawser.github.com/spec/": ("Git LFS", "git lfs pull"),
    b"/annex/objects/": ("git-annex", "git annex get"),
}


def check_file(path: Path, limit: int | None = None) -> None:
    """Check that a file can be read, and is no pointer or web page in the place of the file.

    Args:
        path: path of the file.
        limit: most bytes of the file; None for any number.

    Raises:
        OSError: no such file, or no rights to read it.
        ValueError: a file of more than `limit` bytes, a Git LFS pointer, or a web page.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(256)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path.parent} has no {path.name}; it is not a complete checkpoint"
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None
    if (other := stand_in(start)) is not None:
        raise ValueError(f"{path} is {other}")
    if limit is not None and size > limit:
        raise ValueError(f"{path} has {size} bytes, more than the {limit} that are read")


def stand_in(start: bytes) -> str | None:
    """Description of a pointer or web page in the place of a file, by its start; None for another."""
    for prefix, (kind, command) in _POINTERS.items():
        if start.startswith(prefix):
            return f"a {kind} pointer, not the file itself; fetch that with `{command}`"
    beginning = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if beginning.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, perhaps an error in place of the file; fetch it again"
    return None


def unreadable(path: Path, error: OSError) -> OSError:
    """Error of the same class as `error`, with the file, the reason and the remedy."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return type(error)(f"{path} cannot be read: {reason}; check the file and its rights")


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file, in UTF-8 or another encoding of Unicode.

    Where a name is there twice the last one counts, as in transformers, with a warning.

    Raises:
        OSError: no such file, or no rights to read it.
        ValueError: not a JSON object, or larger than `MAX_JSON_BYTES`.
    """
    check_file(path, MAX_JSON_BYTES)
    data = path.read_bytes()
    if not data.strip():
        raise ValueError(f"{path} is not JSON: it is empty; fetch it again")
    containers, values = data.count(b"[") + data.count(b"{"), data.count(b",")
    if containers > MAX_JSON_CONTAINERS or values > MAX_JSON_VALUES:
        raise ValueError(
            f"{path} has about {containers} lists and objects with {values} values, and "
            f"{MAX_JSON_CONTAINERS} and {MAX_JSON_VALUES} are the most that are read"
        )
    repeated: set[str] = set()

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            repeated.update(name for name, count in counts.items() if count > 1)
        return content

    try:
        value = json.loads(data, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError(f"{path} is not JSON that can be read: it is nested too deeply") from None
    except ValueError as error:
        reason = str(error)
        if "int_max_str_digits" in reason:  # Python's advice to raise its limit is not for users
            reason = "a number has thousands of digits"
        raise ValueError(f"{path} is not JSON: {reason}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, it holds a {type(value).__name__}")
    if repeated:
        shown = ", ".join(sorted(repeated)[:4])
        warnings.warn(f"{path} has a name twice, and the last value counts: {shown}", stacklevel=2)
    return value
