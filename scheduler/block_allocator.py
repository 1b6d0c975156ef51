"""Pools of numbers that the scheduler lends to requests: pages of the cache and sequence slots."""

from collections.abc import Iterable

PAGE_SIZE = 16  # cache positions in a page, for self- and cross-attention alike


class PageAllocator:
    """A free list of the numbers 0 to `count` - 1; each is either free or taken.

    The numbers given back last are taken first. Pages need not be consecutive: a decode step of a
    Speech2Text model on a CPU takes as long with pages scattered over the pool.
    """

    def __init__(self, count: int) -> None:
        if count < 0:
            raise ValueError(f"a pool of {count} numbers cannot exist; count must be 0 or more")
        self.count = count
        self._free = list(range(count - 1, -1, -1))  # taken from the end
        self._taken = bytearray(count)

    @property
    def free(self) -> int:
        """Numbers that can be taken."""
        return len(self._free)

    def take(self, n: int) -> tuple[int, ...]:
        """Take n numbers.

        Raises:
            ValueError: for a negative n, or one larger than `free`; nothing is taken then.
        """
        if not 0 <= n <= self.free:
            raise ValueError(
                f"cannot take {n} numbers: {self.free} of {self.count} are free; compare with `free` first"
            )
        numbers = tuple(self._free.pop() for _ in range(n))
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
        for number in reversed(given):
            self._taken[number] = False
            self._free.append(number)
