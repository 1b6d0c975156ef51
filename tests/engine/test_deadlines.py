"""Deadlines: a request ends by its own, wherever it is, and the others go on."""

import math
import pickle
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in_loop import OPTIONS, SOON, SPELLER, submit

import tritone
from tritone.engine.config import EngineConfig
from tritone.engine.handle import Handle
from tritone.engine.jobs import Deadlines, Job
from tritone.engine.session import Session, SessionRequest
from tritone.engine.tasks.generation import TokenProcessor
from tritone.engine.tasks.inputs import Inputs
from tritone.engine.worker import Worker

ONE_READER = EngineConfig(num_readers=1)
AT_ONCE = 0.005  # seconds
NEVER = 1000.0


class Gate:
    """A source whose reading waits until it may end."""

    def __init__(self) -> None:
        self.entered, self.end = threading.Event(), threading.Event()

    def __call__(self):
        self.entered.set()
        assert self.end.wait(SOON)
        return Inputs(2, 2.0), OPTIONS


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.end.set()


def pass_deadline(worker, handle):
    """Wait until the deadline of an unfinished request has passed."""
    job = worker._jobs[handle]
    while not job.is_late:
        time.sleep(0.001)


def error_of(handle):
    result = handle.outcome(SOON)
    assert (result.text, result.finish_reason) == ("", "error")
    assert isinstance(result.error, tritone.DeadlineError)
    assert isinstance(result.error, TimeoutError)
    return str(result.error)


def pieces_of(handle):
    """Pieces of a late request that its iterator yields before it raises."""
    pieces = []
    try:
        pieces += (piece for piece in handle)
    except tritone.DeadlineError:
        return pieces
    pytest.fail("no deadline")


def test_a_request_that_is_read_too_long_ends_at_once_in_an_idle_engine(worker, loop, gate):
    start = time.perf_counter()
    handle = submit(worker, prepare=gate, time_limit=0.03)
    assert error_of(handle) == (
        "not finished by its deadline of 0.03 s, when it was being read; submit fewer at a time, or "
        "give it longer"
    )
    assert time.perf_counter() - start >= 0.03
    with pytest.raises(tritone.DeadlineError, match="being read"):
        handle.result(SOON)
    assert worker._queue.free_requests == 3  # of 4, until the reader returns
    gate.end.set()
    assert submit(worker, 2).result(SOON).text == "1 2"
    assert loop.order == [2]
    assert worker._queue.free_requests == 4


def test_an_earlier_deadline_that_comes_later_wakes_an_idle_engine(worker, gate):
    later = submit(worker, prepare=gate, time_limit=NEVER)
    assert gate.entered.wait(SOON)
    time.sleep(0.01)  # the loop's thread waits for the later one
    error_of(submit(worker, prepare=gate, time_limit=AT_ONCE))
    assert not later.done()


def test_a_request_that_is_late_in_the_queue_is_never_read_and_ends_with_the_step(loop):
    worker = Worker(loop, max_in_flight=1, config=ONE_READER)
    loop.go.clear()
    first = submit(worker, 3)
    assert loop.entered.wait(SOON)
    late = submit(worker, prepare=lambda: pytest.fail("read past its deadline"), time_limit=AT_ONCE)
    other = submit(worker, 2)
    pass_deadline(worker, late)
    loop.go.set()
    assert "when it was waiting to be read" in error_of(late)
    assert [first.result(SOON).text, other.result(SOON).text] == ["1 2 3", "1 2"]
    worker.close(cancel=False)
    assert worker.stats().failed == 1


def test_a_reader_that_takes_a_late_request_ends_it_in_the_midst_of_a_step(loop, gate):
    worker = Worker(loop, max_in_flight=4, config=ONE_READER)
    loop.go.clear()
    slow = submit(worker, prepare=gate)
    assert gate.entered.wait(SOON)
    running = submit(worker, 1, prepared=True, priority=1)
    assert loop.entered.wait(SOON)
    late = submit(worker, prepare=lambda: pytest.fail("read past its deadline"), time_limit=AT_ONCE)
    pass_deadline(worker, late)
    gate.end.set()
    error_of(late)
    assert not running.done()
    loop.go.set()
    assert [running.result(SOON).text, slow.result(SOON).text] == ["1", "1 2"]
    worker.close(cancel=False)
    assert worker._queue.free_requests == 4


def test_a_running_request_ends_in_the_step_after_its_deadline_and_its_text_was_yielded(worker, loop):
    handle, other = submit(worker, 10**9, time_limit=0.05), submit(worker, 10**9)
    assert "".join(pieces_of(handle)).startswith("1 2 3")
    assert "in the batch" in error_of(handle)
    assert [request.inputs for request, _ in loop.requests.values()] == [10**9]
    assert not other.done()
    assert other.cancel()


def test_a_step_leaves_out_a_request_that_becomes_late_in_it(worker, loop):
    loop.go.clear()
    handle = submit(worker, 5, time_limit=0.02)
    assert loop.entered.wait(SOON)
    ((request, _),) = loop.requests.values()
    assert request.is_wanted()
    pass_deadline(worker, handle)
    assert not request.is_wanted()
    loop.go.set()
    error_of(handle)


def test_a_request_that_was_cancelled_before_its_deadline_is_cancelled(worker, loop):
    loop.go.clear()
    handle = submit(worker, 5, time_limit=0.02)
    assert loop.entered.wait(SOON)
    assert handle.cancel()
    pass_deadline(worker, handle)
    loop.go.set()
    result = handle.outcome(SOON)
    assert (result.finish_reason, result.error) == ("cancelled", None)


def test_a_request_in_time_is_as_without_a_deadline_and_leaves_nothing_behind(worker):
    results = [submit(worker, 3, time_limit=limit).result(SOON) for limit in (NEVER, math.inf)]
    assert results == [submit(worker, 3).result(SOON)] * 2
    assert not worker._deadlines._jobs


class Windows(Session):
    """Windows of a recording one after the other, the third of which is never there in time."""

    def __init__(self, gate, tokens) -> None:
        self._gate, self._tokens, self._asked, self._received = gate, tokens, 0, 0
        self.duration = 9.0

    @property
    def is_complete(self):
        return False

    def next_request(self):
        if self._asked > self._received:
            return None
        self._asked += 1
        if self._asked == 3:
            self._gate()
        return SessionRequest(self._asked, self._tokens, OPTIONS)

    def receive(self, key, output):
        self._received += 1
        return [SimpleNamespace(text=f" {key}")]


class Joiner(TokenProcessor):
    def text_of(self, parts):
        return "".join(part.text for part in parts)


@pytest.mark.parametrize("tokens", [1, 10**9], ids=["between windows", "within a window"])
def test_a_session_ends_between_its_windows_and_within_one(worker, loop, gate, tokens):
    handle = Handle("long.wav", Joiner(SPELLER), worker.cancel)
    other = submit(worker, 10**9)
    worker.submit(Job(handle, lambda: Windows(gate, tokens), time_limit=0.2))
    pieces = pieces_of(handle)
    assert pieces == [" 1", " 2"][: len(pieces)]  # as far as it came in that time
    assert gate.entered.is_set() <= (tokens == 1)
    assert not other.done()
    gate.end.set()
    other.cancel()
    other.outcome(SOON)
    worker.close(cancel=False)
    assert worker._queue.free_requests == 4
    assert not loop.requests


TIMES = st.floats(0, 100)


@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "discard", "pass"]), TIMES), max_size=300))
def test_no_history_of_deadlines_misses_one_or_keeps_what_has_ended(steps):
    deadlines, waiting, now = Deadlines(), [], 0.0
    for step, number in steps:
        if step == "add":
            limit = number if number < 90 else math.inf
            job = SimpleNamespace(time_limit=limit, deadline=now + limit)
            deadlines.add(job)
            waiting.append(job)
        elif step == "discard" and waiting:
            deadlines.discard(waiting.pop(int(number) % len(waiting)))
        elif step == "pass":
            now += number / 10
            due = [job for job in waiting if job.deadline <= now]
            assert sorted(map(id, deadlines.take_late(now))) == sorted(map(id, due))
            waiting = [job for job in waiting if job.deadline > now]
        assert deadlines.first <= min((job.deadline for job in waiting), default=math.inf)
        assert len(deadlines._heap) <= 3 * len(waiting) + 65


# With a model.


@pytest.fixture(scope="module")
def engine():
    with tritone.Engine("digits", device="cpu", num_rows=2) as engine:
        yield engine


def test_late_requests_fail_alone_and_free_what_they_had(engine):
    audio = "samples/digits/six_digits_16k.flac"
    wanted = engine.submit(audio).result(SOON)
    long = np.random.default_rng(0).standard_normal(16_000 * 60).astype(np.float32)
    late = [engine.submit(long if n % 2 else audio, deadline=1e-6 * 10**n, num_beams=2) for n in range(6)]
    others = [engine.submit(audio) for _ in range(6)]
    assert [other.result(SOON) for other in others] == [wanted] * 6
    results = [handle.outcome(SOON) for handle in late]
    assert all(result.error is None or type(result.error) is tritone.DeadlineError for result in results)
    assert results[0].error is not None
    assert str(pickle.loads(pickle.dumps(results[0].error))) == str(results[0].error)
    assert engine.submit(audio).result(SOON) == wanted
    until = time.monotonic() + SOON
    while engine.stats().pages_used and time.monotonic() < until:
        time.sleep(0.001)
    stats = engine.stats()
    assert (stats.pages_used, stats.running, stats.waiting) == (0, 0, 0)


def test_each_recording_of_an_iterator_has_a_deadline_of_its_own(engine):
    audio = ["samples/digits/six_digits_16k.flac"] * 4
    assert all(result.error is None for result in engine.transcribe(audio, deadline=SOON))
    results = list(engine.transcribe(audio, deadline=1e-6))
    assert [type(result.error) for result in results] == [tritone.DeadlineError] * 4
    assert [result.source for result in results] == audio


@pytest.mark.parametrize("deadline", [0, -1.0, math.nan, math.inf, True, "1"])
def test_a_deadline_that_is_not_ahead_is_refused(engine, deadline):
    with pytest.raises(ValueError, match="must be a positive number of seconds, or None"):
        engine.submit("a.wav", deadline=deadline)
    with pytest.raises(ValueError, match="must be a positive number"):
        engine.transcribe([], deadline=deadline)


@pytest.mark.parametrize("timeout", [-1.0, math.nan])
def test_a_time_for_closing_that_is_negative_is_refused(engine, timeout):
    with pytest.raises(ValueError, match=r"timeout is .*; it must be 0 or more seconds"):
        engine.close(timeout=timeout)
    assert engine.health().status == "ok"
