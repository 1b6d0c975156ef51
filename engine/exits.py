"""End of all engines' threads when the interpreter exits."""

import atexit
import threading
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .worker import Worker

_THREAD_NAMES = ("tritone-loop", "tritone-read-")
_workers: "weakref.WeakKeyDictionary[Worker, float]" = weakref.WeakKeyDictionary()


def close_at_exit(worker: "Worker", seconds: float) -> None:
    """Close a worker when the interpreter exits, if it is still there, and wait so long for its threads."""
    _workers[worker] = seconds


def _close_all() -> None:
    """Cancel all requests and end all threads: Python stops daemon threads anywhere, also within a step."""
    workers = dict(_workers)
    for worker in workers:
        worker.release(cancel=True)
    end = time.monotonic() + max(workers.values(), default=0.0)
    for worker in workers:
        worker.close(cancel=True, grace=max(end - time.monotonic(), 0.0))
    # A thread may still be taking an engine apart that nothing refers to any more. Stopped in the midst of
    # freeing tensors, it would abort the process.
    end = max(end, time.monotonic() + 1.0)
    for thread in threading.enumerate():
        if thread.name.startswith(_THREAD_NAMES) and thread is not threading.current_thread():
            thread.join(max(end - time.monotonic(), 0.0))


atexit.register(_close_all)
