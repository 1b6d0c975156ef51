"""Threads that carry out the parts of a step side by side, each on one core."""

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from ...kernels.runtime.launch import interpreting

Part = TypeVar("Part")
Result = TypeVar("Result")


class CpuWorkerPool:
    """A few threads whose operations use one core each, however little there is to do: what one core sums in
    an order, several might sum in another.

    Sequences have nothing to do with each other, so half a batch on each of two cores need not wait for one
    another before the end of the step. Two threads in every operation wait for one another hundreds of times
    a step, mostly for operations that are shorter than that.

    Args:
        size: how many threads.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._pool = ThreadPoolExecutor(size, "tritone-cpu", initializer=_use_one_core)

    @classmethod
    def for_device(cls, device: torch.device) -> "CpuWorkerPool | None":
        """One with as many threads as torch uses in an operation; None where that is one, or on a GPU.

        None in Triton's interpreter too, which runs one kernel at a time.
        """
        size = torch.get_num_threads()
        return cls(size) if device.type == "cpu" and size > 1 and not interpreting() else None

    def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """`function(*arguments)` in one of the threads; waits for it."""
        with _short_turns:
            return self._pool.submit(function, *arguments).result()

    def map(self, function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """`function` of every part, in inference mode; from within `run`, whose thread takes its share.

        Raises what the first part that failed raised, once nothing runs any more.
        """
        work = _Work(function, parts)
        others = [self._pool.submit(work) for _ in range(min(self.size, len(parts)) - 1)]
        work()
        for other in others:
            other.result()
        return work.results()


class _Work:
    """Parts that several threads take one after the other."""

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


class _ShortTurns:
    """While a pool is at work, threads that wait for Python's interpreter ask for it after 0.5 ms, not 5.

    Between two operations a thread needs the interpreter for some microseconds, and where another keeps it
    for longer, half a batch waits: steps took a tenth longer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work = 0
        self._usual = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._at_work:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(self._usual, _TURN))
            self._at_work += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._at_work -= 1
            if not self._at_work:
                sys.setswitchinterval(self._usual)


_TURN = 5e-4  # seconds
_short_turns = _ShortTurns()


def _use_one_core() -> None:
    """For this thread's operations; others keep what they have, and new ones get what torch was set to."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    restore = threading.Thread(target=torch.set_num_threads, args=(usual,))
    restore.start()
    restore.join()


def balanced(things: Sequence[Part], costs: Sequence[int], count: int) -> list[list[Part]]:
    """Things in `count` shares of about the same cost, fewer if there are fewer things; largest first, each
    to the share that has least so far. Within a share they keep their order."""
    shares: list[list[int]] = [[] for _ in range(min(count, len(things)))]
    totals = [0] * len(shares)
    for index in sorted(range(len(things)), key=lambda index: -costs[index]):
        least = totals.index(min(totals))
        shares[least].append(index)
        totals[least] += costs[index]
    return [[things[index] for index in sorted(share)] for share in shares]
