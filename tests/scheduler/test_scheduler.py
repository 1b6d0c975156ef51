"""The scheduler: its policy case by case, thousands of random histories, and what its work grows with."""

import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritone.scheduler.pages import PAGE_SIZE
from tritone.scheduler.request import FinishReason
from tritone.scheduler.scheduler import CapacityError, Demand, Release, Scheduler, Step

STOP, LENGTH, CANCELLED, ERROR = (FinishReason(name) for name in ("stop", "length", "cancelled", "error"))
SMALL = Demand(encode_tokens=16, decode_positions=16, hypotheses=1)  # 2 pages, 1 row
ROOMY = {"num_pages": 1000, "num_rows": 100, "encode_budget": 10_000}


def admitted(step: Step) -> list[int]:
    return [admission.request_id for admission in step.admitted]


def test_a_demand_counts_pages_of_16_positions_shared_for_cross_and_per_hypothesis_for_self():
    demand = Demand(encode_tokens=300, decode_positions=33, hypotheses=5)
    assert (demand.cross_pages, demand.self_pages, demand.pages) == (19, 15, 34)
    assert Demand(16, 16, 1).pages == 2
    assert Demand(17, 17, 1).pages == 4
    assert Demand(0, 0, 3).pages == 0
    assert Demand(300, 33, 0).pages == 0, "a one-shot request keeps nothing"


@pytest.mark.parametrize("name", ["encode_tokens", "decode_positions", "hypotheses"])
def test_a_negative_demand_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} is -1"):
        Demand(**{"encode_tokens": 1, "decode_positions": 1, "hypotheses": 1, name: -1})


def test_a_request_is_admitted_with_all_it_can_need_runs_and_is_released_once():
    scheduler = Scheduler(num_pages=20, num_rows=4, encode_budget=1000)
    scheduler.add(7, Demand(encode_tokens=40, decode_positions=30, hypotheses=3))
    assert (scheduler.waiting, scheduler.running, scheduler.has_work) == (1, 0, True)

    step = scheduler.schedule(decode_steps=4)
    assert (step.number, step.released, step.decode_steps) == (0, (), 4)
    (admission,) = step.admitted
    assert admission.request_id == 7
    assert admission.rows == (0, 1, 2)
    assert admission.cross_pages == (0, 1, 2)
    assert admission.self_pages == ((3, 4), (5, 6), (7, 8))
    assert (scheduler.waiting, scheduler.running, scheduler.pages_used, scheduler.rows_used) == (0, 1, 9, 3)

    assert scheduler.schedule() == Step(1, (), (), 1), "a request that goes on is in no plan"
    scheduler.update(1, {7: STOP})
    assert (scheduler.running, scheduler.pages_used, scheduler.has_work) == (0, 9, True)
    assert scheduler.schedule(3) == Step(2, (Release(7, STOP),), (), 0)
    assert (scheduler.pages_used, scheduler.rows_used, scheduler.has_work) == (0, 0, False)
    assert scheduler.schedule() == Step(3, (), (), 0)


def test_an_empty_scheduler_plans_an_empty_step():
    assert Scheduler(**ROOMY).schedule(decode_steps=8) == Step(0, (), (), 0)


def test_pages_freed_by_a_step_are_used_in_the_same_step():
    scheduler = Scheduler(num_pages=2, num_rows=1, encode_budget=100)
    scheduler.add(1, SMALL)
    scheduler.add(2, SMALL)
    assert admitted(scheduler.schedule()) == [1]
    scheduler.update(0, {1: LENGTH})
    step = scheduler.schedule()
    assert step.released == (Release(1, LENGTH),)
    assert admitted(step) == [2]
    assert step.admitted[0].cross_pages + step.admitted[0].self_pages[0] == (0, 1)


def test_the_highest_priority_goes_first_and_arrival_decides_within_one():
    scheduler = Scheduler(num_pages=1000, num_rows=100, encode_budget=16)
    for request_id, priority in [(1, 0), (2, 5), (3, 0), (4, 5), (5, -1)]:
        scheduler.add(request_id, SMALL, priority)
    assert [admitted(scheduler.schedule()) for _ in range(5)] == [[2], [4], [1], [3], [5]]


def test_nothing_overtakes_a_head_that_does_not_fit_so_that_large_requests_do_not_starve():
    scheduler = Scheduler(num_pages=10, num_rows=10, encode_budget=1000)
    scheduler.add(1, SMALL)
    scheduler.schedule()
    scheduler.add(2, Demand(encode_tokens=160, decode_positions=0, hypotheses=1))  # all 10 pages
    scheduler.add(3, SMALL)
    assert admitted(scheduler.schedule()) == []
    scheduler.add(4, SMALL, priority=1)
    assert admitted(scheduler.schedule()) == [4], "a higher priority is the new head"
    scheduler.update(2, {1: STOP, 4: STOP})
    assert admitted(scheduler.schedule()) == [2]
    scheduler.cancel(2)
    assert admitted(scheduler.schedule()) == [3]


def test_the_encode_budget_limits_a_step_and_a_longer_request_has_a_step_of_its_own():
    scheduler = Scheduler(num_pages=1000, num_rows=100, encode_budget=100)
    for request_id, tokens in enumerate([60, 40, 1, 500, 100, 1]):
        scheduler.add(request_id, Demand(tokens, 16, 1))
    assert [admitted(scheduler.schedule()) for _ in range(5)] == [[0, 1], [2], [3], [4], [5]]


def test_rows_limit_how_many_hypotheses_run():
    scheduler = Scheduler(num_pages=1000, num_rows=5, encode_budget=1000)
    for request_id in range(3):
        scheduler.add(request_id, Demand(16, 16, hypotheses=2))
    step = scheduler.schedule()
    assert [admission.rows for admission in step.admitted] == [(0, 1), (2, 3)]
    scheduler.update(0, {0: STOP})
    assert [admission.rows for admission in scheduler.schedule().admitted] == [(0, 1)]


def test_a_one_shot_request_owns_nothing_asks_for_no_decode_step_and_ends_like_any_other():
    scheduler = Scheduler(num_pages=0, num_rows=0, encode_budget=100)
    scheduler.add(1, Demand(encode_tokens=400, decode_positions=0, hypotheses=0))
    scheduler.add(2, Demand(encode_tokens=50, decode_positions=0, hypotheses=0))
    step = scheduler.schedule()
    assert admitted(step) == [1]
    assert (step.admitted[0].rows, step.admitted[0].cross_pages, step.admitted[0].self_pages) == ((), (), ())
    assert step.decode_steps == 0
    scheduler.update(0, {1: STOP})
    step = scheduler.schedule()
    assert (step.released, admitted(step)) == ((Release(1, STOP),), [2])


def test_a_request_that_can_never_fit_fails_at_once_with_the_numbers_and_leaves_no_trace():
    scheduler = Scheduler(num_pages=20, num_rows=4, encode_budget=100)
    with pytest.raises(
        CapacityError, match=r"request 3 needs 34 pages \(19 for 300 .* 5 hypotheses x 3 for 33 .* has 20;"
    ):
        scheduler.add(3, Demand(300, 33, 5))
    with pytest.raises(CapacityError, match=r"request 4 needs 5 rows .* has 4; raise num_rows"):
        scheduler.add(4, Demand(16, 16, 5))
    assert (scheduler.has_work, scheduler.waiting, scheduler.cancel(3)) == (False, 0, False)
    scheduler.add(3, SMALL)
    assert admitted(scheduler.schedule()) == [3]


def test_an_id_is_refused_while_in_use_and_free_again_after_its_release():
    scheduler = Scheduler(**ROOMY)
    scheduler.add(1, SMALL)
    with pytest.raises(ValueError, match="request id 1 is in use"):
        scheduler.add(1, SMALL)
    scheduler.schedule()
    with pytest.raises(ValueError, match="request id 1 is in use"):
        scheduler.add(1, SMALL)
    scheduler.cancel(1)
    with pytest.raises(ValueError, match="request id 1 is in use"):
        scheduler.add(1, SMALL)
    scheduler.schedule()
    scheduler.add(1, SMALL)
    assert admitted(scheduler.schedule()) == [1]


def test_a_late_report_about_an_earlier_request_does_not_end_a_new_one_with_its_id():
    scheduler = Scheduler(**ROOMY)
    scheduler.add(1, SMALL)
    scheduler.schedule()
    scheduler.cancel(1)
    scheduler.schedule()
    scheduler.add(1, SMALL)
    scheduler.update(0, {1: STOP})
    scheduler.schedule()
    scheduler.update(1, {1: STOP})
    assert (scheduler.running, scheduler.schedule().released) == (1, ())
    scheduler.update(2, {1: LENGTH})
    assert scheduler.schedule().released == (Release(1, LENGTH),)


def test_a_waiting_request_that_is_cancelled_is_released_in_the_next_step_and_never_admitted():
    scheduler = Scheduler(**ROOMY)
    scheduler.add(1, SMALL)
    scheduler.add(2, SMALL)
    assert scheduler.cancel(1) is True
    assert scheduler.cancel(1) is False
    step = scheduler.schedule()
    assert (step.released, admitted(step)) == ((Release(1, CANCELLED),), [2])


def test_a_running_request_that_is_cancelled_gives_its_pages_and_rows_to_the_next_step():
    scheduler = Scheduler(num_pages=2, num_rows=1, encode_budget=100)
    scheduler.add(1, SMALL)
    scheduler.add(2, SMALL)
    scheduler.schedule()
    assert scheduler.cancel(1) is True
    assert scheduler.cancel(1) is False
    step = scheduler.schedule()
    assert (step.released, admitted(step)) == ((Release(1, CANCELLED),), [2])


def test_cancelling_an_unknown_or_ended_request_says_so():
    scheduler = Scheduler(**ROOMY)
    assert scheduler.cancel(9) is False
    scheduler.add(1, SMALL)
    scheduler.schedule()
    scheduler.update(0, {1: STOP})
    assert scheduler.cancel(1) is False
    assert scheduler.schedule().released == (Release(1, STOP),)
    assert scheduler.cancel(1) is False


def test_the_first_end_wins_whatever_late_updates_say():
    scheduler = Scheduler(**ROOMY)
    for request_id in (1, 2, 3):
        scheduler.add(request_id, SMALL)
    for _ in range(4):
        scheduler.schedule()
    scheduler.cancel(1)
    scheduler.update(2, {1: STOP, 2: LENGTH})
    scheduler.update(1, {2: STOP})
    assert scheduler.schedule().released == (Release(1, CANCELLED), Release(2, LENGTH))
    scheduler.update(3, {1: STOP, 2: STOP, 3: ERROR})
    scheduler.update(0, {1: STOP, 99: STOP})
    assert scheduler.schedule().released == (Release(3, ERROR),)
    assert scheduler.has_work is False


def test_a_report_about_a_step_that_was_never_planned_is_refused():
    scheduler = Scheduler(**ROOMY)
    scheduler.schedule()
    scheduler.update(0, {})
    for step in (-1, 1):
        with pytest.raises(ValueError, match=f"step {step} was never planned; 1 steps were"):
            scheduler.update(step, {})


def test_sizes_and_step_counts_that_make_no_sense_are_refused():
    for sizes in [(-1, 1, 1), (1, -1, 1), (1, 1, 0)]:
        with pytest.raises(ValueError, match=r"num_pages=-?1, num_rows=-?1, encode_budget=[01]"):
            Scheduler(*sizes)
    with pytest.raises(ValueError, match="decode_steps is 0"):
        Scheduler(1, 1, 1).schedule(0)


# Random histories. The device is a dictionary of remaining lengths; what it reports reaches the scheduler
# when the history says so, up to four plans late, out of order and again and again.


@dataclass(frozen=True)
class Add:
    demand: Demand
    priority: int
    length: int  # decode steps until it finishes
    reason: FinishReason
    reuse_id: bool  # of the request that was released last


@dataclass(frozen=True)
class Cancel:
    request_id: int  # counted back from the newest


@dataclass(frozen=True)
class Plan:
    decode_steps: int
    delay: int  # further plans until its update arrives at the latest


@dataclass(frozen=True)
class Report:
    plan: int  # in flight, counted from the oldest; its update arrives now


@dataclass(eq=False)
class Entry:
    """What the test knows of one added request."""

    request_id: int
    arrival: int
    add: Add
    remaining: int
    pages: set[int] = field(default_factory=set)
    rows: set[int] = field(default_factory=set)


class History:
    """Plays operations against a scheduler and checks every plan against what was asked for."""

    def __init__(self, num_pages: int, num_rows: int, encode_budget: int) -> None:
        self.num_pages, self.num_rows, self.encode_budget = num_pages, num_rows, encode_budget
        self.scheduler = Scheduler(num_pages, num_rows, encode_budget)
        self.waiting: list[Entry] = []
        self.running: dict[int, Entry] = {}
        self.ended: list[tuple[Entry, FinishReason]] = []  # releases that the next step owes
        self.in_flight: list[
            tuple[int, int, dict[int, tuple[Entry, FinishReason]]]
        ] = []  # due, step, outcome
        self.added = self.released = self.steps = 0
        self.seen: Counter[str] = Counter()
        self.next_id, self.last_released = 0, None

    def play(self, operations: list[Add | Cancel | Plan | Report]) -> None:
        for operation in operations:
            if isinstance(operation, Add):
                self.add(operation)
            elif isinstance(operation, Cancel):
                self.cancel(self.next_id - 1 - operation.request_id)
            elif isinstance(operation, Plan):
                self.plan(operation)
            elif self.in_flight:
                self.deliver(*self.in_flight.pop(operation.plan % len(self.in_flight))[1:])
            self.check_counts()
        self.drain()

    def add(self, add: Add) -> None:
        reuse = add.reuse_id and self.last_released is not None
        request_id = self.last_released if reuse else self.next_id
        pages, rows = add.demand.pages, add.demand.hypotheses
        if self.is_live(request_id):
            with pytest.raises(ValueError, match=f"request id {request_id} is in use"):
                self.scheduler.add(request_id, add.demand, add.priority)
            self.seen["id refused"] += 1
        elif pages > self.num_pages or rows > self.num_rows:
            self.seen["can never fit"] += 1
            numbers = (pages, self.num_pages) if pages > self.num_pages else (rows, self.num_rows)
            with pytest.raises(
                CapacityError, match=r"request {} needs {} .* has {};".format(request_id, *numbers)
            ):
                self.scheduler.add(request_id, add.demand, add.priority)
        else:
            self.scheduler.add(request_id, add.demand, add.priority)
            self.waiting.append(Entry(request_id, self.added, add, add.length))
            self.added += 1
            self.next_id += not reuse
            self.seen["added"] += 1
            self.seen["id used again"] += reuse

    def is_live(self, request_id: int) -> bool:
        known = [*self.waiting, *self.running.values(), *(entry for entry, _ in self.ended)]
        return any(entry.request_id == request_id for entry in known)

    def cancel(self, request_id: int) -> None:
        waiting = next((entry for entry in self.waiting if entry.request_id == request_id), None)
        entry = waiting or self.running.get(request_id)
        assert self.scheduler.cancel(request_id) is (entry is not None)
        if entry is None:
            return
        self.seen["cancelled while waiting" if waiting else "cancelled while running"] += 1
        if waiting:
            self.waiting.remove(waiting)
        self.end(entry, CANCELLED)

    def end(self, entry: Entry, reason: FinishReason) -> None:
        self.running.pop(entry.request_id, None)
        self.ended.append((entry, reason))

    def plan(self, plan: Plan) -> None:
        step = self.scheduler.schedule(plan.decode_steps)
        assert step.number == self.steps
        self.steps += 1
        assert step.released == tuple(Release(entry.request_id, reason) for entry, reason in self.ended)
        for release in step.released:
            self.last_released = release.request_id
        self.released += len(self.ended)
        self.ended = []
        self.check_admissions(step)
        assert step.decode_steps == (plan.decode_steps if any(e.rows for e in self.running.values()) else 0)
        self.run_on_the_device(step, plan)
        for update in [update for update in self.in_flight if update[0] <= step.number]:
            self.in_flight.remove(update)
            self.deliver(*update[1:])

    def check_admissions(self, step: Step) -> None:
        in_line = sorted(self.waiting, key=lambda entry: (-entry.add.priority, entry.arrival))
        new, left = in_line[: len(step.admitted)], in_line[len(step.admitted) :]
        assert admitted(step) == [entry.request_id for entry in new], "somebody overtook"
        used_pages = {page for entry in self.running.values() for page in entry.pages}
        used_rows = {row for entry in self.running.values() for row in entry.rows}
        for entry, admission in zip(new, step.admitted, strict=True):
            demand = entry.add.demand
            per_hypothesis = -(-demand.decode_positions // PAGE_SIZE)
            assert len(admission.rows) == len(admission.self_pages) == demand.hypotheses
            assert len(admission.cross_pages) == (
                -(-demand.encode_tokens // PAGE_SIZE) if demand.hypotheses else 0
            )
            assert all(len(pages) == per_hypothesis for pages in admission.self_pages)
            pages = [*admission.cross_pages, *(page for pages in admission.self_pages for page in pages)]
            for numbers, used, size in [
                (pages, used_pages, self.num_pages),
                (admission.rows, used_rows, self.num_rows),
            ]:
                assert len(set(numbers)) == len(numbers), "used twice within a request"
                assert used.isdisjoint(numbers), "used by another"
                assert all(0 <= number < size for number in numbers), "out of range"
                used.update(numbers)
            entry.pages, entry.rows = set(pages), set(admission.rows)
            self.running[entry.request_id] = entry
        self.waiting = [entry for entry in self.waiting if entry not in new]
        encode_tokens = sum(entry.add.demand.encode_tokens for entry in new)
        assert encode_tokens <= self.encode_budget or len(new) == 1
        self.seen["left waiting"] += bool(left)
        if left:
            head = left[0].add.demand
            assert (
                head.pages > self.num_pages - len(used_pages)
                or head.hypotheses > self.num_rows - len(used_rows)
                or (new and encode_tokens + head.encode_tokens > self.encode_budget)
            ), "the head fits and was left waiting"

    def run_on_the_device(self, step: Step, plan: Plan) -> None:
        for entry in self.running.values():
            entry.remaining -= plan.decode_steps
        outcome = {id: (e, e.add.reason) for id, e in self.running.items() if e.remaining <= 0}
        self.in_flight.append((step.number + plan.delay, step.number, outcome))

    def deliver(self, step: int, outcome: dict[int, tuple[Entry, FinishReason]]) -> None:
        self.scheduler.update(step, {request_id: reason for request_id, (_, reason) in outcome.items()})
        for request_id, (entry, reason) in outcome.items():
            if self.running.get(request_id) is entry:
                self.end(entry, reason)
            else:
                self.seen["late report ignored"] += 1
                ending = any(ended is entry and why is CANCELLED for ended, why in self.ended)
                self.seen["late report between cancel and release"] += ending
                self.seen["late report for a new owner of the id"] += request_id in self.running

    def check_counts(self) -> None:
        holding = [*self.running.values(), *(entry for entry, _ in self.ended)]
        scheduler = self.scheduler
        assert scheduler.waiting == len(self.waiting)
        assert scheduler.running == len(self.running)
        assert scheduler.pages_used == sum(len(entry.pages) for entry in holding)
        assert scheduler.rows_used == sum(len(entry.rows) for entry in holding)
        assert scheduler.has_work == bool(self.waiting or holding)

    def drain(self) -> None:
        longest = sum(max(entry.remaining, 0) + 7 for entry in [*self.waiting, *self.running.values()]) + 8
        while self.scheduler.has_work or self.in_flight:
            self.plan(Plan(decode_steps=1, delay=0))
            self.check_counts()
            longest -= 1
            assert longest >= 0, "some request is starved"
        assert self.released == self.added, "each ends exactly once"
        assert (self.scheduler.pages_used, self.scheduler.rows_used) == (0, 0)
        if self.num_rows:
            self.scheduler.add(-1, Demand(self.num_pages * PAGE_SIZE, 0, self.num_rows))
            (everything,) = self.scheduler.schedule().admitted
            assert everything.cross_pages == tuple(range(self.num_pages))
            assert everything.rows == tuple(range(self.num_rows))


def pool_of_adds(size: int) -> list[Add]:
    """Requests to draw from with one number each: drawing every field takes longer than the histories do."""
    pick = random.Random(0)
    return [
        Add(
            Demand(pick.randint(0, 120), pick.randint(0, 40), pick.randint(0, 4)),
            priority=pick.randint(-1, 2),
            length=pick.randint(1, 8),
            reason=pick.choice([STOP, LENGTH, ERROR]),
            reuse_id=pick.random() < 0.4,
        )
        for _ in range(size)
    ]


ADDS = st.sampled_from(pool_of_adds(1000))
PLANS = st.sampled_from([Plan(steps, delay) for delay in range(5) for steps in range(1, 5)])
CANCELS = st.sampled_from([Cancel(back) for back in range(9)])
REPORTS = st.sampled_from([Report(plan) for plan in range(5)])
OPERATIONS = st.lists(st.one_of(ADDS, PLANS, CANCELS, REPORTS, ADDS, PLANS), min_size=15, max_size=50)
SIZES = st.tuples(st.integers(0, 70), st.integers(0, 15), st.integers(1, 300))


def play_random_histories(examples: int) -> Counter[str]:
    """Lets hypothesis play so many histories; returns how often what happened in them."""
    seen: Counter[str] = Counter()

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(sizes=SIZES, operations=OPERATIONS)
    def play(sizes, operations):
        history = History(*sizes)
        history.play(operations)
        seen.update(history.seen, histories=1, steps=history.steps)

    play()
    return seen


def test_no_history_leaks_a_page_loses_a_request_or_lets_one_overtake():
    seen = play_random_histories(2000)
    assert seen["histories"] >= 2000
    rare = [
        *("added", "can never fit", "left waiting", "cancelled while waiting", "cancelled while running"),
        *("id refused", "id used again", "late report ignored", "late report for a new owner of the id"),
        "late report between cancel and release",
    ]
    assert min(seen[event] for event in rare) >= 10, f"these histories do not show what they should: {seen}"


def test_one_core_plays_at_least_2000_histories_a_minute(capsys):
    start = time.process_time()
    seen = play_random_histories(300)
    per_minute = 60 * seen["histories"] / (time.process_time() - start)
    with capsys.disabled():
        print(f"\n  scheduler: {per_minute:,.0f} random histories a minute on one core; {dict(seen)}")
    assert per_minute >= 2000


# What the work grows with. Counting bytecodes shows every Python loop, and timing those that run inside C.


def with_running(requests: int) -> Scheduler:
    """A scheduler of a fixed size on which so many requests run."""
    scheduler = Scheduler(num_pages=65_536, num_rows=32_768, encode_budget=10**9)
    for request_id in range(requests):
        scheduler.add(request_id, SMALL)
    assert len(scheduler.schedule().admitted) == scheduler.running == requests
    return scheduler


def with_waiting(requests: int) -> Scheduler:
    """A scheduler in whose line so many requests of 100 priorities wait behind a head that does not fit."""
    scheduler = Scheduler(num_pages=2, num_rows=1, encode_budget=100)
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
    sys.settrace(tally)
    try:
        call()
    finally:
        sys.settrace(before)
    return bytecodes


def best_time(call) -> float:
    """Seconds of the fastest of 300 calls, which is the one that nothing else disturbed."""
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


def finish_one_and_admit_another(scheduler: Scheduler, turn: int) -> None:
    scheduler.update(0, {turn: STOP})
    scheduler.add(10**6 + turn, SMALL)
    step = scheduler.schedule()
    assert (step.released, admitted(step)) == ((Release(turn, STOP),), [10**6 + turn])


def cancel_one_in_line_and_add_another(scheduler: Scheduler, turn: int) -> None:
    scheduler.cancel(turn)
    scheduler.add(10**6 + turn, SMALL, priority=turn % 100)
    assert scheduler.schedule() == Step(turn + 1, (Release(turn, CANCELLED),), (), 1)


@pytest.mark.parametrize(
    ("event", "prepare"),
    [(finish_one_and_admit_another, with_running), (cancel_one_in_line_and_add_another, with_waiting)],
)
def test_an_event_costs_no_more_among_20_000_requests_than_among_400(event, prepare):
    bytecodes, seconds = [], []
    for requests in (400, 20_000):
        scheduler, turns = prepare(requests), count()
        bytecodes.append(bytecodes_run(lambda s=scheduler, t=turns: event(s, next(t))))
        seconds.append(best_time(lambda s=scheduler, t=turns: event(s, next(t))))
    assert bytecodes[1] < 1.5 * bytecodes[0]
    assert seconds[1] < 5 * seconds[0]
