"""End of the engines of a process that exits: Python stops daemon threads anywhere, within a step too."""

import atexit
import threading
import time
import weakref
from typing import Protocol

_THREAD_NAMES = ("tritone-loop", "tritone-read-")


class _Closing(Protocol):
    """Worker of an engine, as far as its end is concerned."""

    @property
    def close_timeout(self) -> float: ...
    def release(self, cancel: bool = False) -> None: ...
    def close(self, cancel: bool, grace: float | None = None) -> None: ...


_workers: "weakref.WeakSet[_Closing]" = weakref.WeakSet()


def close_at_exit(worker: _Closing) -> None:
    """Let a worker that still runs when the process exits be closed then."""
    _workers.add(worker)


def _close_all() -> None:
    """Cancel all requests and end all threads."""
    workers = tuple(_workers)
    for worker in workers:
        worker.release(cancel=True)
    end = time.monotonic() + max([worker.close_timeout for worker in workers], default=0.0)
    for worker in workers:
        worker.close(cancel=True, grace=max(end - time.monotonic(), 0.0))
    # A thread may still be taking an engine apart that nothing refers to any more. Stopped in the midst of
    # freeing tensors, it would abort the process.
    end = max(end, time.monotonic() + 1.0)
    for thread in threading.enumerate():
        if thread.name.startswith(_THREAD_NAMES) and thread is not threading.current_thread():
            thread.join(max(end - time.monotonic(), 0.0))


atexit.register(_close_all)
