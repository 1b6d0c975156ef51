"""Wake-up of threads that wait, without a lock that an interrupt could leave locked."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress


class Signal:
    """Signal on which threads wait for a condition, as on a `threading.Condition`, but without its lock.

    A Ctrl-C that arrives in the midst of a Condition's own Python code can leave its lock locked, and garbage
    collection can call it from a thread that holds the lock. Here each waiting thread has a lock of its own,
    which any thread unlocks, so `notify` never waits.
    """

    def __init__(self) -> None:
        self._waiters: list[threading.Lock] = []

    def notify(self) -> None:
        """Wake one waiting thread, which passes the signal on if it needs none."""
        for waiter in tuple(self._waiters):
            if _unlock(waiter):
                return

    def notify_all(self) -> None:
        """Wake all waiting threads."""
        for waiter in tuple(self._waiters):
            _unlock(waiter)

    def wait_for(self, condition: Callable[[], object], timeout: float | None = None) -> bool:
        """Wait until the condition holds, at most `timeout` seconds; False where it does not hold then.

        Args:
            condition: cheap function that takes no lock; called again after each signal.
            timeout: seconds; None waits without limit.
        """
        if condition():
            return True
        end = None if timeout is None else time.monotonic() + timeout
        waiter = threading.Lock()
        waiter.acquire()
        try:
            self._waiters.append(waiter)  # before the condition is checked, so that no signal is missed
            while not condition():
                left = -1.0 if end is None else min(max(end - time.monotonic(), 0), threading.TIMEOUT_MAX)
                if not waiter.acquire(timeout=left):
                    return bool(condition())
            return True
        finally:
            with suppress(ValueError):  # interrupted before it was added
                self._waiters.remove(waiter)
            if waiter.acquire(blocking=False):
                self.notify()


def _unlock(waiter: threading.Lock) -> bool:
    """Unlock a waiter's lock; False where another signal has done so."""
    try:
        waiter.release()
    except RuntimeError:
        return False
    return True
