"""The OpenMP threads behind torch's operations on the CPU."""

import ctypes
from functools import cache
from pathlib import Path

_SOFT = 1  # omp_pause_soft


def release_team() -> None:
    """Let go of the OpenMP threads that the calling thread keeps for its next operation, which gets new ones.

    libgomp keeps a team for every thread that has ever run an operation on several, and where all of them
    together are more than the processors, each one sleeps after an operation instead of waiting for the next
    for a moment. The engine's thread then waits a wake-up per operation because of teams with nothing to do,
    as that of the thread that loaded the model: on two processors it took 1.5 times as long.
    """
    library = _libgomp()
    if library is not None:
        library.omp_pause_resource_all(_SOFT)


@cache
def _libgomp() -> ctypes.CDLL | None:
    """The library that torch has loaded; None where it uses another, or the system says nothing."""
    try:
        loaded = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    paths = {line.split()[-1] for line in loaded if "libgomp" in line}
    try:
        library = ctypes.CDLL(paths.pop()) if len(paths) == 1 else None
    except OSError:
        return None
    return library if hasattr(library, "omp_pause_resource_all") else None
