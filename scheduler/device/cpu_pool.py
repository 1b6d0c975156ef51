"""Thread pool that runs the parts of a step in parallel, each on one core of a CPU."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from ...kernels.runtime.launch import interpreting
from ..config import RunnerConfig

Part = TypeVar("Part")
Result = TypeVar("Result")


class CpuWorkerPool:
    """Thread pool for the parts of a step, whose torch operations use one core each.

    A single part uses one core too, since several cores might sum in another order. Sequences are
    independent, so the halves of a batch on two cores wait for each other only at the end of a step. Two
    threads in every operation would wait for each other hundreds of times a step, mostly for operations that
    are shorter than the wait.

    Args:
        size: number of threads.
        switch_interval: seconds after which a waiting thread requests the interpreter lock.
    """

    def __init__(self, size: int, switch_interval: float = RunnerConfig.switch_interval) -> None:
        self.size = size
        self._switch_interval = switch_interval
        self._pool = ThreadPoolExecutor(size, "tritone-cpu", initializer=_use_one_core)

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
        """Call `function(*arguments)` in a thread of the pool and return its result."""
        with _fast_switching(self._switch_interval):
            return self._pool.submit(function, *arguments).result()

    def map(self, function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """Call `function` on every part in parallel, in inference mode, and return the results in order.

        Must be called from within `run`, whose thread takes a share. Raises the error of the first part that
        failed, once no thread runs any more.
        """
        work = _Work(function, parts)
        others = [self._pool.submit(work) for _ in range(min(self.size, len(parts)) - 1)]
        work()
        for other in others:
            other.result()
        return work.results()


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


def _use_one_core() -> None:
    """Set torch's thread count to 1 for this thread alone; later threads get the count set before."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    restore = threading.Thread(target=torch.set_num_threads, args=(usual,))
    restore.start()
    restore.join()


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
