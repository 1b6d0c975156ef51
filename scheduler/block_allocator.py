"""Allocator of cache pages and sequence slots, as numbers that the scheduler lends to requests."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

PAGE_SIZE = 16  # cache positions in a page, for self- and cross-attention alike
Numbers = npt.NDArray[np.int32]


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
        self._map = np.ones(count, np.bool_)  # true for a free number
        self._first = 0  # no lower number is free

    def take(self, n: int) -> Numbers:
        """Take the n lowest free numbers, ascending.

        Raises:
            ValueError: n is negative or larger than `free`; nothing is taken.
        """
        if not 0 <= n <= self.free:
            raise ValueError(
                f"cannot take {n} numbers: {self.free} of {self.count} are free; compare with `free` first"
            )
        width, found = max(2 * n, _WINDOW), _NONE
        while len(found) < n:  # the free numbers of a window, since the whole map takes too long
            found = self._map[self._first : self._first + width].nonzero()[0][:n]
            width *= 4
        numbers = (found + self._first).astype(np.int32)
        self._map[numbers] = False
        if n:
            self._first = int(numbers[-1]) + 1
            self.free -= n
        return numbers

    def give(self, numbers: Iterable[int] | Numbers) -> None:
        """Give back numbers that `take` handed out, in any order and grouping.

        Raises:
            ValueError: a number is outside the pool, not taken, or given twice; nothing is given back.
        """
        given = np.sort(numbers if isinstance(numbers, np.ndarray) else np.array([*numbers], np.int64))
        if not len(given):
            return
        lowest = int(given[0])
        if lowest < 0 or given[-1] >= self.count:
            number = lowest if lowest < 0 else given[-1]
            raise ValueError(f"number {number} is not of this pool, which owns 0 to {self.count - 1}")
        again = self._map[given]
        again[1:] |= given[1:] == given[:-1]
        if again.any():
            raise ValueError(f"number {given[again][0]} was given back twice; it was free already")
        self._map[given] = True
        self._first = min(self._first, lowest)
        self.free += len(given)


_WINDOW = 4096  # numbers searched at first
_NONE: npt.NDArray[np.int64] = np.zeros(0, np.int64)
