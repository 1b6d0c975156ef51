"""The scheduler's own cost of a step: 1,024 requests run, 24 of them leave and 24 join."""

from itertools import count

from tritone.scheduler.request import FinishReason
from tritone.scheduler.scheduler import Demand, Scheduler

RUNNING, CHANGING = 1024, 24
DEMAND = Demand(encode_tokens=300, decode_positions=64, hypotheses=1)


def test_step_with_requests_that_join_and_leave(benchmark) -> None:
    scheduler = Scheduler(num_pages=64 * RUNNING, num_slots=RUNNING, encode_budget=10**9)
    ids = count()
    for _ in range(RUNNING):
        scheduler.add(next(ids), DEMAND)
    running = [admission.request_id for admission in scheduler.schedule().admitted]

    def step() -> None:
        for _ in range(CHANGING):
            scheduler.add(next(ids), DEMAND)
        plan = scheduler.schedule()
        ended = [running.pop(0) for _ in range(CHANGING)]
        running.extend(admission.request_id for admission in plan.admitted)
        scheduler.update(plan.number, dict.fromkeys(ended, FinishReason.STOP))

    benchmark(step)
    assert scheduler.running >= RUNNING - CHANGING


def test_step_where_nothing_changes(benchmark) -> None:
    scheduler = Scheduler(num_pages=64 * RUNNING, num_slots=RUNNING, encode_budget=10**9)
    for request_id in range(RUNNING):
        scheduler.add(request_id, DEMAND)
    scheduler.schedule()
    assert not benchmark(scheduler.schedule).admitted
