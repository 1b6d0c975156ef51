"""Script that locates the tensors of an HDF5 file; `keras_h5` runs it, with h5py and no module of Tritone.

HDF5's C library trusts a file: a damaged one may end the process, or take time and memory without bound.
This process has limits of both, and its end harms no other.

Input is `main`'s JSON object on standard input; output is one of {"tensors": [[name, dtype, shape, offset,
bytes], ...]}, {"damaged": why} and {"refused": why}.
"""

import contextlib
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

MAX_DEPTH = 32  # of groups in groups; models have about fifteen
MAX_MEMORY = 2**30  # bytes on top of the process with its imports
MAX_SECONDS = 20  # of CPU time


class Damaged(Exception):
    """Error for a damaged file, which no HDF5 writer makes."""


class Refused(Exception):
    """Error for an undamaged file with data of an unsupported kind."""


def locate(path: str, max_names: int) -> list[list[Any]]:
    """Name, dtype, shape, offset and size in bytes of every tensor in an HDF5 file.

    Args:
        path: path of the file.
        max_names: largest number of names of tensors and groups.

    Raises:
        Damaged, Refused: the file is damaged, or has data of an unsupported kind.
        Exception: any error of h5py.
    """
    import h5py

    found: list[list[Any]] = []
    visited: set[int] = set()
    count = 0

    def names(group: Any) -> list[str]:
        """Names in a group, counted while listed, since a damaged group may list names without end."""
        listed: list[bytes] = []

        def counted(name: bytes) -> bool | None:
            nonlocal count
            count += 1
            listed.append(name)
            return True if count > max_names else None

        group.id.links.iterate(counted, order=h5py.h5.ITER_NATIVE)
        if count > max_names:
            raise Damaged(f"it has over {max_names} names")
        return [name.decode() for name in listed]

    def read_group(group: Any, prefix: str, depth: int) -> None:
        address = h5py.h5o.get_info(group.id).addr
        if depth > MAX_DEPTH or address in visited:
            raise Damaged(f"its groups are nested over {MAX_DEPTH} deep, or one in several")
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


def answer(path: str, max_names: int) -> dict[str, Any]:
    """Answer to a request, as `main` writes it: the file's tensors, or why they cannot be read."""
    try:
        return {"tensors": locate(path, max_names)}
    except Refused as error:
        return {"refused": str(error)}
    except MemoryError:
        return {"damaged": "it asks for more memory than there is"}
    except Exception as error:  # h5py raises the library's errors in many types
        return {"damaged": next(iter(str(error).splitlines()), type(error).__name__)[:300]}


def set_limits() -> None:
    """Limit this process to `MAX_MEMORY` and `MAX_SECONDS`, where the system supports it."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = [(resource.RLIMIT_CPU, math.ceil(time.process_time()) + MAX_SECONDS)]
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        pages = int(statistics.read_text().split()[0])
        limits.append((resource.RLIMIT_AS, pages * resource.getpagesize() + MAX_MEMORY))
    limits.append((resource.RLIMIT_CORE, 0))
    for kind, limit in limits:
        hard = resource.getrlimit(kind)[1]
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def main() -> None:
    """Answer a request from standard input: {"path": file, "max_names": bound, "import_from": folders}."""
    request = json.load(sys.stdin)
    sys.path[:] = request["import_from"]
    import h5py  # noqa: F401 - before the limits

    set_limits()
    json.dump(answer(request["path"], request["max_names"]), sys.stdout)


if __name__ == "__main__":
    main()
