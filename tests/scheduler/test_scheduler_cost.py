"""Growth of the scheduler's work: bytecodes count every Python loop, times those that run inside C."""

import gc
import sys
import time
from itertools import count

import pytest

from tritone.scheduler.request import FinishReason
from tritone.scheduler.scheduler import Demand, Release, Scheduler, Step

STOP, LENGTH, CANCELLED, ERROR = (FinishReason(name) for name in ("stop", "length", "cancelled", "error"))
SMALL = Demand(encode_tokens=16, decode_positions=16, hypotheses=1)  # 2 pages, 1 slot


def admitted(step: Step) -> list[int]:
    return [admission.request_id for admission in step.admitted]


def with_running(requests: int) -> Scheduler:
    """A scheduler of a fixed size on which so many requests run."""
    scheduler = Scheduler(num_pages=65_536, num_slots=32_768, encode_budget=10**9)
    for request_id in range(requests):
        scheduler.add(request_id, SMALL)
    assert len(scheduler.schedule().admitted) == scheduler.running == requests
    return scheduler


def with_waiting(requests: int) -> Scheduler:
    """A scheduler with so many requests of 100 priorities in line behind a head that does not fit."""
    scheduler = Scheduler(num_pages=2, num_slots=1, encode_budget=100)
    scheduler.add(-2, SMALL)
    scheduler.schedule()
    scheduler.add(-1, SMALL, priority=1000)
    for request_id in range(requests):
        scheduler.add(request_id, SMALL, priority=request_id % 100)
    return scheduler


def bytecodes_run(call) -> int:
    """Python instructions executed by a call."""
    bytecodes = 0

    def tally(frame, event, _argument):
        nonlocal bytecodes
        frame.f_trace_opcodes = True
        bytecodes += event == "opcode"
        return tally

    before = sys.gettrace()
    gc.disable()  # hypothesis has a callback in Python for every collection
    sys.settrace(tally)
    try:
        call()
    finally:
        sys.settrace(before)
        gc.enable()
    return bytecodes


def best_time(call) -> float:
    """Seconds of the fastest of 300 calls, the least disturbed one."""
    times = []
    for _ in range(300):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def test_a_step_without_events_costs_the_same_with_10_and_with_5000_running():
    few, many = with_running(10), with_running(5000)
    assert bytecodes_run(few.schedule) == bytecodes_run(many.schedule) > 0
    assert bytecodes_run(lambda: few.update(0, {})) == bytecodes_run(lambda: many.update(0, {})) > 0
    assert best_time(with_running(20_000).schedule) < 5 * best_time(few.schedule)


def finish_one_and_admit_another(scheduler: Scheduler, index: int) -> None:
    scheduler.update(0, {index: STOP})
    scheduler.add(10**6 + index, SMALL)
    step = scheduler.schedule()
    assert (step.released, admitted(step)) == ((Release(index, STOP),), [10**6 + index])


def cancel_one_in_line_and_add_another(scheduler: Scheduler, index: int) -> None:
    scheduler.cancel(index)
    scheduler.add(10**6 + index, SMALL, priority=index % 100)
    assert scheduler.schedule() == Step(index + 1, (Release(index, CANCELLED),), (), 1)


@pytest.mark.parametrize(
    ("event", "prepare"),
    [(finish_one_and_admit_another, with_running), (cancel_one_in_line_and_add_another, with_waiting)],
)
def test_an_event_costs_no_more_among_20_000_requests_than_among_400(event, prepare):
    bytecodes, seconds = [], []
    for requests in (400, 20_000):
        scheduler, indices = prepare(requests), count()
        bytecodes.append(bytecodes_run(lambda s=scheduler, i=indices: event(s, next(i))))
        seconds.append(best_time(lambda s=scheduler, i=indices: event(s, next(i))))
    assert bytecodes[1] < 1.5 * bytecodes[0]
    assert seconds[1] < 5 * seconds[0]
