"""Thread pool that runs the parts of a step in parallel, each on one core of a CPU."""

import atexit
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

from ...kernels.runtime.launch import interpreting
from ..config import RunnerConfig

Part = TypeVar("Part")
Result = TypeVar("Result")
_EXIT_SECONDS = 1.0  # of waiting for threads at the interpreter's exit
_Task = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


class CpuWorkerPool:
    """Thread pool for the parts of a step, whose torch operations use one core each.

    A single part uses one core too, since several cores might sum in another order. Sequences are
    independent, so the halves of a batch on two cores wait for each other only at the end of a step. Two
    threads in every operation would wait for each other hundreds of times a step, mostly for operations that
    are shorter than the wait.

    Threads are started when they are first needed. They hold only the queue of tasks, and end with the pool;
    unlike a ThreadPoolExecutor's they are daemons, so that the interpreter's exit waits for no step.

    Args:
        size: number of threads.
        switch_interval: seconds after which a waiting thread requests the interpreter lock.
    """

    def __init__(self, size: int, switch_interval: float = RunnerConfig.switch_interval) -> None:
        self.size = size
        self._switch_interval = switch_interval
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        weakref.finalize(self, _end_threads, self._tasks, self._threads).atexit = False
        _pools.add(self)

    @classmethod
    def for_device(
        cls, device: torch.device, switch_interval: float = RunnerConfig.switch_interval
    ) -> "CpuWorkerPool | None":
        """Create a pool with as many threads as torch uses per operation; None if that is one, or on a GPU.

        None also for Triton's interpreter, which runs one kernel at a time.
        """
        size = torch.get_num_threads()
        if device.type != "cpu" or size == 1 or interpreting():
            return None
        return cls(size, switch_interval)

    def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call `function(*arguments)` in a thread of the pool and return its result.

        Raises:
            RuntimeError: no thread can be started.
        """
        self._start_threads(1)
        with _fast_switching(self._switch_interval):
            return self._submit(function, *arguments).result()

    def map(self, function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """Call `function` on every part in parallel, in inference mode, and return the results in order.

        Must be called from within `run`, whose thread takes a share. Raises the error of the first part that
        failed, once no thread runs any more. Where not all threads can be started, fewer do the work.
        """
        work = _Work(function, parts)
        wanted = min(self.size, len(parts))
        try:
            self._start_threads(wanted)
        except (RuntimeError, MemoryError):
            wanted = len(self._threads)
        others = [self._submit(work) for _ in range(wanted - 1)]
        work()
        for other in others:
            other.result()
        return work.results()

    def _submit(self, function: Callable[..., Result], *arguments: Any) -> "Future[Result]":
        future: Future[Result] = Future()
        self._tasks.put((future, function, arguments))
        return future

    def _start_threads(self, wanted: int) -> None:
        """Start threads until there are `wanted`. Raises RuntimeError where one cannot be started."""
        while len(self._threads) < wanted:
            ready: Future[None] = Future()
            thread = threading.Thread(
                target=_serve, args=(self._tasks, ready), name="tritone-cpu", daemon=True
            )
            thread.start()
            ready.result()  # one after the other, since they set torch's number of threads for a moment
            self._threads.append(thread)
            _all_threads.add(thread)


def _serve(tasks: "SimpleQueue[_Task | None]", ready: "Future[None]") -> None:
    """Main function of a pool's thread: carry out tasks until there is a None."""
    _carry_out((ready, _use_one_core, ()))
    while ready.exception() is None and (task := tasks.get()) is not None:
        _carry_out(task)
        del task  # it keeps the runner alive, and with it the pool


def _carry_out(task: _Task) -> None:
    future, function, arguments = task
    try:
        future.set_result(function(*arguments))
    except BaseException as error:
        future.set_exception(error)


def _end_threads(tasks: "SimpleQueue[_Task | None]", threads: list[threading.Thread]) -> None:
    for _ in threads:
        tasks.put(None)


_pools: "weakref.WeakSet[CpuWorkerPool]" = weakref.WeakSet()
_all_threads: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()  # also of pools that are gone


def _end_all_threads() -> None:
    """End idle threads at the interpreter's exit: one that is stopped while it frees tensors aborts it."""
    for pool in tuple(_pools):
        _end_threads(pool._tasks, pool._threads)
    end = time.monotonic() + _EXIT_SECONDS
    for thread in tuple(_all_threads):
        thread.join(max(end - time.monotonic(), 0.0))


atexit.register(_end_all_threads)


class _Work:
    """Queue of parts that several threads take one after the other."""

    def __init__(self, function: Callable[[Any], Any], parts: Sequence[Any]) -> None:
        self._function = function
        self._left = iter(list(enumerate(parts)))
        self._lock = threading.Lock()
        self._results: list[Any] = [None] * len(parts)
        self._errors: dict[int, BaseException] = {}

    @torch.inference_mode()
    def __call__(self) -> None:
        while True:
            with self._lock:
                index, part = next(self._left, (None, None))
                if index is None or self._errors:
                    return
            try:
                self._results[index] = self._function(part)
            except BaseException as error:
                self._errors[index] = error

    def results(self) -> list[Any]:
        if self._errors:
            raise self._errors[min(self._errors)]
        return self._results


class _SwitchInterval:
    """Setter of Python's thread switch interval, process-wide, while pools are at work.

    Between two operations a thread needs the interpreter lock for some microseconds; where another thread
    holds it for longer, half a batch waits.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work = 0
        self._usual = 0.0

    def reset(self) -> None:
        """Restore the usual interval, and start without pools."""
        if self._at_work:
            sys.setswitchinterval(self._usual)
        self.__init__()  # type: ignore[misc]

    @contextmanager
    def __call__(self, seconds: float) -> Iterator[None]:
        """Context in which Python switches threads after `seconds` at most, while any pool is at work."""
        with self._lock:
            if not self._at_work:
                self._usual = sys.getswitchinterval()
            sys.setswitchinterval(min(sys.getswitchinterval(), seconds))
            self._at_work += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_work -= 1
                if not self._at_work:
                    sys.setswitchinterval(self._usual)


_fast_switching = _SwitchInterval()
# A forked child has no pool at work, and the lock may have been held by a thread that it has not.
os.register_at_fork(after_in_child=_fast_switching.reset)


def _use_one_core() -> None:
    """Set torch's thread count to 1 for this thread alone; later threads get the count set before."""
    usual, is_set = torch.get_num_threads(), threading.Event()

    def restore() -> None:
        is_set.wait()
        torch.set_num_threads(usual)

    other = threading.Thread(target=restore, daemon=True)
    other.start()  # before the count is set, as no thread may be left to start
    torch.set_num_threads(1)
    is_set.set()
    other.join()


def map_parts(
    pool: CpuWorkerPool | None, function: Callable[[Part], Result], parts: Sequence[Part]
) -> list[Result]:
    """Call `function` on every part, in parallel where there is a pool, and return the results in order."""
    if pool is None:
        return [function(part) for part in parts]  # list(map(...)) would take a StopIteration for its end
    return pool.map(function, parts)


def balanced(parts: Sequence[Part], costs: Sequence[int], count: int) -> list[list[Part]]:
    """Split parts into `count` shares of about equal cost, fewer if there are fewer parts.

    Greedy: the costliest parts come first, each to the share with the least cost so far. A share keeps the
    order of its parts.
    """
    shares: list[list[int]] = [[] for _ in range(min(count, len(parts)))]
    totals = [0] * len(shares)
    for index in sorted(range(len(parts)), key=lambda index: -costs[index]):
        least = totals.index(min(totals))
        shares[least].append(index)
        totals[least] += costs[index]
    return [[parts[index] for index in sorted(share)] for share in shares]
