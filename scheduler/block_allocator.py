"""Allocator of cache pages and sequence slots, as numbers that the scheduler lends to requests."""

from collections.abc import Iterable
from operator import itemgetter

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
        self.free = count  # count of free numbers
        self._map = bytearray(b"\x01" * count)  # 1 for a free number
        self._first = 0  # no lower number is free

    def take(self, n: int) -> tuple[int, ...]:
        """Take the n lowest free numbers, ascending.

        Raises:
            ValueError: n is negative or larger than `free`; nothing is taken.
        """
        if not 0 <= n <= self.free:
            raise ValueError(
                f"cannot take {n} numbers: {self.free} of {self.count} are free; compare with `free` first"
            )
        numbers: list[int] = []
        end = self._first
        while len(numbers) < n:  # by runs of free numbers, since a heap's steps took most of an admission
            start = self._map.find(1, end)
            taken = self._map.find(0, start)
            end = min(start + n - len(numbers), self.count if taken < 0 else taken)
            numbers += range(start, end)
            self._map[start:end] = bytes(end - start)
        self._first = end
        self.free -= n
        return tuple(numbers)

    def give(self, numbers: Iterable[int]) -> None:
        """Give back numbers that `take` handed out, in any order and grouping.

        Raises:
            ValueError: a number is outside the pool, not taken, or given twice; nothing is given back.
        """
        given = list(numbers)
        if not given:
            return
        lowest = min(given)
        if lowest < 0 or max(given) >= self.count:
            number = next(number for number in given if not 0 <= number < self.count)
            raise ValueError(f"number {number} is not of this pool, which owns 0 to {self.count - 1}")
        if len(set(given)) < len(given) or any(itemgetter(*given, given[0])(self._map)):
            free = (
                number for place, number in enumerate(given) if self._map[number] or number in given[:place]
            )
            number = next(free)
            raise ValueError(f"number {number} was given back twice; it was free already")
        for number in given:
            self._map[number] = 1
        self._first = min(self._first, lowest)
        self.free += len(given)
