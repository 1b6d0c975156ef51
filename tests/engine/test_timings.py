"""Times of requests: stages in seconds that add up to the total, in every result of an engine."""

import json
import math
import pickle
import threading
import time
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stand_in_loop import OPTIONS, SOON, submit

import tritone
from tritone.engine.config import EngineConfig
from tritone.engine.tasks.inputs import Inputs
from tritone.engine.timings import Stopwatch
from tritone.engine.worker import Worker
from tritone.scheduler.request import RequestTimes

AUDIO = "samples/digits/six_digits_16k.flac"


@pytest.fixture(scope="module")
def digits():
    with tritone.Engine("digits", device="cpu", num_rows=4) as engine:
        yield engine


def stages(timings: tritone.Timings) -> float:
    return timings.queue + timings.read + timings.encode + timings.decode


@pytest.mark.parametrize("options", [{}, {"stream": False}, {"num_beams": 3}, {"do_sample": True}])
def test_the_stages_of_a_recording_of_one_window_add_up_to_its_total(digits, options):
    start = time.perf_counter()
    handles = [digits.submit(AUDIO, **options) for _ in range(6)]
    for handle in handles:
        timings = handle.result(SOON).timings
        assert stages(timings) == pytest.approx(timings.total, rel=1e-9)
        assert min(astuple(timings)) > 0
        assert timings.queue + timings.read + timings.encode < timings.first_token < timings.total
        assert timings.total < time.perf_counter() - start


def test_a_recording_of_several_windows_has_sums_over_them(digits):
    audio = np.tile(np.random.default_rng(0).standard_normal(16_000).astype(np.float32), 20)
    result = digits.submit(audio).result(SOON)
    timings = result.timings
    assert len(result.segments) > 1
    assert min(astuple(timings)) > 0
    assert max(timings.first_token, timings.read) < timings.total
    assert stages(timings) > timings.total  # of windows that are encoded and decoded together


@pytest.mark.parametrize("kind", ["ctc_checkpoint", "audio_classifier", "text_classifier"])
def test_an_encoder_only_model_decodes_nothing_and_has_no_first_token(request, waveforms, kind):
    source = "a text" if kind == "text_classifier" else waveforms[0]
    with tritone.Engine(request.getfixturevalue(kind), device="cpu") as engine:
        timings = engine.submit(source).result(SOON).timings
    assert (timings.decode, timings.first_token) == (0.0, None)
    assert min(timings.read, timings.encode) > 0
    assert stages(timings) == pytest.approx(timings.total, rel=1e-9)


def test_a_request_that_waits_for_another_waits_in_the_queue(loop):
    worker = Worker(loop, max_in_flight=1, config=EngineConfig(num_readers=1))
    loop.go.clear()
    first = submit(worker, 1)
    assert loop.entered.wait(SOON)
    waiting = submit(worker, 1)
    time.sleep(0.05)
    loop.go.set()
    assert waiting.result(SOON).timings.queue > 0.05 > waiting.result(SOON).timings.read
    assert first.result(SOON).timings.read < 0.05 < first.result(SOON).timings.total
    worker.close(cancel=False)


def test_reading_counts_as_reading_until_the_request_ends(worker):
    may_end, entered = threading.Event(), threading.Event()

    def slowly():
        entered.set()
        assert may_end.wait(SOON)
        return Inputs(2, 2.0), OPTIONS

    handle, late = submit(worker, prepare=slowly), submit(worker, prepare=slowly, time_limit=0.05)
    assert entered.wait(SOON)
    timings = late.outcome(SOON).timings
    assert timings.total >= 0.05
    assert stages(timings) == pytest.approx(timings.total, rel=1e-9)
    assert timings.read > timings.total / 2
    may_end.set()
    assert handle.result(SOON).timings.read > 0.04
    assert handle.result(SOON).timings.first_token is None  # of which a stand-in tells nothing


def test_a_request_that_fails_or_is_cancelled_has_times_too(digits, worker, loop):
    broken = digits.submit(b"no audio").outcome(SOON)
    assert broken.error is not None
    assert (broken.timings.encode, broken.timings.decode, broken.timings.first_token) == (0.0, 0.0, None)
    assert stages(broken.timings) == pytest.approx(broken.timings.total, abs=0.02)
    loop.go.clear()
    running = submit(worker, 5)
    assert loop.entered.wait(SOON)
    running.cancel()
    loop.go.set()
    cancelled = running.outcome(SOON)
    assert cancelled.finish_reason == "cancelled"
    assert stages(cancelled.timings) == pytest.approx(cancelled.timings.total, rel=1e-9)


def test_results_are_compared_printed_and_written_without_times(digits):
    one, other = (digits.submit(AUDIO).result(SOON) for _ in range(2))
    assert one == other
    assert one.timings != other.timings
    assert one == replace(one, timings=None)
    assert "timings" not in repr(one)
    assert "timings" not in json.loads(one.to_json())
    assert pickle.loads(pickle.dumps(one)).timings == one.timings


SECONDS = st.floats(0, 100)


@given(st.lists(st.tuples(SECONDS, SECONDS, SECONDS, SECONDS), max_size=8), st.integers(0, 3))
def test_times_of_requests_that_end_anywhere_are_never_negative(requests, known):
    watch = Stopwatch()
    watch.take()
    base, firsts, running = watch.submitted - 1000, [], []
    for ready, *spans in requests:
        points = np.cumsum([base + ready, *spans])[: 1 + known]
        times = RequestTimes(*points.tolist())
        if known == 3:
            firsts.append(times.first_token)
        running.append(times)
    half = len(running) // 2
    for times in running[:half]:
        watch.add_request(times)
    timings = watch.finish(running[half:])
    assert min(timings.queue, timings.read, timings.encode, timings.decode, timings.total) >= 0
    if firsts:
        assert math.isclose(timings.first_token, min(firsts) - watch.submitted)
    else:
        assert timings.first_token is None
