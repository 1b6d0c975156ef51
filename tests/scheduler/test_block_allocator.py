"""The free list of pages and sequence slots, and its cost."""

import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritone.scheduler.block_allocator import PageAllocator


def numbers_of(pool: PageAllocator, n: int) -> tuple[int, ...]:
    return tuple(pool.take(n).tolist())


def test_a_fresh_pool_hands_out_its_lowest_numbers_in_order():
    pool = PageAllocator(8)
    assert numbers_of(pool, 3) == (0, 1, 2)
    assert numbers_of(pool, 1) == (3,)
    assert numbers_of(pool, 0) == ()
    assert numbers_of(pool, 4) == (4, 5, 6, 7)
    assert (pool.free, pool.count) == (0, 8)


def test_the_lowest_free_numbers_are_taken_in_whatever_order_they_were_given_back():
    pool = PageAllocator(12)
    pool.take(12)
    pool.give((10, 1, 2, 6, 5))
    assert numbers_of(pool, 4) == (1, 2, 5, 6)
    assert numbers_of(pool, 1) == (10,)


def test_numbers_given_back_in_any_order_and_grouping_are_all_free():
    pool = PageAllocator(9)
    pool.take(9)
    for group in [(4,), (8, 2), (), (3, 0), (1,), (7, 5, 6)]:
        pool.give(group)
    assert pool.free == 9
    assert numbers_of(pool, 9) == tuple(range(9))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 63, 64, 65, 1000])
def test_a_pool_of_any_size_gives_all_it_has_and_no_more(count):
    pool = PageAllocator(count)
    assert numbers_of(pool, count) == tuple(range(count))
    with pytest.raises(ValueError, match=f"cannot take 1 numbers: 0 of {count} are free"):
        pool.take(1)
    pool.give(range(count))
    assert pool.free == count


def test_giving_a_number_twice_is_refused_and_changes_nothing():
    pool = PageAllocator(4)
    pool.take(3)
    with pytest.raises(ValueError, match="number 3 was given back twice"):
        pool.give((0, 3))
    with pytest.raises(ValueError, match="number 1 was given back twice"):
        pool.give((0, 1, 1))
    assert pool.free == 1
    pool.give((0, 1, 2))
    with pytest.raises(ValueError, match="number 0 was given back twice"):
        pool.give((0,))


@pytest.mark.parametrize("number", [-1, 4, 100])
def test_giving_a_number_of_no_such_pool_is_refused_and_changes_nothing(number):
    pool = PageAllocator(4)
    pool.take(4)
    with pytest.raises(ValueError, match=f"number {number} is not of this pool, which owns 0 to 3"):
        pool.give((0, number))
    assert pool.free == 0


def test_taking_more_than_is_free_or_less_than_nothing_is_refused_and_changes_nothing():
    pool = PageAllocator(4)
    pool.take(1)
    for n in (4, -1):
        with pytest.raises(ValueError, match=f"cannot take {n} numbers: 3 of 4 are free"):
            pool.take(n)
    assert numbers_of(pool, 3) == (1, 2, 3)


def test_a_pool_of_negative_size_is_refused():
    with pytest.raises(ValueError, match="-1"):
        PageAllocator(-1)


@settings(max_examples=300, deadline=None)
@given(
    count=st.integers(0, 40),
    actions=st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=40),
    data=st.data(),
)
def test_any_history_agrees_with_a_plain_set(count, actions, data):
    pool, free, taken = PageAllocator(count), set(range(count)), []
    for take, n in actions:
        if take and n <= len(free):
            numbers = numbers_of(pool, n)
            assert numbers == tuple(sorted(free)[:n])
            free -= set(numbers)
            taken += numbers
        elif not take:
            give = data.draw(st.permutations(taken))[:n]
            pool.give(give)
            free |= set(give)
            taken = [number for number in taken if number not in set(give)]
        assert pool.free == len(free)
    pool.give(taken)
    assert numbers_of(pool, count) == tuple(range(count))


def lines_run(call) -> int:
    """Python lines executed by a call."""
    lines = 0

    def count(_frame, event, _argument):
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines


def work_in_a_fragmented_pool(count: int) -> int:
    """Lines that 20 takes and gives of 1 to 20 numbers cost where every third number alone is taken."""
    pool = PageAllocator(count)
    pool.take(count)
    pool.give(number for number in range(count) if number % 3)
    random_sizes = random.Random(0)

    def churn():
        for _ in range(20):
            pool.give(pool.take(random_sizes.randint(1, 20)))

    return lines_run(churn)


def test_work_in_python_grows_with_the_numbers_taken_and_not_with_the_size_of_the_pool():
    assert work_in_a_fragmented_pool(300) == work_in_a_fragmented_pool(300_000)
