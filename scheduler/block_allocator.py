"""A pool of numbered things, handed out and taken back: pages of keys and values, rows of hypotheses."""

from collections.abc import Iterable

PAGE_SIZE = 16  # rows of keys and values in a page, for self- and cross-attention alike


class PageAllocator:
    """Owns the numbers 0 to `count` - 1; each is either free or taken.

    Free numbers are kept as runs, and the runs' lengths in a binary tree of maxima over their first numbers.
    Finding the lowest run that is long enough, cutting it and joining it with its neighbors again all cost
    O(log count), so a call costs O(numbers + runs touched x log count) however large or fragmented the pool.
    """

    def __init__(self, count: int) -> None:
        if count < 0:
            raise ValueError(f"a pool of {count} numbers cannot exist; count must be 0 or more")
        self.count = count
        self.free = count
        self._taken = bytearray(count)
        self._leaves = 1 << (max(count, 1) - 1).bit_length()
        # node 1 is the root, n has the children 2n and 2n + 1; the leaf of a run's first number holds the
        # run's length
        self._longest = [0] * (2 * self._leaves)
        self._start_by_end: dict[int, int] = {}  # one past a free run's last number -> its first number
        if count:
            self._put_run(0, count)

    def take(self, n: int) -> tuple[int, ...]:
        """Takes n numbers, ascending: the lowest n consecutive ones, or the lowest n where no run is so long.

        Consecutive pages can be read as one slice, without a copy. Raises ValueError for a negative n, or
        one larger than `free`; nothing is taken then.
        """
        if not 0 <= n <= self.free:
            raise ValueError(
                f"cannot take {n} numbers: {self.free} of {self.count} are free; compare with `free` first"
            )
        if n == 0:
            return ()
        self.free -= n
        start = self._lowest_run(n)
        if start is not None:
            return tuple(self._cut(start, n))
        numbers: list[int] = []
        while len(numbers) < n and (start := self._lowest_run(1)) is not None:
            numbers.extend(self._cut(start, n - len(numbers)))
        return tuple(numbers)

    def give(self, numbers: Iterable[int]) -> None:
        """Frees numbers that `take` handed out, in any order and grouping.

        Raises ValueError for a number outside the pool and for one that is not taken (or is named twice);
        nothing is freed then.
        """
        ordered = sorted(numbers)
        previous = None
        for number in ordered:
            if not 0 <= number < self.count:
                raise ValueError(f"number {number} is not of this pool, which owns 0 to {self.count - 1}")
            if number == previous or not self._taken[number]:
                raise ValueError(f"number {number} was given back twice; it was free already")
            previous = number
        for start, end in _runs(ordered):
            self._taken[start:end] = bytes(end - start)
            self._join(start, end)
        self.free += len(ordered)

    def _lowest_run(self, at_least: int) -> int | None:
        """First number of the lowest free run of that length, or None."""
        if self._longest[1] < at_least:
            return None
        node = 1
        while node < self._leaves:
            node *= 2
            if self._longest[node] < at_least:
                node += 1
        return node - self._leaves

    def _cut(self, start: int, at_most: int) -> range:
        """Takes up to so many numbers off the front of the free run that begins at start."""
        length = self._longest[self._leaves + start]
        middle, end = start + min(length, at_most), start + length
        self._set_length(start, 0)
        if middle < end:
            self._put_run(middle, end)
        else:
            del self._start_by_end[end]
        self._taken[start:middle] = b"\1" * (middle - start)
        return range(start, middle)

    def _join(self, start: int, end: int) -> None:
        """Makes start to end - 1 free, in one run with its free neighbors."""
        start = self._start_by_end.pop(start, start)
        if end < self.count and (length := self._longest[self._leaves + end]):
            self._set_length(end, 0)
            end += length
        self._put_run(start, end)

    def _put_run(self, start: int, end: int) -> None:
        self._set_length(start, end - start)
        self._start_by_end[end] = start

    def _set_length(self, start: int, length: int) -> None:
        tree = self._longest
        node = self._leaves + start
        tree[node] = length
        while node > 1:
            node //= 2
            longest = max(tree[2 * node], tree[2 * node + 1])
            if tree[node] == longest:
                break
            tree[node] = longest


def _runs(ordered: list[int]) -> list[tuple[int, int]]:
    """Ascending numbers as runs (first, one past the last)."""
    if not ordered:
        return []
    runs = []
    start = end = ordered[0]
    for number in ordered:
        if number != end:
            runs.append((start, end))
            start = number
        end = number + 1
    runs.append((start, end))
    return runs
