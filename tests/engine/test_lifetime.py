"""Life of an engine: dropped, forked, pickled, at the interpreter's exit, and on a model that changes."""

import copy
import gc
import pickle
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
import torch

import tritone

SOON = 60  # seconds
WAVEFORM = np.random.default_rng(0).standard_normal(40_000).astype(np.float32) * 0.1


def run(code: str, *arguments: object) -> tuple[str, float]:
    """Output of a program that must end with exit code 0 and no error, and the seconds from "leaving" on."""
    code = f"import asyncio, numpy, os, sys, time, torch, tritone\ntorch.set_num_threads(2)\n{code}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    lines, left = [], time.monotonic()
    for line in process.stdout:
        lines.append(line.decode())
        left = time.monotonic()
    _, errors = process.communicate(timeout=SOON)
    assert (errors.decode(), process.returncode) == ("", 0)
    return "".join(lines), time.monotonic() - left


def wait_until(condition):
    until = time.monotonic() + SOON
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    assert condition()


@pytest.mark.parametrize("cycle", [False, True], ids=["plain", "in a cycle"])
@pytest.mark.parametrize("threads", [1, 2])
def test_an_engine_that_is_dropped_goes_away_with_its_threads_model_and_cache(checkpoint, cycle, threads):
    before = threading.active_count()
    torch.set_num_threads(threads)
    try:
        engine = tritone.Engine(checkpoint, device="cpu", num_rows=2)
        handles = [engine.submit(WAVEFORM) for _ in range(5)]
        handles[0].result(SOON)
        gone = [weakref.ref(one) for one in (engine, engine.model, engine._worker, engine._worker._loop)]
        if cycle:
            engine.itself = engine
        del engine
        gc.collect()
        # It finishes what was submitted, and the results that are held do not hold it.
        assert {handle.result(SOON).finish_reason in ("stop", "length") for handle in handles} == {True}
        wait_until(lambda: not any(one() for one in gone))
        wait_until(lambda: threading.active_count() <= before)
    finally:
        torch.set_num_threads(1)


def test_a_dropped_iterator_cancels_and_lets_its_engine_go(checkpoint):
    results = tritone.Engine(checkpoint, device="cpu", num_rows=2).transcribe([WAVEFORM] * 50)
    assert next(results).error is None
    worker = next(one for one in gc.get_objects() if type(one).__name__ == "Worker" and one._jobs)
    gone = weakref.ref(worker)
    del results, worker
    wait_until(lambda: gone() is None)


def test_a_closed_engine_that_is_still_held_holds_no_cache_and_no_thread(checkpoint):
    before = threading.active_count()
    with tritone.Engine(checkpoint, device="cpu", num_rows=2) as engine:
        loop = weakref.ref(engine._worker._loop)
    wait_until(lambda: loop() is None and threading.active_count() <= before)
    assert engine.stats().finished == 0
    assert engine.health() == tritone.EngineHealth("failed", "the engine is closed")


def test_an_engine_and_a_handle_are_neither_pickled_nor_copied(engine):
    for one in (engine, engine.submit(WAVEFORM)):
        for use in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be copied or pickled"):
                use(one)


def test_in_a_forked_child_every_call_ends_at_once(checkpoint):
    said, _ = run(
        """
engine = tritone.Engine(sys.argv[1], device="cpu", num_rows=2)
wave = numpy.random.randn(60_000) * 0.1
handles = [engine.submit(wave, max_new_tokens=4) for _ in range(30)]
results = engine.transcribe([wave] * 3, max_new_tokens=4)
handles[0].result(60)
child = os.fork()
if child == 0:
    uses = [lambda: engine.submit(wave), lambda: list(engine.transcribe([wave])), engine.stats,
            handles[-1].result, lambda: list(handles[-1]), lambda: next(results)]
    start = time.monotonic()
    for use in uses:
        try:
            print("no error", use())
        except RuntimeError as error:
            assert "forked" in str(error)
    assert engine.health().status == "failed" and not handles[-1].cancel()
    with engine:
        pass
    del engine
    assert time.monotonic() - start < 1
    sys.exit(7)
print(os.waitpid(child, 0)[1] >> 8, len(list(results)), handles[-1].result(60).error, flush=True)
torch.set_num_threads(1)
child = os.fork()
if child == 0:
    with tritone.Engine(sys.argv[1], device="cpu", num_rows=2) as own:
        print(own.submit(wave, max_new_tokens=4).result(60).error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
""",
        checkpoint,
    )
    assert said == "7 3 None\nNone\n"


def test_in_a_forked_child_nothing_is_awaited_in_vain(checkpoint):
    said, _ = run(
        """
engine = tritone.AsyncEngine(sys.argv[1], device="cpu", num_rows=2)
wave = numpy.random.randn(60_000) * 0.1
handles = [engine.submit(wave, max_new_tokens=4) for _ in range(30)]

async def use():
    async with engine:
        for wait in engine.transcribe(wave), anext(engine.stream(wave)), handles[-1]:
            try:
                print("no error", await wait)
            except RuntimeError as error:
                assert "forked" in str(error)
        assert engine.health().status == "failed"

child = os.fork()
if child == 0:
    asyncio.run(asyncio.wait_for(use(), 5))
    os._exit(7)  # torch's own thread pool cannot be taken apart in a forked child that has had threads
print(os.waitpid(child, 0)[1] >> 8, handles[-1].result(60).error, flush=True)
""",
        checkpoint,
    )
    assert said == "7 None\n"


@pytest.mark.parametrize("hangs", ["reading", "step"])
def test_the_interpreters_exit_does_not_wait_for_what_hangs(checkpoint, hangs, tmp_path):
    said, seconds = run(
        """
from tritone.engine.tasks.inputs import Recordings
hang = lambda *_: time.sleep(100)
config = tritone.EngineConfig(close_timeout=0.5)
engine = tritone.Engine(sys.argv[1], device="cpu", num_rows=2, config=config)
if sys.argv[2] == "step":
    engine.model.encode = hang
else:
    Recordings.read = hang
handle = engine.submit(numpy.random.randn(60_000) * 0.1)
time.sleep(0.2)
assert not handle.done()
print("leaving", flush=True)
""",
        checkpoint,
        hangs,
    )
    assert said == "leaving\n"
    assert seconds < 10


def change_mode(model):
    next(iter(model.children())).train()


def take_a_step(model):
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def load(model):
    model.load_state_dict(model.state_dict())


def move(model):
    for weight in model.parameters():
        weight.data = weight.data.clone()


def replace_a_weight(model):
    module = next(module for module in model.modules() if module._parameters)
    name, weight = next(iter(module._parameters.items()))
    setattr(module, name, torch.nn.Parameter(weight.detach().clone()))


@pytest.mark.parametrize(
    "change", [change_mode, take_a_step, load, torch.nn.Module.half, move, replace_a_weight]
)
def test_a_model_that_changes_under_an_engine_fails_it(checkpoint, change):
    model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint)
    processor = tritone.AutoProcessor.from_pretrained(checkpoint)
    with tritone.Engine(model, processor=processor, num_rows=2) as engine:
        wanted = engine.submit(WAVEFORM).result(SOON)
        change(model)
        with pytest.raises(RuntimeError, match="close the engine before"):
            engine.submit(WAVEFORM).result(SOON)
        with pytest.raises(RuntimeError, match="stopped on an error"):
            engine.submit(WAVEFORM)
        assert engine.health().status == "failed"
    if change in (load, move, replace_a_weight):  # the same weights elsewhere
        with tritone.Engine(model, processor=processor, num_rows=2) as engine:
            assert engine.submit(WAVEFORM).result(SOON) == wanted


def test_two_engines_may_share_a_model(checkpoint):
    model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint)
    processor = tritone.AutoProcessor.from_pretrained(checkpoint)
    with (
        tritone.Engine(model, processor=processor, num_rows=2) as one,
        tritone.Engine(model, processor=processor, num_rows=3) as other,
    ):
        handles = [engine.submit(WAVEFORM) for _ in range(5) for engine in (one, other)]
        assert len({handle.result(SOON).token_ids for handle in handles}) == 1


def test_health_is_ok_degraded_with_its_reason_or_failed(engine, monkeypatch):
    assert engine.health() == tritone.EngineHealth("ok")

    class Stats:
        degraded = "memory ran out"

    monkeypatch.setattr(engine._worker, "_loop_stats", Stats)
    assert engine.health() == tritone.EngineHealth("degraded", "memory ran out")


@pytest.mark.parametrize("site", ["snapshot", "read"])
@pytest.mark.parametrize("kind", [OSError, MemoryError, GeneratorExit])
def test_a_source_whose_own_code_fails_is_the_error_of_its_request(engine, monkeypatch, site, kind):
    original = getattr(engine._inputs, site)

    def failing(source, *arguments):
        if source is None:
            raise kind("no such luck")
        return original(source, *arguments)

    monkeypatch.setattr(engine._inputs, site, failing)
    if site == "read":
        monkeypatch.setattr(engine._inputs, "snapshot", lambda source: source)
    results = list(engine.transcribe([WAVEFORM, None, WAVEFORM]))
    assert [result.error is None for result in results] == [True, False, True]
    assert "no such luck" in str(results[1].error)
