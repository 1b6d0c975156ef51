"""Requests whose results are not wanted any more while others of their step are encoded."""

import loops
import pytest
import torch
from loops import tiny_model

from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration
from tritone.scheduler.config import RunnerConfig
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.model_protocol import Task
from tritone.scheduler.request import FinishReason, GenerationOptions, Request, RequestOutput
from tritone.scheduler.runner import ModelRunner


class OnlyPredicts:
    """A model that cannot generate, and whose results are its features."""

    task = Task.AUDIO_CLASSIFICATION
    device, dtype = torch.device("cpu"), torch.float32

    def encoder_length(self, frames):
        return frames

    def predict(self, features, cu_frames):
        return {"same": (features, cu_frames)}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("method", ["predict", "encode"])
def test_a_request_unwanted_before_its_chunk_is_not_encoded_and_ends_cancelled(threads, method, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    model = OnlyPredicts() if method == "predict" else tiny_model(Speech2TextForConditionalGeneration)
    options = None if method == "predict" else GenerationOptions(max_length=5, eos_token_ids=(2,))
    runner = ModelRunner(model, num_pages=90, num_slots=9, config=RunnerConfig(max_chunk_tokens=1))
    loop = GenerationLoop(runner, encode_budget=10**6)
    encoded, unwanted = [], False
    compute = getattr(model, method)

    def computing(features, cu_frames):
        nonlocal unwanted
        encoded.append(len(cu_frames) - 1)
        unwanted = True  # while the first chunk is encoded
        return compute(features, cu_frames)

    monkeypatch.setattr(model, method, computing)
    loop.submit(Request(0, loops.recording(0, 40, 5), options))
    for number in range(1, 9):
        loop.submit(Request(number, loops.recording(number, 40, 5), options, is_wanted=lambda: not unwanted))
    reasons = {}
    while loop.has_work:
        for event in loop.step():
            assert isinstance(event, RequestOutput)
            assert event.request_id not in reasons, "a request ended twice"
            reasons[event.request_id] = event.finish_reason
    assert reasons.pop(0) is not FinishReason.CANCELLED
    cancelled = list(reasons.values()).count(FinishReason.CANCELLED)
    assert cancelled >= 7  # another core may have begun with one
    assert sum(encoded) == 9 - cancelled
    assert runner.num_pages == 90
    assert loop.stats().pages_used == 0
