"""The scheduler's policy, case by case."""

import subprocess
import sys

import pytest

from tritone.scheduler.request import FinishReason
from tritone.scheduler.scheduler import CapacityError, Demand, Release, Scheduler, Step

STOP, LENGTH, CANCELLED, ERROR = (FinishReason(name) for name in ("stop", "length", "cancelled", "error"))
SMALL = Demand(encode_tokens=16, decode_positions=16, hypotheses=1)  # 2 pages, 1 slot
ROOMY = {"num_pages": 1000, "num_slots": 100, "encode_budget": 10_000}


def admitted(step: Step) -> list[int]:
    return [admission.request_id for admission in step.admitted]


def test_a_demand_counts_pages_of_16_positions_shared_for_cross_and_per_hypothesis_for_self():
    demand = Demand(encode_tokens=300, decode_positions=33, hypotheses=5)
    assert (demand.cross_pages, demand.self_pages, demand.pages) == (19, 15, 34)
    assert Demand(16, 16, 1).pages == 2
    assert Demand(17, 17, 1).pages == 4
    assert Demand(0, 0, 3).pages == 0
    assert Demand(300, 33, 0).pages == 0, "an encoder-only request owns no page"


@pytest.mark.parametrize("name", ["encode_tokens", "decode_positions", "hypotheses"])
def test_a_negative_demand_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} is -1"):
        Demand(**{"encode_tokens": 1, "decode_positions": 1, "hypotheses": 1, name: -1})


def test_a_request_is_admitted_with_all_it_can_need_runs_and_is_released_once():
    scheduler = Scheduler(num_pages=20, num_slots=4, encode_budget=1000)
    scheduler.add(7, Demand(encode_tokens=40, decode_positions=30, hypotheses=3))
    assert (scheduler.waiting, scheduler.running, scheduler.has_work) == (1, 0, True)

    step = scheduler.schedule(decode_steps=4)
    assert (step.number, step.released, step.decode_steps) == (0, (), 4)
    (admission,) = step.admitted
    assert admission.request_id == 7
    assert admission.slots == (0, 1, 2)
    assert admission.cross_pages.tolist() == [0, 1, 2]
    assert admission.self_pages.tolist() == [[3, 4], [5, 6], [7, 8]]
    assert (scheduler.waiting, scheduler.running, scheduler.pages_used, scheduler.slots_used) == (0, 1, 9, 3)

    assert scheduler.schedule() == Step(1, (), (), 1), "a request that goes on is in no plan"
    scheduler.update(1, {7: STOP})
    assert (scheduler.running, scheduler.pages_used, scheduler.has_work) == (0, 9, True)
    assert scheduler.schedule(3) == Step(2, (Release(7, STOP),), (), 0)
    assert (scheduler.pages_used, scheduler.slots_used, scheduler.has_work) == (0, 0, False)
    assert scheduler.schedule() == Step(3, (), (), 0)


def test_an_empty_scheduler_plans_an_empty_step():
    assert Scheduler(**ROOMY).schedule(decode_steps=8) == Step(0, (), (), 0)


def test_pages_freed_by_a_step_are_used_in_the_same_step():
    scheduler = Scheduler(num_pages=2, num_slots=1, encode_budget=100)
    scheduler.add(1, SMALL)
    scheduler.add(2, SMALL)
    assert admitted(scheduler.schedule()) == [1]
    scheduler.update(0, {1: LENGTH})
    step = scheduler.schedule()
    assert step.released == (Release(1, LENGTH),)
    assert admitted(step) == [2]
    assert step.admitted[0].pages.tolist() == [0, 1]


def test_the_highest_priority_goes_first_and_arrival_decides_within_one():
    scheduler = Scheduler(num_pages=1000, num_slots=100, encode_budget=16)
    for request_id, priority in [(1, 0), (2, 5), (3, 0), (4, 5), (5, -1)]:
        scheduler.add(request_id, SMALL, priority)
    assert [admitted(scheduler.schedule()) for _ in range(5)] == [[2], [4], [1], [3], [5]]


def test_nothing_overtakes_a_head_that_does_not_fit_so_that_large_requests_do_not_starve():
    scheduler = Scheduler(num_pages=10, num_slots=10, encode_budget=1000)
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
    scheduler = Scheduler(num_pages=1000, num_slots=100, encode_budget=100)
    for request_id, tokens in enumerate([60, 40, 1, 500, 100, 1]):
        scheduler.add(request_id, Demand(tokens, 16, 1))
    assert [admitted(scheduler.schedule()) for _ in range(5)] == [[0, 1], [2], [3], [4], [5]]


def test_slots_limit_how_many_hypotheses_run():
    scheduler = Scheduler(num_pages=1000, num_slots=5, encode_budget=1000)
    for request_id in range(3):
        scheduler.add(request_id, Demand(16, 16, hypotheses=2))
    step = scheduler.schedule()
    assert [admission.slots for admission in step.admitted] == [(0, 1), (2, 3)]
    scheduler.update(0, {0: STOP})
    assert [admission.slots for admission in scheduler.schedule().admitted] == [(0, 1)]


def test_an_encoder_only_request_owns_nothing_asks_for_no_decode_step_and_ends_like_any_other():
    scheduler = Scheduler(num_pages=0, num_slots=0, encode_budget=100)
    scheduler.add(1, Demand(encode_tokens=400, decode_positions=0, hypotheses=0))
    scheduler.add(2, Demand(encode_tokens=50, decode_positions=0, hypotheses=0))
    step = scheduler.schedule()
    assert admitted(step) == [1]
    assert (step.admitted[0].slots, step.admitted[0].pages.tolist()) == ((), [])
    assert step.decode_steps == 0
    scheduler.update(0, {1: STOP})
    step = scheduler.schedule()
    assert (step.released, admitted(step)) == ((Release(1, STOP),), [2])


def test_a_request_that_can_never_fit_fails_at_once_with_the_numbers_and_leaves_no_trace():
    scheduler = Scheduler(num_pages=20, num_slots=4, encode_budget=100)
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


def test_a_running_request_that_is_cancelled_gives_its_pages_and_slots_to_the_next_step():
    scheduler = Scheduler(num_pages=2, num_slots=1, encode_budget=100)
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
        with pytest.raises(ValueError, match=r"num_pages=-?1, num_slots=-?1, encode_budget=[01]"):
            Scheduler(*sizes)
    with pytest.raises(ValueError, match="decode_steps is 0"):
        Scheduler(1, 1, 1).schedule(0)


def test_the_scheduler_is_imported_without_torch():
    modules = ", ".join(f"tritone.scheduler.{name}" for name in ("scheduler", "model_protocol", "config"))
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_full_batch_admits_in_every_fourth_step_and_an_empty_one_at_once():
    scheduler = Scheduler(num_pages=100, num_slots=2, encode_budget=1000, admit_every=4)
    for request_id in range(6):
        scheduler.add(request_id, Demand(encode_tokens=16, decode_positions=16, hypotheses=1))
    assert len(scheduler.schedule().admitted) == 2  # step 0, where slots run out
    scheduler.update(0, {0: FinishReason.STOP})
    assert [len(scheduler.schedule().admitted) for _ in range(4)] == [0, 0, 0, 1]
    scheduler.update(4, {1: FinishReason.STOP, 2: FinishReason.STOP})
    assert len(scheduler.schedule().admitted) == 2
    with pytest.raises(ValueError, match="admit_every is 0"):
        Scheduler(num_pages=1, num_slots=1, encode_budget=1, admit_every=0)
