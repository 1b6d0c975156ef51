"""Faults of whole steps: memory that runs out, lost devices, recordings, and a fault at every operation."""

import gc
import logging
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import loops
import pytest
import torch
from loops import finish, same, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration
from tritone.scheduler import runner
from tritone.scheduler.config import RunnerConfig
from tritone.scheduler.decoder import Decoder
from tritone.scheduler.faults import DeviceLostError, Failure, attempt, ran_out_of_memory
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.request import FinishReason, GenerationOptions, Request, RequestOutput
from tritone.scheduler.runner import ModelRunner

FEATURES = 5
GREEDY = GenerationOptions(max_length=12, eos_token_ids=(2, 5, 7), no_repeat_ngram_size=1)
KINDS = [GREEDY, replace(GREEDY, num_beams=3), replace(GREEDY, do_sample=True, seed=8), GREEDY]
COUNT = 4


@pytest.fixture(scope="module")
def model() -> Speech2TextForConditionalGeneration:
    return tiny_model()


def request(index: int) -> Request:
    features = loops.recording(index, 1 + 13 * index % 90, FEATURES)
    return Request(index, features, KINDS[index % len(KINDS)], stream=index == 0, keep_scores=index == 3)


@pytest.fixture(scope="module")
def alone(model) -> dict[int, RequestOutput]:
    outputs: dict[int, RequestOutput] = {}
    for index in range(2 * COUNT):
        loop = model.generation_loop(num_pages=40, num_rows=3)
        loop.submit(request(index))
        finish(loop, outputs)
    return outputs


def submit(loop: GenerationLoop, count: int = COUNT) -> GenerationLoop:
    for index in range(count):
        loop.submit(request(index))
    return loop


def all_same(outputs: dict[int, RequestOutput], alone: dict[int, RequestOutput]) -> bool:
    return all(same(output, alone[index]) for index, output in outputs.items())


class FailAt(TorchDispatchMode):
    """Raise an error at one operation, before it or after it has written its results."""

    def __init__(self, number: int, error: BaseException, late: bool) -> None:
        super().__init__()
        self.left, self.error, self.late = number, error, late

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.left -= 1
        if self.left == -1 and not self.late:
            raise self.error
        result = function(*arguments, **(keywords or {}))
        if self.left == -1:
            raise self.error
        return result


@pytest.mark.parametrize("stride", [97, pytest.param(13, marks=pytest.mark.slow)])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("step", [0, 1, 5])
@pytest.mark.parametrize("graphs", [False, True])
def test_an_error_at_any_operation_of_a_step_fails_no_request(graphs, step, late, stride, model, alone):
    """The step that encodes and joins, the first one after it, and one in which requests end."""
    number = 0
    while True:
        loop = submit(model.generation_loop(num_pages=60, num_rows=8, graphs=graphs, ahead=graphs))
        outputs: dict[int, RequestOutput] = {}
        for _ in range(step):
            loops.take_step(loop, outputs)
        fault = FailAt(number, MemoryError("injected") if number % 2 else ValueError("injected"), late)
        with fault:
            loops.take_step(loop, outputs)
        assert all_same(finish(loop, outputs), alone), f"an error at operation {number} was felt"
        assert outputs.keys() == set(range(COUNT))
        if fault.left >= 0:
            break
        number += stride
    assert number > 100


def test_memory_that_runs_out_while_decoding_makes_batches_smaller_for_some_time(model, alone, caplog):
    config = RunnerConfig(limited_steps=4)
    loop = submit(GenerationLoop(ModelRunner(model, num_pages=200, num_slots=30, config=config)), 2 * COUNT)
    sizes: list[int] = []
    decode = model.decode

    def short_of_memory(tokens, positions, attention):
        sizes.append(attention.cross.lengths.shape[0])
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(tokens, positions, attention)

    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(model, "decode", short_of_memory)
        outputs: dict[int, RequestOutput] = {}
        loops.take_step(loop, outputs)
        assert sizes == [8, 4, 2, 2, 4, 2, 2]
        for _ in range(config.limited_steps):
            loops.take_step(loop, outputs)
        assert set(sizes[7:]) <= {1, 2}
        small = len(sizes)
        loops.take_step(loop, outputs)
        assert sizes[small] > 2, "larger ones are tried again"
        finish(loop, outputs)
    assert all_same(outputs, alone)
    stats = loop.stats()
    assert stats.degraded is not None
    assert "at most 2 are decoded at once for 4 steps" in caplog.text
    assert "0 of them failed, after OutOfMemoryError: CUDA out of memory" in stats.degraded
    assert all_same(finish(submit(loop)), alone)


def test_a_device_that_is_lost_ends_the_loop_at_once(model, monkeypatch):
    calls = []

    def lost(*_):
        calls.append(1)
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    loop = submit(model.generation_loop(num_pages=60, num_rows=8))
    monkeypatch.setattr(model, "decode", lost)
    with pytest.raises(DeviceLostError, match=r"cpu cannot be used any more .*device-side assert"):
        finish(loop)
    assert len(calls) == 1, "no retry has a chance"


def test_a_gpu_is_asked_whether_an_error_has_ended_its_use(monkeypatch):
    def fail(_: None) -> None:
        raise ValueError("of one request")

    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "synchronize", asked.append)
    found = attempt(fail, None, torch.device("cuda"))
    assert isinstance(found, Failure)
    assert len(asked) == 1

    def lost(_: Any) -> None:
        raise RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    with pytest.raises(DeviceLostError, match="after ValueError: of one request"):
        attempt(fail, None, torch.device("cuda"))


def test_the_interrupt_of_a_user_is_no_fault(model, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    loop = submit(model.generation_loop(num_pages=60, num_rows=8))
    monkeypatch.setattr(model, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.step()


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("name", ["decode", "join"])
def test_a_step_that_fails_as_a_whole_ends_what_runs_and_no_more(name, ahead, model, alone, monkeypatch):
    loop = model.generation_loop(num_pages=30, num_rows=3, ahead=ahead)  # some have to wait
    submit(loop)
    outputs: dict[int, RequestOutput] = {}
    loops.take_step(loop, outputs)
    running = loop.stats().running
    original, left = getattr(Decoder, name), [1]

    def broken(*arguments):
        if left[0]:
            left[0] -= 1
            raise PermissionError("no request is at fault")
        return original(*arguments)

    monkeypatch.setattr(Decoder, name, broken)
    finish(loop, outputs)
    failed = {index for index, output in outputs.items() if output.error is not None}
    assert 0 < len(failed) <= max(running, 2) < COUNT
    assert all(outputs[index].finish_reason is FinishReason.ERROR for index in failed)
    assert all_same({index: output for index, output in outputs.items() if index not in failed}, alone)
    assert "a step failed as a whole" in (loop.stats().degraded or "")
    assert all_same(finish(submit(loop)), alone)


def test_steps_that_fail_again_and_again_end_the_loop(model, monkeypatch):
    def broken(*_):
        raise PermissionError("no request is at fault")

    loop = model.generation_loop(num_pages=60, num_rows=8)
    monkeypatch.setattr(Decoder, "decode", broken)
    for index in range(2):
        loop.submit(request(index))
        assert finish(loop)[index].error is not None
    loop.submit(request(3))
    with pytest.raises(RuntimeError, match=r"3 steps in a row have failed as a whole, .*PermissionError: no"):
        finish(loop)


def test_every_request_of_a_model_that_always_fails_has_its_error(model, alone):
    loop = submit(model.generation_loop(num_pages=60, num_rows=8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "decode", lambda *_: 1 / 0)
        outputs = finish(loop)
    assert [type(outputs[index].error) for index in range(COUNT)] == [ZeroDivisionError] * COUNT
    assert all_same(finish(submit(loop)), alone)


@pytest.mark.parametrize("whole", [False, True])
def test_an_error_that_is_kept_keeps_no_tensor_and_no_loop_alive(whole, model):
    kept: list[Any] = []

    def broken(*_):
        tensor = torch.zeros(9)
        kept.append(weakref.ref(tensor))
        try:
            raise KeyError("in between")
        except KeyError:
            raise ValueError("injected") from None

    loop = submit(model.generation_loop(num_pages=60, num_rows=8))
    kept.append(weakref.ref(loop._runner))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*(Decoder, "decode") if whole else (model, "decode"), broken)
        outputs = finish(loop)
    assert str(outputs[0].error) == "injected"
    del loop
    gc.collect()
    assert len(kept) > 1
    assert not any(reference() is not None for reference in kept)


def test_a_request_at_fault_does_not_end_the_recording_of_steps(model, monkeypatch, caplog):
    monkeypatch.setattr(runner, "record_on", lambda device: recorder)

    def recorder(step: Callable[[], None]) -> Callable[[], None]:
        step()
        return step

    loop = model.generation_loop(num_pages=60, num_rows=8, graphs=True)
    loop.submit(replace(request(0), stream=False))
    loop.submit(replace(request(4), stream=False))
    decode, calls = model.decode, [0]

    def fails_while_recording(*arguments):
        calls[0] += 1
        if calls[0] in (3, 4):  # the recording of the third step, and its launch
            raise ValueError("injected")
        return decode(*arguments)

    monkeypatch.setattr(model, "decode", fails_while_recording)
    outputs = finish(loop)
    assert "could not be recorded" not in caplog.text
    assert loop.stats().graphs > 1
    assert {output.error for output in outputs.values()} == {None}


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_memory_that_ran_out_is_told_from_other_errors(error, memory):
    assert ran_out_of_memory(error) is memory
