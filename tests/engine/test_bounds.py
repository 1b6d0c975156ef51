"""Bounds of what waits: refusals of `submit`, iterators that wait instead, and estimates of the audio."""

import pickle
import subprocess
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in_loop import SOON, StandInLoop, submit

import tritone
from tritone.engine import stats
from tritone.engine.audio.reader import AudioError, estimated_seconds
from tritone.engine.config import EngineConfig
from tritone.engine.handle import Handle, in_order
from tritone.engine.jobs import Job, JobQueue
from tritone.engine.tasks.inputs import ReadOptions
from tritone.engine.worker import Worker


@pytest.fixture
def full():
    """A function that makes a worker with these bounds whose one place is taken until its loop may go on."""
    workers = []

    def make(**bounds) -> tuple[Worker, StandInLoop]:
        loop = StandInLoop()
        loop.go.clear()
        worker = Worker(loop, max_in_flight=1, config=EngineConfig(num_readers=1, **bounds))
        workers.append((worker, loop))
        submit(worker, 1)
        assert loop.entered.wait(SOON)
        return worker, loop

    yield make
    for worker, loop in workers:
        loop.go.set()
        worker.close(cancel=True)


def test_submit_beyond_max_waiting_is_refused_with_value_limit_and_remedy(full):
    worker, loop = full(max_waiting=2)
    waiting = [submit(worker, 2), submit(worker, 3)]
    wanted = r"2 requests wait, and max_waiting of EngineConfig is 2; submit again in about 1 s"
    with pytest.raises(tritone.QueueFullError, match=wanted) as refused:
        submit(worker, 4)
    assert refused.value.retry_after == 1.0
    assert isinstance(refused.value, RuntimeError)
    loop.go.set()
    assert [handle.result(SOON).text for handle in waiting] == ["1 2", "1 2 3"]
    assert submit(worker, 1).result(SOON).text == "1"
    assert worker.stats().failed == 0


def test_submit_beyond_max_waiting_seconds_is_refused_and_a_shorter_recording_is_not(full):
    worker, _ = full(max_waiting_seconds=25.0)
    for _ in range(2):
        submit(worker, waiting_seconds=10.0)
    with pytest.raises(tritone.QueueFullError, match=r"20\.0 s of audio wait, 6\.0 s more .* is 25;"):
        submit(worker, waiting_seconds=6.0)
    submit(worker, waiting_seconds=5.0)


def test_an_empty_queue_takes_a_recording_of_any_length(full):
    worker, _ = full(max_waiting_seconds=0.0)
    submit(worker, waiting_seconds=1e6)
    with pytest.raises(tritone.QueueFullError):
        submit(worker, waiting_seconds=0.1)


def test_a_request_that_is_cancelled_in_the_queue_makes_room(full):
    worker, _ = full(max_waiting=2)
    first, _ = submit(worker), submit(worker)
    worker._queue.leave(worker._jobs[first])  # as its end does, once the step is over
    submit(worker)
    with pytest.raises(tritone.QueueFullError):
        submit(worker)


def test_the_time_to_retry_is_that_of_half_the_audio_that_waits_at_the_rate_of_late(full, monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(stats, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    worker, _ = full(max_waiting=3)
    submit(worker, waiting_seconds=40.0)
    for _ in range(2):
        submit(worker, waiting_seconds=20.0)

    def retry_after() -> float:
        with pytest.raises(tritone.QueueFullError) as refused:
            submit(worker)
        return refused.value.retry_after

    assert retry_after() == 1.0  # nothing has finished yet
    for _ in range(5):
        now.seconds += 2.0
        worker._tally.end("stop", 8.0, idle=False)
    assert retry_after() == pytest.approx(min(80.0 / 2 / 4.0, 10.0))
    for _ in range(200):  # the early ones are forgotten
        now.seconds += 0.5
        worker._tally.end("stop", 8.0, idle=False)
    assert retry_after() == pytest.approx(80.0 / 2 / 16.0)
    now.seconds += 1e6
    assert retry_after() == 10.0


def test_an_error_of_a_full_queue_leaves_a_process_with_its_time():
    error = pickle.loads(pickle.dumps(tritone.QueueFullError("full", 2.5)))
    assert (str(error), error.retry_after) == ("full", 2.5)


def in_thread(results):
    """The results of an iterator that another thread reads, the thread, and what ends it."""
    found, ends = [], []

    def read():
        try:
            found.extend(results)
        except Exception as error:
            ends.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return found, ends, thread


def ordered(worker, numbers):
    return in_order(numbers, lambda n: submit(worker, n, bounded=False), 9, worker.wait_for_room)


def test_an_iterator_waits_while_the_queue_is_full_and_has_all_results(full):
    worker, loop = full(max_waiting=2)
    others = [submit(worker, 2), submit(worker, 2)]
    found, ends, thread = in_thread(ordered(worker, [3, 1, 2, 1, 3, 2]))
    thread.join(0.05)
    assert thread.is_alive()
    assert worker._queue.waiting == 2
    loop.go.set()
    thread.join(SOON)
    assert [result.text for result in found] == ["1 2 3", "1", "1 2", "1", "1 2 3", "1 2"]
    assert not ends
    assert all(other.done() for other in others)


def test_an_iterator_yields_what_is_ready_while_the_queue_is_full(full):
    worker, loop = full(max_waiting=1)
    loop.go.set()
    ready = submit(worker, 1)
    ready.result(SOON)
    loop.go.clear()
    loop.entered.clear()
    submit(worker, 5)
    assert loop.entered.wait(SOON)
    submit(worker, 1)
    assert not worker.wait_for_room(ready)
    ahead = in_order(range(3), lambda _: ready, 9, lambda first: first is None or worker.wait_for_room(first))
    assert [result.text for result in ahead] == ["1", "1", "1"]


def test_an_iterator_that_waits_for_room_ends_with_the_engine(full):
    worker, loop = full(max_waiting=1)
    submit(worker, 2)
    _, ends, thread = in_thread(ordered(worker, [1, 2]))
    thread.join(0.02)
    worker.release(cancel=True)
    loop.go.set()
    thread.join(SOON)
    assert [str(error) for error in ends] == ["the engine is closed; make a new one"]


STEPS = st.lists(st.tuples(st.sampled_from(["put", "take", "leave"]), st.integers(0, 9)), max_size=300)


@settings(max_examples=200, deadline=None, database=None)
@given(STEPS)
def test_no_history_of_the_queue_loses_count_of_what_waits_or_keeps_what_has_ended(steps):
    jobs = {}
    queue = JobQueue(jobs, 10**6, 1e9)
    waiting = []
    for step, number in steps:
        if step == "put":
            job = Job(
                Handle(None, None, lambda handle: False), None, number % 3, waiting_seconds=1.0 + number
            )
            jobs[job.handle] = job
            queue.put(job)
            waiting.append(job)
        elif step == "take":
            job = queue.take(prepared=False)
            wanted = max(waiting, key=lambda job: job.priority, default=None)
            assert job is wanted
            if job is not None:
                waiting.remove(job)
        elif waiting:
            job = waiting.pop(number % len(waiting))
            del jobs[job.handle]
            queue.leave(job)
        assert queue.waiting == len(waiting)
        assert queue.waiting_seconds == sum(job.waiting_seconds for job in waiting)
        assert len(queue) <= 3 * len(waiting) + 65


# Estimates of a recording's seconds.


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3", "a.m4a"])
@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_seconds_are_those_of_the_header(tmp_path, name, rate):
    path, wav = tmp_path / name, tmp_path / "a.wav"
    soundfile.write(wav, np.random.default_rng(0).uniform(-0.1, 0.1, (5 * rate // 2, 2)), rate)
    if name != "a.wav":
        subprocess.run(["ffmpeg", "-v", "error", "-i", wav, path], check=True)
    for source in (path, path.read_bytes()):
        assert estimated_seconds(source, 16_000) == pytest.approx(2.5, abs=0.08)


def test_without_a_duration_in_its_header_audio_counts_as_32_kbit_a_second(tmp_path):
    wav = tmp_path / "a.wav"
    soundfile.write(wav, np.random.default_rng(0).uniform(-0.1, 0.1, 40_000), 16_000)
    command = ["ffmpeg", "-v", "error", "-i", wav, "-f", "webm", "-live", "1", "-c:a", "libopus", "-"]
    content = subprocess.run(command, check=True, capture_output=True).stdout
    assert estimated_seconds(content, 16_000) == len(content) / 4000


def test_seconds_of_several_parts_are_in_proportion_to_their_bytes(tmp_path):
    path = tmp_path / "a.ogg"
    parts = []
    for seconds in (2, 3):
        samples = np.random.default_rng(0).uniform(-0.1, 0.1, 16_000 * seconds)
        soundfile.write(path, samples, 16_000)
        parts.append(path.read_bytes())
    assert estimated_seconds(b"".join(parts), 16_000) == pytest.approx(5, rel=0.2)


def test_no_header_makes_a_recording_longer_than_the_longest(tmp_path):
    content = bytearray(b"fLaC" + bytes([0x80, 0, 0, 34]) + bytes(34))
    content[18:26] = (16_000 << 44 | 15 << 36 | (1 << 35)).to_bytes(8, "big")  # rate, one channel, 25 days
    with tritone.Engine("digits", device="cpu") as engine:
        assert engine._inputs.estimate_seconds(bytes(content), ReadOptions()) in (0.0, engine.max_seconds)


def test_seconds_of_arrays_and_of_headerless_audio_are_those_of_their_samples():
    array = np.zeros((24_000, 2), np.float32)
    assert estimated_seconds(array, 16_000) == 1.5
    assert estimated_seconds(array, 16_000, source_rate=48_000) == 0.5
    content = bytes(24_000)
    assert estimated_seconds(content, 16_000, encoding="mulaw") == 3.0
    assert estimated_seconds(content, 16_000, encoding="alaw", source_rate=16_000) == 1.5
    with pytest.raises(AudioError):
        estimated_seconds(b"no audio", 16_000)


# With a model.


def test_no_engine_takes_more_than_its_bounds_and_its_iterators_have_all_results():
    one_place = {"num_rows": 1, "in_flight_per_row": 1, "num_readers": 1}
    audio = [f"samples/digits/{name}" for name in ("two_digits_16k.wav", "five_digits_48k.flac")] * 6
    audio.insert(3, "no such file.wav")
    with tritone.Engine("digits", device="cpu") as engine:
        wanted = list(engine.transcribe(audio))
    config = EngineConfig(**one_place, max_waiting=2, max_waiting_seconds=4.0)
    with tritone.Engine("digits", device="cpu", config=config) as engine:
        handles, refusals = [], []
        for _ in range(40):
            try:
                handles.append(engine.submit(audio[0]))
            except tritone.QueueFullError as error:
                refusals.append(error)
        results = list(engine.transcribe(audio))
        assert {handle.result(SOON).text for handle in handles} == {wanted[0].text}
    assert [(one.text, str(one.error)) for one in results] == [(one.text, str(one.error)) for one in wanted]
    assert refusals
    assert all(1 <= error.retry_after <= 60 for error in refusals)


@pytest.mark.parametrize("bound", [{"max_waiting": 0}, {"max_waiting_seconds": -1.0}])
def test_bounds_out_of_range_are_refused(bound):
    with pytest.raises(ValueError, match=f"{next(iter(bound))} is -?[01]"):
        EngineConfig(**bound)
