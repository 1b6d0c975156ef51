"""Turns between owners in the scheduler's line, beside a plain list that is sorted anew each time."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tritone.scheduler.line import Line
from tritone.scheduler.scheduler import Demand, Scheduler

SMALL = Demand(16, 16, 1)  # 2 pages, 1 slot
STEPS = st.one_of(
    st.tuples(st.just("join"), st.sampled_from([None, None, 0, 1, 2]), st.integers(0, 1)),
    st.tuples(st.just("admit"), st.just(0), st.just(0)),
    st.tuples(st.just("end"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("leave"), st.integers(0, 9), st.just(0)),
)


@settings(max_examples=500, deadline=None, database=None)
@given(steps=st.lists(STEPS, max_size=120))
def test_the_head_is_that_of_a_sorted_list(steps):
    line, waiting, running = Line(), [], []
    for number, (step, choice, priority) in enumerate(steps):
        if step == "join":
            line.join(number, SMALL, priority, choice)
            waiting.append((number, priority, choice))
        elif step == "end" and running:
            line.end(running.pop(choice % len(running)))
        elif step == "leave" and waiting:
            line.leave(waiting.pop(choice % len(waiting))[0])
        elif step == "admit" and waiting:
            # Without an owner, none of its runs.
            one = min(waiting, key=lambda one: (-one[1], running.count(one[1:]), one[0]))
            assert line.head()[0] == one[0]
            waiting.remove(one)
            assert line.admit(one[0]) == (None if one[2] is None else one[1:])
            if one[2] is not None:
                running.append(one[1:])
        assert len(line) == len(waiting)
        assert len(line._turns) <= 2 * len(waiting) + 65
        assert len(line._owners) <= len({one[1:] for one in waiting} | set(running))


def test_a_clip_takes_the_next_slot_and_two_long_recordings_come_to_equal_shares():
    scheduler = Scheduler(num_pages=100, num_slots=4, encode_budget=1000)
    for number in range(8):
        scheduler.add(number, SMALL, owner=0)
    assert [one.request_id for one in scheduler.schedule().admitted] == [0, 1, 2, 3]
    scheduler.add(100, SMALL)
    for number in range(10, 18):
        scheduler.add(number, SMALL, owner=10)
    order = []
    for ended in (0, 1, 100, 2, 10):
        scheduler.cancel(ended)
        order += [one.request_id for one in scheduler.schedule().admitted]
    assert order == [100, 10, 11, 4, 12]
