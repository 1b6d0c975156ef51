"""Thousands of random histories of the scheduler, and the invariants of all of them.

The device is a dictionary of remaining lengths. Its reports reach the scheduler when the history says so, up
to four plans late, out of order and repeatedly.
"""

import random
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tritone.scheduler.block_allocator import PAGE_SIZE
from tritone.scheduler.request import FinishReason
from tritone.scheduler.scheduler import CapacityError, Demand, Release, Scheduler, Step

STOP, LENGTH, CANCELLED, ERROR = (FinishReason(name) for name in ("stop", "length", "cancelled", "error"))


def admitted(step: Step) -> list[int]:
    return [admission.request_id for admission in step.admitted]


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
    """State of one added request in the test."""

    request_id: int
    arrival: int
    add: Add
    remaining: int
    pages: set[int] = field(default_factory=set)
    slots: set[int] = field(default_factory=set)


class History:
    """Player of operations on a scheduler that checks every plan against them."""

    def __init__(self, num_pages: int, num_slots: int, encode_budget: int) -> None:
        self.num_pages, self.num_slots, self.encode_budget = num_pages, num_slots, encode_budget
        self.scheduler = Scheduler(num_pages, num_slots, encode_budget)
        self.waiting: list[Entry] = []
        self.running: dict[int, Entry] = {}
        self.ended: list[tuple[Entry, FinishReason]] = []  # releases that the next step owes
        self.in_flight: list[
            tuple[int, int, dict[int, tuple[Entry, FinishReason]]]
        ] = []  # due, step, finished
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
        elif pages > self.num_pages or rows > self.num_slots:
            self.seen["can never fit"] += 1
            numbers = (pages, self.num_pages) if pages > self.num_pages else (rows, self.num_slots)
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
        assert step.decode_steps == (plan.decode_steps if any(e.slots for e in self.running.values()) else 0)
        self.run_on_the_device(step, plan)
        for update in [update for update in self.in_flight if update[0] <= step.number]:
            self.in_flight.remove(update)
            self.deliver(*update[1:])

    def check_admissions(self, step: Step) -> None:
        in_line = sorted(self.waiting, key=lambda entry: (-entry.add.priority, entry.arrival))
        new, left = in_line[: len(step.admitted)], in_line[len(step.admitted) :]
        assert admitted(step) == [entry.request_id for entry in new], "a request was overtaken"
        used_pages = {page for entry in self.running.values() for page in entry.pages}
        used_slots = {slot for entry in self.running.values() for slot in entry.slots}
        for entry, admission in zip(new, step.admitted, strict=True):
            demand = entry.add.demand
            per_hypothesis = -(-demand.decode_positions // PAGE_SIZE)
            assert len(admission.slots) == len(admission.self_pages) == demand.hypotheses
            assert len(admission.cross_pages) == (
                -(-demand.encode_tokens // PAGE_SIZE) if demand.hypotheses else 0
            )
            assert all(len(pages) == per_hypothesis for pages in admission.self_pages)
            pages = [*admission.cross_pages, *(page for pages in admission.self_pages for page in pages)]
            for numbers, used, size in [
                (pages, used_pages, self.num_pages),
                (admission.slots, used_slots, self.num_slots),
            ]:
                assert len(set(numbers)) == len(numbers), "used twice within a request"
                assert used.isdisjoint(numbers), "used by another"
                assert all(0 <= number < size for number in numbers), "out of range"
                used.update(numbers)
            entry.pages, entry.slots = set(pages), set(admission.slots)
            self.running[entry.request_id] = entry
        self.waiting = [entry for entry in self.waiting if entry not in new]
        encode_tokens = sum(entry.add.demand.encode_tokens for entry in new)
        assert encode_tokens <= self.encode_budget or len(new) == 1
        self.seen["left waiting"] += bool(left)
        if left:
            head = left[0].add.demand
            assert (
                head.pages > self.num_pages - len(used_pages)
                or head.hypotheses > self.num_slots - len(used_slots)
                or (new and encode_tokens + head.encode_tokens > self.encode_budget)
            ), "the head fits and was left waiting"

    def run_on_the_device(self, step: Step, plan: Plan) -> None:
        for entry in self.running.values():
            entry.remaining -= plan.decode_steps
        finished = {id: (e, e.add.reason) for id, e in self.running.items() if e.remaining <= 0}
        self.in_flight.append((step.number + plan.delay, step.number, finished))

    def deliver(self, step: int, finished: dict[int, tuple[Entry, FinishReason]]) -> None:
        self.scheduler.update(step, {request_id: reason for request_id, (_, reason) in finished.items()})
        for request_id, (entry, reason) in finished.items():
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
        assert scheduler.slots_used == sum(len(entry.slots) for entry in holding)
        assert scheduler.has_work == bool(self.waiting or holding)

    def drain(self) -> None:
        longest = sum(max(entry.remaining, 0) + 7 for entry in [*self.waiting, *self.running.values()]) + 8
        while self.scheduler.has_work or self.in_flight:
            self.plan(Plan(decode_steps=1, delay=0))
            self.check_counts()
            longest -= 1
            assert longest >= 0, "some request is starved"
        assert self.released == self.added, "each ends exactly once"
        assert (self.scheduler.pages_used, self.scheduler.slots_used) == (0, 0)
        if self.num_slots:
            self.scheduler.add(-1, Demand(self.num_pages * PAGE_SIZE, 0, self.num_slots))
            (everything,) = self.scheduler.schedule().admitted
            assert everything.cross_pages.tolist() == list(range(self.num_pages))
            assert everything.slots == tuple(range(self.num_slots))


def pool_of_adds(size: int) -> list[Add]:
    """Requests that hypothesis draws by one number each; drawing every field takes longer than playing."""
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
    """Play so many histories drawn by hypothesis; returns the number of each kind of event."""
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
    assert min(seen[event] for event in rare) >= 10, f"these histories lack some kinds of events: {seen}"


def test_one_core_plays_at_least_2000_histories_a_minute(capsys):
    start = time.process_time()
    seen = play_random_histories(300)
    per_minute = 60 * seen["histories"] / (time.process_time() - start)
    with capsys.disabled():
        print(f"\n  scheduler: {per_minute:,.0f} random histories a minute on one core; {dict(seen)}")
    assert per_minute >= 2000
