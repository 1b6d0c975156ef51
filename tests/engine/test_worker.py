"""The engine's threads, on a stand-in loop whose every step the test controls."""

import threading
import time

import pytest
from stand_in_loop import OPTIONS, SOON, SPELLER, submit

from tritone.engine.config import EngineConfig
from tritone.engine.handle import Handle
from tritone.engine.jobs import Job
from tritone.engine.outputs import Transcription
from tritone.engine.tasks.generation import TokenProcessor
from tritone.engine.tasks.inputs import Inputs
from tritone.engine.worker import Worker
from tritone.scheduler.request import FinishReason, RequestOutput

ONE_READER = EngineConfig(num_readers=1)


def test_a_job_ends_with_its_hypothesis_and_its_pieces_join_to_the_text(worker):
    handle = submit(worker, 4)
    assert "".join(handle) == "1 2 3 4"
    result = handle.result(SOON)
    assert (result.text, result.token_ids, result.finish_reason) == ("1 2 3 4", (0, 1, 2, 3, 4), "stop")
    assert (result.duration, result.score, result.error, result.source) == (2.0, -1.0, None, 4)
    assert "".join(handle) == "1 2 3 4"  # again, from the beginning


def test_pieces_come_while_the_rest_is_still_being_decoded(worker):
    handle = submit(worker, 10**9)
    pieces = iter(handle)
    first, second = next(pieces), next(pieces)
    assert (first + second).startswith("1 2")
    assert not handle.done()


def test_without_streaming_iteration_yields_the_text_once(worker):
    assert list(submit(worker, 4, stream=False)) == ["1 2 3 4"]


def test_only_one_thread_touches_the_loop(worker, loop):
    handles = [submit(worker, n % 5 + 1) for n in range(30)]
    handles[7].cancel()
    for handle in handles:
        handle.outcome(SOON)
    assert loop.threads == {"tritone-loop"}


def test_what_is_about_to_be_read_takes_part_in_the_first_step(loop):
    config = EngineConfig(num_readers=1, arrival_wait=SOON, total_arrival_wait=SOON)
    worker = Worker(loop, max_in_flight=9, config=config)
    read = threading.Semaphore(0)

    def slowly():
        assert read.acquire(timeout=SOON)
        return Inputs(1, 2.0), OPTIONS

    loop.go.clear()
    handles = [submit(worker, prepare=slowly) for _ in range(3)]
    for _ in handles:
        assert not loop.entered.is_set()
        read.release()
    assert loop.entered.wait(SOON)
    assert len(loop.requests) == 3
    loop.go.set()
    for handle in handles:
        handle.outcome(SOON)
    assert loop.steps == 1
    worker.close(cancel=True)


@pytest.mark.parametrize(("following", "together"), [(0.001, 1.0), (1.0, 0.001)])
def test_a_step_waits_for_no_recording_that_takes_long_to_read(loop, following, together):
    config = EngineConfig(arrival_wait=following, total_arrival_wait=together)
    worker = Worker(loop, max_in_flight=9, config=config)
    read = threading.Event()

    def slowly():
        assert read.wait(SOON)
        return Inputs(1, 2.0), OPTIONS

    last = submit(worker, prepare=slowly)
    assert submit(worker, 1).outcome(SOON).finish_reason == "stop"
    assert not last.done()
    read.set()
    assert last.outcome(SOON).finish_reason == "stop"
    worker.close(cancel=True)


def test_an_idle_worker_takes_no_steps(worker, loop):
    submit(worker, 2).result(SOON)
    steps = loop.steps
    time.sleep(0.05)
    assert loop.steps == steps == 2


def test_result_times_out_and_the_job_goes_on(worker, loop):
    loop.go.clear()
    handle = submit(worker, 2)
    with pytest.raises(TimeoutError, match="goes on"):
        handle.result(0.01)
    assert not handle.done()
    loop.go.set()
    assert handle.result(SOON).text == "1 2"


def test_a_recording_that_cannot_be_read_fails_alone(worker):
    def broken():
        raise OSError("disk on fire")

    handles = [submit(worker, 2), submit(worker, prepare=broken), submit(worker, 3)]
    with pytest.raises(OSError, match="disk on fire"):
        handles[1].result(SOON)
    with pytest.raises(OSError, match="disk on fire"):
        list(handles[1])
    failed = handles[1].outcome(SOON)
    assert (failed.text, failed.finish_reason, str(failed.error)) == ("", "error", "disk on fire")
    assert [handles[0].result(SOON).text, handles[2].result(SOON).text] == ["1 2", "1 2 3"]


def test_a_request_that_the_loop_refuses_fails_alone(worker, loop):
    loop.refuse = ValueError("can never fit")
    handle = submit(worker)
    with pytest.raises(ValueError, match="can never fit"):
        handle.result(SOON)
    loop.refuse = None
    assert submit(worker, 1).result(SOON).text == "1"


def test_an_error_in_the_loop_fails_all_that_is_pending_and_nothing_hangs(worker, loop):
    loop.go.clear()
    handles = [submit(worker) for _ in range(10)]  # more than may be in flight
    assert loop.entered.wait(SOON)
    loop.error = MemoryError("the device is full")
    loop.go.set()
    for handle in handles:
        with pytest.raises(MemoryError, match="the device is full"):
            handle.result(SOON)
    with pytest.raises(RuntimeError, match=r"stopped on an error.*the device is full"):
        submit(worker)
    worker.close(cancel=False)
    stats = worker.stats()
    assert (stats.failed, stats.waiting) == (10, 0)


def test_a_running_job_can_be_cancelled_and_keeps_what_it_had(worker, loop):
    handle = submit(worker, 10**9)
    pieces = iter(handle)
    first = next(pieces)
    assert handle.cancel()
    rest = "".join(pieces)
    result = handle.result(SOON)
    assert result.finish_reason == "cancelled"
    assert result.text == first + rest
    assert result.token_ids[:2] == (0, 1)
    assert not handle.cancel()
    assert not loop.requests


def test_a_job_can_be_cancelled_in_the_queue_and_while_it_is_read(worker, loop):
    reading, may_end = threading.Barrier(3), threading.Event()

    def slow():
        reading.wait(SOON)
        assert may_end.wait(SOON)
        return Inputs(2, 2.0), OPTIONS

    being_read = [submit(worker, prepare=slow) for _ in range(2)]  # both reading threads
    queued = submit(worker, prepare=lambda: pytest.fail("read after it was cancelled"))
    reading.wait(SOON)
    assert queued.cancel()
    assert queued.result(SOON).finish_reason == "cancelled"
    assert being_read[0].cancel()
    may_end.set()
    assert being_read[0].result(SOON).finish_reason == "cancelled"
    assert being_read[1].result(SOON).text == "1 2"
    assert loop.order == [2]


@pytest.mark.parametrize(
    ("limits", "ahead"),
    [
        ({"max_in_flight": 4}, 4),
        # Of 2 s each; the third began when a second was left.
        ({"max_in_flight": 100, "max_in_flight_seconds": 5.0, "config": ONE_READER}, 3),
    ],
    ids=["requests", "seconds"],
)
def test_no_more_is_read_ahead_than_may_be_in_flight(loop, limits, ahead):
    worker = Worker(loop, **limits)
    read = []
    loop.go.clear()

    def counted():
        read.append(1)
        return Inputs(1, 2.0), OPTIONS

    handles = [submit(worker, prepare=counted) for _ in range(20)]
    assert loop.entered.wait(SOON)
    time.sleep(0.05)
    assert len(read) == ahead
    loop.go.set()
    for handle in handles:
        handle.result(SOON)
    assert len(read) == 20
    worker.close(cancel=False)


def test_one_recording_may_be_longer_than_all_that_is_read_ahead(loop):
    worker = Worker(loop, max_in_flight=4, max_in_flight_seconds=5.0)
    handles = [submit(worker, prepare=lambda: (Inputs(2, 60.0), OPTIONS)) for _ in range(6)]
    assert [handle.result(SOON).duration for handle in handles] == [60.0] * 6
    worker.close(cancel=False)


def test_an_encoder_only_request_has_no_options_and_its_predictions_come_with_its_end(worker, loop):
    class Processor(TokenProcessor):
        def process(self, output, token_ids, duration, source):
            text = output.predictions["text"]
            return Transcription(text, (), output.finish_reason, duration, source=source)

    def step():
        (request_id,) = list(loop.requests)
        request, _ = loop.requests.pop(request_id)
        assert (request.options, request.inputs) == (None, 7)
        return [RequestOutput(request_id, (), FinishReason.STOP, predictions={"text": "seven"})]

    loop.step = step
    handle = Handle("a.wav", Processor(SPELLER), worker.cancel)
    worker.submit(Job(handle, lambda: (Inputs(7, 2.0), None)))
    assert list(handle) == ["seven"]
    result = handle.result(SOON)
    assert (result.text, result.finish_reason) == ("seven", "stop")
    assert (result.duration, result.source) == (2.0, "a.wav")


def test_a_job_with_its_inputs_waits_for_no_reader(loop):
    worker, free = Worker(loop, max_in_flight=9, config=ONE_READER), threading.Event()

    def slowly():
        assert free.wait(SOON)
        return Inputs(1, 2.0), OPTIONS

    slow = submit(worker, prepare=slowly)
    result = submit(worker, 2, prepared=True).result(SOON)
    assert (result.text, result.duration) == ("1 2", 2.0)
    assert not slow.done()
    free.set()
    slow.result(SOON)
    worker.close(cancel=False)


def test_jobs_with_and_without_inputs_keep_their_order_and_their_places(loop):
    worker = Worker(loop, max_in_flight=1, config=ONE_READER)
    loop.go.clear()
    first = submit(worker, 9, prepared=True)
    assert loop.entered.wait(SOON)
    handles = [submit(worker, n, priority=n // 3, prepared=n % 2 == 0) for n in range(1, 9)]
    handles[7].cancel()  # the next to be taken
    handles[6].cancel()
    assert loop.order == [9]
    loop.go.set()
    for handle in (first, *handles):
        handle.outcome(SOON)
    assert loop.order == [9, 6, 3, 4, 5, 1, 2]
    worker.close(cancel=False)
    assert worker._queue.free_requests == 1


@pytest.mark.parametrize("end", [{"cancel": True}, {"cancel": False}])
def test_closing_ends_jobs_with_inputs_that_wait_for_a_place(loop, end):
    worker = Worker(loop, max_in_flight=1, config=ONE_READER)
    handles = [submit(worker, 3, prepared=n % 3 > 0) for n in range(12)]
    worker.close(**end)
    assert all(handle.done() for handle in handles)
    if not end["cancel"]:
        assert {handle.result(SOON).text for handle in handles} == {"1 2 3"}


def test_a_higher_priority_is_read_first(loop):
    worker = Worker(loop, max_in_flight=1, config=ONE_READER)
    loop.go.clear()
    handles = [submit(worker, 100)]
    assert loop.entered.wait(SOON)
    handles += [submit(worker, n, priority=n % 3) for n in range(1, 7)]
    loop.requests[0][1] = 99
    loop.go.set()
    for handle in handles:
        handle.result(SOON)
    assert loop.order == [100, 2, 5, 1, 4, 3, 6]
    worker.close(cancel=False)


def test_close_finishes_what_was_submitted(loop):
    worker = Worker(loop, max_in_flight=2)
    handles = [submit(worker, n + 1) for n in range(12)]
    worker.close(cancel=False)
    assert all(handle.done() for handle in handles)
    assert handles[11].result().text == "1 2 3 4 5 6 7 8 9 10 11 12"
    worker.close(cancel=False)
    with pytest.raises(RuntimeError, match="closed; make a new one"):
        submit(worker)
    assert not any(thread.is_alive() for thread in worker._threads)


def test_close_with_cancel_ends_what_runs_waits_and_is_queued(loop):
    worker = Worker(loop, max_in_flight=2)
    handles = [submit(worker, 10**9) for _ in range(8)]
    next(iter(handles[0]))
    worker.close(cancel=True)
    assert {handle.result().finish_reason for handle in handles} == {"cancelled"}
    assert worker.stats().cancelled == 8


def test_counts_say_what_ended_how_and_time_runs_only_while_there_is_work(worker):
    submit(worker, 2).result(SOON)
    submit(worker, 3).result(SOON)
    handle = submit(worker, 10**9)
    next(iter(handle))
    handle.cancel()
    handle.result(SOON)
    counts = worker.stats()
    assert (counts.finished, counts.failed, counts.cancelled, counts.audio_seconds) == (2, 0, 1, 4.0)
    assert counts.waiting == 0
    time.sleep(0.02)
    assert worker.stats().busy_seconds == counts.busy_seconds > 0


def test_many_threads_may_submit_and_cancel_at_once(worker):
    results = []

    def client(number):
        for n in range(20):
            handle = submit(worker, n % 4 + 1, priority=n % 2)
            if n % 5 == number % 5:
                handle.cancel()
            results.append((n % 4 + 1, handle.outcome(SOON)))

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(SOON)
    assert len(results) == 160
    for tokens, result in results:
        wanted = " ".join(map(str, range(1, tokens + 1)))
        assert result.text == wanted or (
            result.finish_reason == "cancelled" and wanted.startswith(result.text)
        )
