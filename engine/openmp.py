"""OpenMP threads of torch's CPU operations: how many a thread starts, and their release."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

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


@contextmanager
def one_core() -> Iterator[None]:
    """Context in which operations of the calling thread use one core, where torch's library is libgomp.

    For many short operations beside other threads' work, in each of which several cores would wait for each
    other. torch's own setting is the whole process's.
    """
    usual, library = torch.get_num_threads(), _libgomp()  # the first sets a new thread's number
    if library is None or usual == 1:
        yield
        return
    library.omp_set_num_threads(1)
    try:
        yield
    finally:
        library.omp_set_num_threads(usual)


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
