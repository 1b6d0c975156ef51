"""Jobs of several requests, on a loop whose steps the test controls."""

import threading
import time
from dataclasses import dataclass

import pytest
from stand_in_loop import OPTIONS, SOON, SPELLER, submit

from tritone.engine.config import EngineConfig
from tritone.engine.handle import Handle
from tritone.engine.jobs import Job
from tritone.engine.outputs import OutputProcessor, Transcription
from tritone.engine.session import Session, SessionRequest
from tritone.engine.tasks.generation import TokenProcessor
from tritone.engine.worker import Worker
from tritone.scheduler.request import FinishReason, Hypothesis, RequestOutput


@dataclass(frozen=True)
class Word:
    text: str


class Chains(Session):
    """Chains of requests, each request after the one before it; their texts are the numbers of tokens."""

    def __init__(self, *chains):
        self._chains = [list(chain) for chain in chains]
        self._to_ask = list(range(len(chains)))
        self._left = sum(map(len, chains))
        self.fail_in = None
        self.duration = 7.0
        self.warnings = ("a warning",)

    @property
    def is_complete(self):
        return not self._left

    def next_request(self):
        if self.fail_in == "next_request":
            raise OSError("the disk is gone")
        if not self._to_ask:
            return None
        key = self._to_ask.pop(0)
        return SessionRequest(key, self._chains[key][0], OPTIONS)

    def receive(self, key, output):
        if self.fail_in == "receive":
            raise OSError("the disk is gone")
        assert len(output.hypotheses[0].token_ids) == self._chains[key][0] + 1
        self._left -= 1
        words = [Word(f" {self._chains[key].pop(0)}")]
        if self._chains[key]:
            self._to_ask.append(key)
        return words


class Joiner(TokenProcessor):
    text_of = OutputProcessor.text_of

    def join(self, output, parts, duration, source):
        text = "".join(part.text for part in parts)
        return Transcription(text, (), output.finish_reason, duration, source=source)


def submit_session(worker, session, **options):
    handle = Handle("long.wav", Joiner(SPELLER), worker.cancel)
    worker.submit(Job(handle, lambda: session, **options))
    return handle


def wait_until(condition):
    until = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_a_chain_of_requests_has_one_result_and_streams_its_parts(worker, loop):
    handle = submit_session(worker, Chains([2, 3, 1]))
    assert "".join(handle) == " 2 3 1"
    result = handle.result(SOON)
    assert (result.text, result.finish_reason, result.duration) == (" 2 3 1", "stop", 7.0)
    assert result.warnings == ("a warning",)
    assert loop.order == [2, 3, 1]
    assert worker.stats().finished == 1


def test_independent_requests_are_in_the_loop_at_once_up_to_the_places(worker, loop):
    loop.go.clear()
    handle = submit_session(worker, Chains(*([n] for n in (5, 5, 5, 5, 5, 5))))
    wait_until(lambda: loop.entered.is_set() and worker._queue.free_requests == 1)
    assert len(loop.order) + len(worker._ready) == 3  # of four, one of which is left to others
    assert submit(worker, 2) is not None
    wait_until(lambda: worker._queue.free_requests == 0)
    loop.go.set()
    assert handle.result(SOON).text == " 5" * 6
    wait_until(lambda: worker._queue.free_requests == 4)


def test_other_jobs_go_before_a_sessions_further_requests(loop):
    worker = Worker(loop, max_in_flight=2)
    loop.go.clear()
    long = submit_session(worker, Chains([1], [2], [3], [4]))
    wait_until(lambda: worker._queue.free_requests == 0)
    short = [submit(worker, n) for n in (6, 7)]
    loop.go.set()
    assert [handle.result(SOON).text.split()[-1] for handle in short] == ["6", "7"]
    assert sorted(long.result(SOON).text.split()) == ["1", "2", "3", "4"]
    assert set(loop.order[:2]) == {1, 2}
    assert loop.order.index(6) < loop.order.index(4)
    worker.close(cancel=False)
    assert worker._queue.free_requests == 2


def test_sessions_that_come_one_after_the_other_share_the_places_evenly(loop):
    worker = Worker(loop, max_in_flight=16)
    loop.go.clear()
    first = submit_session(worker, Chains(*([40] for _ in range(120))))
    wait_until(lambda: worker._queue.free_requests == 4)
    second = submit_session(worker, Chains(*([40] for _ in range(120))))
    wait_until(lambda: worker._queue.free_requests == 3)
    (one, other) = worker._jobs.values()
    loop.go.set()
    wait_until(lambda: one.places == other.places == 6 or first.done())
    assert not first.done()
    for handle in (first, second):
        assert handle.result(SOON).text.split() == ["40"] * 120
    worker.close(cancel=False)
    assert worker._queue.free_requests == 16


def test_a_sessions_requests_have_one_owner_and_a_jobs_none(worker, loop):
    loop.go.clear()
    submit_session(worker, Chains([10**9], [10**9]))
    wait_until(lambda: loop.entered.is_set())
    submit(worker, 2)
    loop.go.set()
    wait_until(lambda: len(loop.order) == 3)
    owners = {request.inputs: request.owner for request, _ in loop.requests.values()}
    assert owners.get(2) is None
    assert owners[10**9] is not None


def test_many_sessions_and_jobs_share_one_place_and_one_reader(loop):
    worker = Worker(loop, max_in_flight=1, config=EngineConfig(num_readers=1))
    sessions = [submit_session(worker, Chains([1, 2], [3])) for _ in range(5)]
    others = [submit(worker, 2) for _ in range(5)]
    for handle in sessions:
        assert sorted(handle.result(SOON).text.split()) == ["1", "2", "3"]
    assert all(handle.result(SOON).text == "1 2" for handle in others)
    worker.close(cancel=False)
    assert (worker._queue.free_requests, worker._being_read, worker._sessions) == (1, 0, 0)


def test_a_cancelled_session_has_its_parts_so_far_and_leaves_nothing_in_the_loop(worker, loop):
    handle = submit_session(worker, Chains([1, 10**9]))
    assert next(iter(handle)) == " 1"
    wait_until(lambda: len(loop.order) == 2)
    other = submit(worker, 3)
    assert handle.cancel()
    result = handle.result(SOON)
    assert (result.text, result.finish_reason) == (" 1", "cancelled")
    assert other.result(SOON).text == "1 2 3"
    wait_until(lambda: not loop.requests and worker._queue.free_requests == 4)
    assert not handle.cancel()


@pytest.mark.parametrize("place", ["receive", "next_request"])
def test_an_error_of_a_session_ends_it_alone_with_all_its_requests(worker, loop, place):
    session = Chains([1, 1], [10**9])
    loop.go.clear()
    handle = submit_session(worker, session)
    wait_until(lambda: loop.entered.is_set() and not session._to_ask)
    session.fail_in = place
    loop.go.set()
    with pytest.raises(OSError, match="the disk is gone"):
        handle.result(SOON)
    assert submit(worker, 2).result(SOON).text == "1 2"
    wait_until(lambda: not loop.requests and worker._queue.free_requests == 4)
    assert worker.stats().failed == 1
    assert worker._being_read == 0


def test_an_error_of_one_request_ends_its_session_alone(worker, loop):
    step = loop.step

    def failing():
        events = step()
        for index, event in enumerate(events):
            if [len(one.token_ids) for one in getattr(event, "hypotheses", ())] == [2]:
                failed = RequestOutput(event.request_id, (), FinishReason.ERROR, ValueError("too wide"))
                events[index] = failed
        return events

    loop.step = failing
    handle, other = submit_session(worker, Chains([3, 1], [10**9])), submit_session(worker, Chains([2, 4]))
    with pytest.raises(ValueError, match="too wide"):
        handle.result(SOON)
    assert other.result(SOON).text == " 2 4"
    wait_until(lambda: not loop.requests and worker._queue.free_requests == 4)


def test_a_request_whose_scores_are_not_finite_ends_its_session(worker, loop):
    def step():
        (request_id,) = list(loop.requests)
        del loop.requests[request_id]
        best = Hypothesis((0, 1), float("nan"), FinishReason.STOP)
        return [RequestOutput(request_id, (best,), FinishReason.STOP)]

    loop.step = step
    with pytest.raises(RuntimeError, match="not finite"):
        submit_session(worker, Chains([1])).result(SOON)


def test_a_request_that_the_loop_refuses_ends_its_session(worker, loop):
    session = Chains([1, 2])
    submit = loop.submit

    def refusing(request):
        if request.inputs == 2:
            raise ValueError("it can never fit")
        submit(request)

    loop.submit = refusing
    with pytest.raises(ValueError, match="it can never fit"):
        submit_session(worker, session).result(SOON)
    wait_until(lambda: worker._queue.free_requests == 4)


def test_a_session_that_has_no_more_requests_and_no_result_is_an_error(worker):
    session = Chains([1])
    session._left += 1
    with pytest.raises(RuntimeError, match="without a result"):
        submit_session(worker, session).result(SOON)


@pytest.mark.parametrize("cancel", [False, True])
def test_closing_finishes_sessions_or_cancels_them(loop, cancel):
    worker = Worker(loop, max_in_flight=3)
    loop.go.clear()
    handles = [submit_session(worker, Chains([2, 2, 2], [3])) for _ in range(4)]
    assert loop.entered.wait(SOON)
    closing = threading.Thread(target=worker.close, args=(cancel,))
    closing.start()
    loop.go.set()
    closing.join(SOON)
    assert not closing.is_alive()
    assert not worker._running
    for handle in handles:
        result = handle.result(0)
        if not cancel:
            assert sorted(result.text.split()) == ["2", "2", "2", "3"]
        assert result.finish_reason == ("cancelled" if cancel else "stop")


def test_a_failed_loop_ends_sessions_with_its_error(worker, loop):
    handle = submit_session(worker, Chains([1, 1, 1, 1, 10**9]))
    wait_until(lambda: len(loop.order) == 5)
    loop.error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        handle.result(SOON)
    worker.close(cancel=False)
    assert not worker._running


def test_sessions_have_priorities(loop):
    worker = Worker(loop, max_in_flight=1, config=EngineConfig(num_readers=1))
    loop.go.clear()
    first = submit(worker, 9)
    assert loop.entered.wait(SOON)
    handles = [submit_session(worker, Chains([n, 10 * n]), priority=n) for n in (1, 3, 2)]
    loop.go.set()
    for handle in (first, *handles):
        handle.result(SOON)
    assert loop.order == [9, 3, 30, 2, 20, 1, 10]
    worker.close(cancel=False)
