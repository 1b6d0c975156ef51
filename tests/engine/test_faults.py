"""Faults of every kind in the engine's threads: each ends its request or fails the engine; nothing hangs."""

import ctypes
import threading
import time

import pytest
from stand_in_loop import OPTIONS, SOON, SPELLER, submit

from tritone.engine.config import EngineConfig
from tritone.engine.handle import Handle, in_order
from tritone.engine.jobs import Job
from tritone.engine.tasks.generation import TokenProcessor
from tritone.engine.tasks.inputs import Inputs
from tritone.engine.worker import Worker


class Panic(BaseException):
    """A fault like those of libraries in Rust, which is no Exception."""


KINDS = [
    OSError("fault"),
    MemoryError("fault"),
    Panic("fault"),
    SystemExit("fault"),
    KeyboardInterrupt("fault"),
    GeneratorExit("fault"),
    StopIteration("fault"),
]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)


def raising(kind):
    def function(*_, **__):
        raise kind

    return function


def assert_works(worker):
    assert submit(worker, 2).result(SOON).text == "1 2"
    assert worker.health().status == "ok"


@kinds
def test_a_fault_of_any_kind_while_reading_is_the_error_of_that_request(worker, kind):
    failed = submit(worker, prepare=raising(kind)).outcome(SOON)
    assert "fault" in str(failed.error)
    assert isinstance(failed.error, Exception)
    assert_works(worker)


@pytest.mark.parametrize("prepared", [None, (), (1, OPTIONS), (Inputs(1, "long"), OPTIONS)])
def test_what_a_reader_cannot_pass_on_is_the_error_of_that_request(worker, prepared):
    assert submit(worker, prepare=lambda: prepared).outcome(SOON).error is not None
    assert_works(worker)


@kinds
def test_a_fault_of_any_kind_in_submission_to_the_loop_is_the_error_of_that_request(worker, loop, kind):
    loop.refuse = kind
    assert "fault" in str(submit(worker).outcome(SOON).error)
    loop.refuse = None
    assert_works(worker)


@kinds
@pytest.mark.parametrize("site", ["step", "stats"])
def test_a_fault_of_any_kind_in_a_step_fails_the_engine_and_ends_all(worker, loop, kind, site):
    setattr(loop, site, raising(kind))
    with worker._lock:  # or it fails before all are there
        handles = [submit(worker) for _ in range(9)]
    for handle in handles:
        assert "fault" in str(handle.outcome(SOON).error)
    with pytest.raises(RuntimeError, match="stopped on an error"):
        submit(worker)
    worker.close(cancel=False)
    assert worker.stats().failed == 9
    assert worker.health().status == "failed"
    assert "fault" in worker.health().reason
    assert not worker._running


def test_memory_that_runs_out_while_a_failed_engine_ends_its_requests_leaves_none(worker, loop, monkeypatch):
    loop.error = MemoryError("full")
    finish, calls = Handle.finish, []

    def once(handle, *arguments):
        calls.append(handle)
        if calls.count(handle) == 1:
            raise MemoryError("full again")
        finish(handle, *arguments)

    monkeypatch.setattr(Handle, "finish", once)
    handles = [submit(worker) for _ in range(3)]
    for handle in handles:
        assert "full" in str(handle.outcome(SOON).error)


@pytest.mark.parametrize("name", ["_next_to_read", "_leave_reader"])
def test_a_fault_of_the_reader_itself_fails_the_engine(loop, monkeypatch, name):
    worker = Worker(loop, max_in_flight=4)
    original = getattr(worker, name)
    ready = threading.Event()

    def broken(*arguments):
        original(*arguments)
        ready.wait(SOON)
        raise Panic("between two requests")

    monkeypatch.setattr(worker, name, broken)
    handles = [submit(worker) for _ in range(6)]  # readers that wait already take one each
    ready.set()
    for handle in handles:
        handle.outcome(SOON)
    worker.close(cancel=False)
    assert worker.health().status == "failed"
    assert not worker._running


def test_a_reader_that_is_killed_within_a_request_ends_it(worker):
    reading = threading.Event()

    def long():
        reading.set()
        for _ in range(10**4):
            time.sleep(0.001)

    handle = submit(worker, prepare=long)
    assert reading.wait(SOON)
    for thread in worker._threads[1:]:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Panic))
    assert "Panic" in str(handle.outcome(SOON).error)
    # The other reader dies where it waits, once it wakes up.
    worker.close(cancel=True)
    assert not worker._running


@kinds
def test_a_fault_of_the_output_processor_is_the_error_of_the_request(worker, kind):
    class Broken(TokenProcessor):
        def decode(self, token_ids):
            raise kind

    handle = Handle("a", Broken(SPELLER), worker.cancel)
    worker.submit(Job(handle, lambda: (Inputs(3, 2.0), OPTIONS)))
    if isinstance(kind, KeyboardInterrupt | SystemExit):  # in the user's thread these are the user's
        with pytest.raises(type(kind)):
            handle.outcome(SOON)
        return
    with pytest.raises(Exception, match="fault"):
        list(handle)
    assert "fault" in str(handle.outcome(SOON).error)
    assert (handle.outcome().finish_reason, handle.outcome().text) == ("error", "")
    assert_works(worker)


def test_a_tokenizer_that_fails_while_streaming_costs_pieces_and_no_text(worker):
    class NotYet(TokenProcessor):
        def decode(self, token_ids):
            if len(token_ids) < 90:
                raise Panic("too few")
            return super().decode(token_ids)

    handle = Handle("a", NotYet(SPELLER), worker.cancel)
    worker.submit(Job(handle, lambda: (Inputs(100, 2.0), OPTIONS)))
    assert "".join(handle) == handle.result(SOON).text
    assert handle.result().text.startswith("1 2 3")


@kinds
def test_sources_that_raise_lose_no_result_of_those_before(worker, kind):
    def sources():
        yield from (1, 2, 3)
        raise kind

    results, found = in_order(sources(), lambda n: submit(worker, n), ahead=9), []
    with pytest.raises((type(kind), RuntimeError)):
        found.extend(result.text for result in results)
    if not isinstance(kind, KeyboardInterrupt | SystemExit):
        assert found == ["1", "1 2", "1 2 3"]


def test_a_stop_iteration_of_a_submission_is_an_error_and_not_the_end_of_the_sources(worker):
    def submitted(n):
        if n == 2:
            raise StopIteration
        return submit(worker, n)

    results = in_order([1, 2, 3], submitted, ahead=9)
    assert next(results).text == "1"
    with pytest.raises(RuntimeError):
        next(results)


def test_threads_that_cannot_be_started_leave_none_behind(loop, monkeypatch):
    start, before = threading.Thread.start, threading.active_count()
    started = []

    def limited(thread):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="can't start"):
        Worker(loop, max_in_flight=4, config=EngineConfig(num_readers=4))
    for thread in started:
        thread.join(SOON)
    assert threading.active_count() == before
