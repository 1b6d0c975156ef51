"""Release of OpenMP threads that torch's CPU operations have started."""

import ctypes
from functools import cache
from pathlib import Path

_SOFT = 1  # omp_pause_soft


def release_team() -> None:
    """Release the OpenMP thread team of the calling thread; its next operation starts a new one.

    libgomp keeps a team for every thread that has run an operation on several cores. Where all teams together
    have more threads than there are processors, a worker sleeps after an operation instead of waiting for the
    next in a short spin. The engine's thread then waits for a wake-up per operation because of idle teams,
    such as that of the thread that loaded the model: 1.5 times the time on two processors.
    """
    library = _libgomp()
    if library is not None:
        library.omp_pause_resource_all(_SOFT)


@cache
def _libgomp() -> ctypes.CDLL | None:
    """GNU OpenMP library that torch has loaded; None where torch uses another, or /proc is missing."""
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
