"""Says where tensors lie in an HDF5 file: a script that `tensorflow_h5` runs, with h5py and nothing of ours.

HDF5's library is C that takes much of a file on trust: a damaged one may end the process, or take time and
memory without end. That then happens to this process, which has limits of both and holds nothing of value.

It reads a JSON object from standard input, `main` says which, and writes one: {"tensors": [[name, dtype,
shape, offset, bytes], ...]}, or {"damaged": why}, or {"refused": why}.
"""

import contextlib
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

_MOST_DEPTH = 32  # of groups in groups; models have about fifteen
_MOST_MEMORY = 2**30  # bytes, beyond what the process has with all that it imports
_MOST_SECONDS = 20  # of computing


class Damaged(Exception):
    """What no writer of HDF5 writes."""


class Refused(Exception):
    """What is not damaged and not read either."""


def rows(path: str, most: int) -> list[list[Any]]:
    """Name, dtype, shape, offset and size in bytes of every tensor.

    Args:
        path: of the file.
        most: names that the file may have, those of groups too.

    Raises:
        Damaged, Refused: as they say.
        Exception: whatever h5py raises.
    """
    import h5py

    found: list[list[Any]] = []
    visited: set[int] = set()
    count = 0

    def names(group: Any) -> list[str]:
        """The names in a group: a list as long as its tree says has no bound, so this ends at one."""
        listed: list[bytes] = []

        def counted(name: bytes) -> bool | None:
            nonlocal count
            count += 1
            listed.append(name)
            return True if count > most else None

        group.id.links.iterate(counted, order=h5py.h5.ITER_NATIVE)
        if count > most:
            raise Damaged(f"it has over {most} names")
        return [name.decode() for name in listed]

    def read_group(group: Any, prefix: str, depth: int) -> None:
        address = h5py.h5o.get_info(group.id).addr
        if depth > _MOST_DEPTH or address in visited:
            raise Damaged(f"its groups are nested over {_MOST_DEPTH} deep, or one in several")
        visited.add(address)
        for key in names(group):
            name = prefix + key
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise Refused(f"{_short(name)} is a link and no tensor; links are not followed")
            item = group.get(key)
            if isinstance(item, h5py.Group):
                read_group(item, f"{name}/", depth + 1)
            elif isinstance(item, h5py.Dataset):
                found.append([name, *place(item, name)])
            else:
                raise Damaged(f"{_short(name)} is neither a group nor a tensor")

    def place(item: Any, name: str) -> tuple[str, list[int], int, int]:
        dtype, shape = item.dtype, item.shape
        if shape is None or dtype.kind not in "fiub" or (dtype.itemsize > 1 and dtype.str[0] == ">"):
            raise Refused(f"{_short(name)} is no little-endian array of numbers but {str(dtype)[:40]}")
        if item.is_virtual or item.external:
            raise Refused(_elsewhere(name))
        if 0 in shape:
            return dtype.name, list(shape), 0, 0
        offset, stored = item.id.get_offset(), item.id.get_storage_size()
        if offset is None:
            raise Refused(_elsewhere(name))
        return dtype.name, list(shape), offset, stored

    with h5py.File(path, "r") as content:
        read_group(content, "", 0)
    return found


def _elsewhere(name: str) -> str:
    return (
        f"{_short(name)} does not lie in the file in one piece, not compressed; "
        "write it again as Keras' save_weights does"
    )


def _short(name: str) -> str:
    return repr(name) if len(name) <= 100 else f"{name[:40]!r}..."


def answer(path: str, most: int) -> dict[str, Any]:
    """What `main` writes."""
    try:
        return {"tensors": rows(path, most)}
    except Refused as error:
        return {"refused": str(error)}
    except MemoryError:
        return {"damaged": "it asks for more memory than there is"}
    except Exception as error:  # h5py gives the library's own in many kinds
        return {"damaged": next(iter(str(error).splitlines()), type(error).__name__)[:300]}


def limit() -> None:
    """Let this process have no more than `_MOST_MEMORY` and `_MOST_SECONDS`, where the system has limits."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = [(resource.RLIMIT_CPU, math.ceil(time.process_time()) + _MOST_SECONDS)]
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        pages = int(statistics.read_text().split()[0])
        limits.append((resource.RLIMIT_AS, pages * resource.getpagesize() + _MOST_MEMORY))
    limits.append((resource.RLIMIT_CORE, 0))
    for kind, most in limits:
        hard = resource.getrlimit(kind)[1]
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def main() -> None:
    """Answer one request: {"path": of the file, "most": names, "import_from": where modules lie}."""
    request = json.load(sys.stdin)
    sys.path[:] = request["import_from"]
    import h5py  # noqa: F401 - before the limits

    limit()
    json.dump(answer(request["path"], request["most"]), sys.stdout)


if __name__ == "__main__":
    main()
