"""The CPU worker pool: parts of a step side by side, one core each."""

import sys
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tritone.scheduler.device.cpu_pool import CpuWorkerPool, balanced


@pytest.fixture(scope="module")
def cpu_pool() -> CpuWorkerPool:
    return CpuWorkerPool(3)


def test_results_come_in_the_order_of_the_parts(cpu_pool: CpuWorkerPool):
    assert cpu_pool.run(cpu_pool.map, lambda part: part * part, list(range(20))) == [
        part * part for part in range(20)
    ]


def test_parts_run_side_by_side(cpu_pool: CpuWorkerPool):
    together = threading.Barrier(3, timeout=20)  # broken unless three wait at once
    assert cpu_pool.run(cpu_pool.map, lambda part: together.wait() >= 0, [1, 2, 3]) == [True, True, True]


def test_each_part_has_one_core_and_needs_no_gradient(cpu_pool: CpuWorkerPool):
    def conditions(_: int) -> tuple[int, bool]:
        return torch.get_num_threads(), torch.is_inference_mode_enabled()

    before = torch.get_num_threads()
    assert set(cpu_pool.run(cpu_pool.map, conditions, list(range(9)))) == {(1, True)}
    assert torch.get_num_threads() == before


def test_new_threads_of_the_user_keep_what_torch_was_set_to():
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        CpuWorkerPool(2).run(int)
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert seen == [5]
    finally:
        torch.set_num_threads(before)


def test_the_first_part_that_fails_is_raised_once_all_have_stopped(cpu_pool: CpuWorkerPool):
    running = threading.Semaphore(0)

    def fail(part: int) -> None:
        if part == 1:
            raise KeyError(part)
        running.release()

    with pytest.raises(KeyError):
        cpu_pool.run(cpu_pool.map, fail, [0, 1, 2])
    assert cpu_pool.run(cpu_pool.map, lambda part: part, [7]) == [7]


@pytest.mark.parametrize("kind", [KeyError, MemoryError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_fault_of_any_kind_is_the_callers_and_the_threads_go_on(cpu_pool: CpuWorkerPool, kind: type):
    def fail(part: int) -> None:
        raise kind(part)

    for call in (lambda: cpu_pool.run(fail, 1), lambda: cpu_pool.run(cpu_pool.map, fail, [0, 1, 2])):
        with pytest.raises(kind):
            call()
    assert cpu_pool.run(cpu_pool.map, lambda part: part, [7, 8, 9]) == [7, 8, 9]


def test_threads_end_with_their_pool():
    before = threading.active_count()
    pool = CpuWorkerPool(3)
    assert pool.run(pool.map, lambda part: part, [1, 2, 3]) == [1, 2, 3]
    threads = list(pool._threads)
    assert threading.active_count() == before + 3
    del pool
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_fewer_threads_do_the_work_where_no_more_can_be_started(monkeypatch: pytest.MonkeyPatch):
    start, started, limit = threading.Thread.start, [], [0]
    usual = torch.get_num_threads()

    def limited(thread: threading.Thread) -> None:
        if len(started) == limit[0]:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    for limit[0] in (2, 3):  # a thread of the pool needs another for a moment
        started.clear()
        pool = CpuWorkerPool(3)
        assert pool.run(pool.map, lambda part: part, [1, 2, 3]) == [1, 2, 3]
        assert len(pool._threads) == 1
    for limit[0] in (0, 1):
        started.clear()
        with pytest.raises(RuntimeError, match="can't start"):
            CpuWorkerPool(3).run(int)
    assert torch.get_num_threads() == usual


def test_the_switch_interval_is_short_while_pools_work_and_the_usual_one_after(cpu_pool: CpuWorkerPool):
    usual, other = sys.getswitchinterval(), CpuWorkerPool(2)
    within = cpu_pool.run(lambda: (other.run(sys.getswitchinterval), sys.getswitchinterval()))
    assert max(within) < usual
    assert sys.getswitchinterval() == usual


def test_a_processor_with_one_thread_and_a_gpu_have_no_pool(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert CpuWorkerPool.for_device(torch.device("cpu")) is None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert CpuWorkerPool.for_device(torch.device("cuda")) is None
    made = CpuWorkerPool.for_device(torch.device("cpu"))
    assert made is not None
    assert made.size == 4


@given(st.lists(st.integers(1, 1000), min_size=1), st.integers(1, 9))
def test_balanced_shares_lose_nothing_and_differ_by_one_part_at_most(costs: list[int], count: int):
    shares = balanced(list(range(len(costs))), costs, count)
    assert sorted(part for share in shares for part in share) == list(range(len(costs)))
    assert len(shares) == min(count, len(costs))
    assert all(share == sorted(share) and share for share in shares)
    totals = [sum(costs[part] for part in share) for share in shares]
    assert max(totals) - min(totals) <= max(costs)
