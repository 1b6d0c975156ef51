"""Closing: it ends within seconds, from anywhere, whatever the threads are at."""

import gc
import signal
import threading
import time

import pytest
from stand_in_loop import OPTIONS, SOON, submit

from tritone.engine.config import EngineConfig
from tritone.engine.handle import in_order
from tritone.engine.tasks.inputs import Inputs
from tritone.engine.worker import Worker

IMPATIENT = EngineConfig(close_timeout=0.2)


@pytest.fixture
def hung():
    """A function that no reading thread returns from before the test ends."""
    end = threading.Event()

    def read():
        end.wait(SOON)
        return Inputs(1, 2.0), OPTIONS

    yield read
    end.set()


def test_a_request_whose_reading_hangs_can_be_cancelled_and_its_place_is_free_once_it_returns(loop):
    worker, begun, end = Worker(loop, max_in_flight=1), threading.Event(), threading.Event()

    def read():
        begun.set()
        end.wait(SOON)
        return Inputs(1, 2.0), OPTIONS

    handle, waiting = submit(worker, prepare=read), submit(worker, 2)
    assert begun.wait(SOON)  # or it is cancelled in the queue, and has no place
    assert handle.cancel()
    assert handle.result(SOON).finish_reason == "cancelled"
    assert not waiting.done()
    end.set()
    assert waiting.result(SOON).text == "1 2"
    assert (worker._queue.free_requests, worker._being_read) == (1, 0)
    worker.close(cancel=False)


@pytest.mark.parametrize("hangs", ["reading", "step"])
def test_close_leaves_a_thread_that_hangs_alone_after_its_time(loop, hung, hangs):
    worker = Worker(loop, max_in_flight=9, config=IMPATIENT)
    if hangs == "step":
        loop.go.clear()
    handles = [submit(worker, prepare=hung if hangs == "reading" else None) for _ in range(5)]
    until = time.monotonic() + SOON
    while not (worker._being_read == 2 or loop.entered.is_set()) and time.monotonic() < until:
        time.sleep(0.001)
    start = time.monotonic()
    worker.close(cancel=True)
    assert 0.1 < time.monotonic() - start < 2
    assert {handle.result(0).finish_reason for handle in handles} == {"cancelled"}
    start = time.monotonic()
    worker.close(cancel=False)  # and no second time
    assert time.monotonic() - start < 0.1
    loop.go.set()


def test_a_step_that_ends_after_its_requests_were_given_up_ends_the_thread(loop):
    worker = Worker(loop, max_in_flight=9, config=IMPATIENT)
    loop.go.clear()
    handle = submit(worker, 1)
    assert loop.entered.wait(SOON)
    worker.close(cancel=True)
    loop.go.set()
    for thread in worker._threads:
        thread.join(SOON)
        assert not thread.is_alive()
    assert handle.result(0).finish_reason == "cancelled"
    assert worker.stats().cancelled == 1
    assert worker.stats().finished == 0


def test_close_finishes_what_it_can_in_its_time_and_cancels_the_rest(loop):
    worker = Worker(loop, max_in_flight=2, config=IMPATIENT)
    endless = [submit(worker, 10**9) for _ in range(2)]
    soon = submit(worker, 2, priority=1)
    waiting = [submit(worker, 2) for _ in range(3)]
    start = time.monotonic()
    worker.close(cancel=False, timeout=0.1)
    assert 0.1 <= time.monotonic() - start < 2
    assert {handle.result(0).finish_reason for handle in (*endless, *waiting)} == {"cancelled"}
    assert soon.result(0).finish_reason in ("stop", "cancelled")
    assert not worker._running


@pytest.mark.parametrize("timeout", [None, 100.0])
def test_close_takes_no_longer_than_its_requests(loop, timeout):
    worker = Worker(loop, max_in_flight=2)
    handles = [submit(worker, 3) for _ in range(5)]
    worker.close(cancel=False, timeout=timeout)
    assert {handle.result(0).text for handle in handles} == {"1 2 3"}
    assert not worker._running


def test_close_with_a_time_leaves_a_thread_that_hangs_alone(loop, hung):
    worker = Worker(loop, max_in_flight=9, config=IMPATIENT)
    handle = submit(worker, prepare=hung)
    start = time.monotonic()
    worker.close(cancel=False, timeout=0.0)
    assert time.monotonic() - start < 2
    assert handle.result(0).finish_reason == "cancelled"


@pytest.mark.parametrize("cancel", [False, True])
def test_close_from_within_one_of_the_threads_does_not_wait_for_itself(loop, cancel):
    worker = Worker(loop, max_in_flight=4)

    def closing():
        worker.close(cancel)
        return Inputs(2, 2.0), OPTIONS

    reason = submit(worker, prepare=closing).outcome(SOON).finish_reason
    assert reason == "stop" or (cancel and reason == "cancelled")
    worker.close(cancel=False)
    assert not worker._running


def test_close_from_the_loops_own_thread_does_not_wait_for_itself(worker, loop):
    step = loop.step

    def closing():
        worker.close(cancel=False)
        return step()

    loop.step = closing
    assert submit(worker, 2).outcome(SOON).text == "1 2"
    worker.close(cancel=False)


def test_many_threads_may_close_and_submit_at_once_and_each_handle_ends(loop):
    for cancels in ([False] * 6, [False] * 5 + [True], [True] * 6):
        worker, handles = Worker(loop, max_in_flight=4), []

        def submitting(worker=worker, handles=handles):
            try:
                while True:
                    handles.append(submit(worker, 2))
            except RuntimeError:
                pass

        threads = [threading.Thread(target=submitting) for _ in range(3)]
        threads += [threading.Thread(target=worker.close, args=(cancel,)) for cancel in cancels]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
            assert not thread.is_alive()
        assert all(handle.done() for handle in handles)


@pytest.fixture
def interrupt():
    """A function that interrupts the main thread, as Ctrl-C does, after so many seconds; 0 never."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_an_interrupt_of_close_cancels_what_it_waits_for(loop, interrupt):
    worker = Worker(loop, max_in_flight=4)
    handles = [submit(worker, 10**9) for _ in range(8)]
    interrupt(0.1)
    with pytest.raises(KeyboardInterrupt):
        worker.close(cancel=False)
    for handle in handles:
        assert handle.result(SOON).finish_reason == "cancelled"
    worker.close(cancel=False)
    assert not worker._running


def uses(worker, handles):
    """Calls of a user's, which one after the other may be interrupted."""
    return [
        lambda: handles.extend(submit(worker, 3) for _ in range(40)),
        lambda: [handle.result(SOON) for handle in handles],
        lambda: [handle.cancel() for handle in handles],
        lambda: [list(handle) for handle in handles[-5:]],
        lambda: list(in_order(range(1, 9), lambda n: submit(worker, n), ahead=5)),
    ]


def test_interrupts_at_any_instruction_leave_nothing_locked_and_no_request_unfinished(loop, interrupt):
    interrupts = 0
    for number in range(20):
        worker, handles = Worker(loop, max_in_flight=4), []
        for attempt in range(50):
            try:
                interrupt(1e-6 * (attempt * (number + 1) % 311 + 1))
                uses(worker, handles)[attempt % 5]()
                time.sleep(0.001)
                interrupt(0)
            except KeyboardInterrupt:
                interrupts += 1
        worker.close(cancel=False)
        assert all(handle.done() for handle in handles)
        assert not worker._running
    assert interrupts > 500


def test_garbage_collection_may_drop_an_iterator_while_its_thread_holds_the_lock(worker):
    results = in_order([1, 10**9, 10**9], lambda n: submit(worker, n), ahead=3)
    next(results)
    cycle = [results]
    cycle.append(cycle)
    del results, cycle
    with worker._lock:  # as in the midst of a submission
        gc.collect()
        worker.close(cancel=True)
    worker.close(cancel=False)
    assert not worker._jobs
