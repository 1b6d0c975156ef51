"""Wake-up of threads and tasks that wait, without a lock that an interrupt could leave locked."""

import threading
import time
from asyncio import AbstractEventLoop, Future, get_running_loop
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakKeyDictionary, ref


class Signal:
    """Signal on which threads and tasks wait for a condition, as on a `threading.Condition` without its lock.

    A Ctrl-C that arrives in the midst of a Condition's own Python code can leave its lock locked, and garbage
    collection can call it from a thread that holds the lock. Here each waiting thread has a lock of its own,
    which any thread unlocks, so `notify` never waits. A task waits on a future of its event loop instead.
    """

    def __init__(self) -> None:
        self._waiters: list[threading.Lock | _LoopWaiter] = []

    def notify(self) -> None:
        """Wake one waiting thread, which passes the signal on if it needs none; only where no task waits."""
        for waiter in tuple(self._waiters):
            if _unlock(waiter):
                return

    def notify_all(self) -> None:
        """Wake all waiting threads and tasks."""
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

    async def wait_in_loop(self, condition: Callable[[], object]) -> None:
        """Wait in a task until the condition holds, a cheap function that is called after each signal."""
        if condition():
            return
        waiter = _LoopWaiter(_wake_ups())
        self._waiters.append(waiter)  # before the condition is checked, so that no signal is missed
        try:
            while not condition():
                await waiter.acquire()
        finally:
            self._waiters.remove(waiter)


class _WakeUps:
    """Wake-ups of an event loop by other threads: many at a time cost the loop one."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = ref(loop)  # of which these are a value in a weak dictionary
        self._woken = deque[_LoopWaiter]()
        self._is_called = False

    def add(self, waiter: "_LoopWaiter") -> None:
        """Let a waiter of the loop go on; may be called from any thread."""
        self._woken.append(waiter)
        loop = self._loop()
        if not self._is_called and loop is not None:
            self._is_called = True
            with suppress(RuntimeError):  # the loop is closed, and its tasks with it
                loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._is_called = False  # first: a waiter that is added from now on may be missed below
        while self._woken:
            self._woken.popleft().wake()


_all_wake_ups: WeakKeyDictionary[AbstractEventLoop, _WakeUps] = WeakKeyDictionary()


def _wake_ups() -> _WakeUps:
    """Wake-ups of the running event loop."""
    loop = get_running_loop()
    if (found := _all_wake_ups.get(loop)) is None:
        found = _all_wake_ups[loop] = _WakeUps(loop)
    return found


class _LoopWaiter:
    """Counterpart of a waiting thread's lock for a task, which awaits `acquire`."""

    def __init__(self, wake_ups: _WakeUps) -> None:
        self._wake_ups = wake_ups
        self._is_locked = True
        self._future: Future[None] | None = None  # of a task that waits now

    def release(self) -> None:
        """Unlock, from any thread. Raises RuntimeError where it is unlocked already."""
        if not self._is_locked:
            raise RuntimeError("released already")
        self._is_locked = False
        self._wake_ups.add(self)

    async def acquire(self) -> None:
        """Wait until another thread unlocks, and lock again."""
        if self._is_locked:
            self._future = get_running_loop().create_future()
            try:
                await self._future
            finally:
                self._future = None
        self._is_locked = True

    def wake(self) -> None:
        """Wake the task, if it still waits; called by the event loop."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


def _unlock(waiter: "threading.Lock | _LoopWaiter") -> bool:
    """Unlock a waiter's lock; False where another signal has done so."""
    try:
        waiter.release()
    except RuntimeError:
        return False
    return True
