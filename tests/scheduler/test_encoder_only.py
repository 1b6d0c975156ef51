"""Encoder-only requests: complete in the step that encodes them, among requests that are decoded."""

from dataclasses import replace

import loops
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import check_history, finish, histories, same, tiny_model
from torch import Tensor

from tritone.kernels.runtime.packing import cumulative, spans
from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.model_protocol import Task
from tritone.scheduler.request import FinishReason, GenerationOptions, Request, RequestOutput
from tritone.scheduler.runner import ModelRunner

FEATURES = 5
GREEDY = GenerationOptions(max_length=14, eos_token_ids=(2, 5, 7), no_repeat_ngram_size=1)
KINDS = [None, GREEDY, None, replace(GREEDY, num_beams=3), None, replace(GREEDY, do_sample=True, seed=3)]
COUNT, LIVES = 12, 3


class Predicting(Speech2TextForConditionalGeneration):
    """A model of both kinds, such as one that transcribes and also names the language."""

    def predict(self, features: Tensor, cu_frames: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        encoded, cu_tokens = self.encode(features, cu_frames)
        pooled = torch.stack([encoded[start:end].mean(0) for start, end in spans(cu_tokens)])
        each = cumulative([1] * len(pooled))
        return {"best": (encoded.argmax(-1), cu_tokens), "pooled": (pooled, each)}


class OnlyPredicts:
    """A model that cannot generate: each recording's frames, doubled."""

    task = Task.AUDIO_CLASSIFICATION
    device, dtype = torch.device("cpu"), torch.float32

    def encoder_length(self, frames: int) -> int:
        if frames > 50:
            raise ValueError(f"{frames} frames; at most 50")
        return frames

    def predict(self, features: Tensor, cu_frames: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        return {"doubled": (2 * features, cu_frames)}


@pytest.fixture(scope="module")
def model() -> Predicting:
    return tiny_model(Predicting)


def recording(seed: int, frames: int) -> Tensor:
    return loops.recording(seed, frames, FEATURES)


def request(index: int, life: int = 0) -> Request:
    """A request; one id is another request, partly of another kind, in another life."""
    options = KINDS[(index + life) % len(KINDS)]
    return Request(index, recording(index + COUNT * life, 1 + 7 * (index + life)), options, stream=True)


def loop_of(
    model: Predicting, *, num_pages: int = 40, num_slots: int = 3, encode_budget: int = 4096, ahead: int = 0
) -> GenerationLoop:
    runner = ModelRunner(model, predictor=model, num_pages=num_pages, num_slots=num_slots)
    return GenerationLoop(runner, encode_budget, ahead)


@pytest.fixture(scope="module")
def alone(model) -> dict[tuple[int, int], RequestOutput]:
    outputs = {}
    for index in range(COUNT):
        for life in range(LIVES):
            loop = loop_of(model, ahead=0)
            loop.submit(request(index, life))
            outputs[index, life] = finish(loop)[index]
    return outputs


def test_predictions_are_those_of_the_recording_alone(model, alone):
    for index in (0, 2, 4, 6):
        inputs = request(index).inputs
        with torch.inference_mode():
            wanted = model.predict(inputs, cumulative([len(inputs)]))
        output = alone[index, 0]
        assert (output.hypotheses, output.finish_reason) == ((), FinishReason.STOP)
        assert output.predictions.keys() == wanted.keys()
        for name, (rows, _) in wanted.items():
            assert torch.equal(output.predictions[name], rows)
        assert output.predictions["best"].shape == (model.encoder_length(len(inputs)),)
        assert output.predictions["pooled"].shape == (1, 8)
    assert alone[1, 0].predictions is None, "a request that is decoded has none"


@pytest.mark.parametrize("ahead", [0, 2])
def test_it_ends_in_the_step_that_encodes_it_and_streams_nothing(model, ahead):
    loop = loop_of(model, ahead=ahead)
    loop.submit(replace(request(0), priority=1))
    loop.submit(request(1))
    events = [loop.step() for _ in range(ahead + 1)]
    assert all(step == [] for step in events[:-1])
    first, second = events[-1]
    assert second.request_id == 0
    assert isinstance(second, RequestOutput)
    assert (first.request_id, len(first.token_ids)) == (1, 1), "decoding goes on beside it"
    finish(loop, {0: second})


def test_it_takes_neither_pages_nor_slots(model, alone):
    loop = GenerationLoop(ModelRunner(model, predictor=model, num_pages=0, num_slots=0, max_length=14))
    for index in (0, 2, 4):
        loop.submit(request(index))
    outputs = finish(loop)
    assert all(same(outputs[index], alone[index, 0]) for index in (0, 2, 4))
    with pytest.raises(ValueError, match="the cache has 0; raise num_pages"):
        loop.submit(request(1))


def test_the_encode_budget_limits_how_many_are_encoded_at_once(model, monkeypatch):
    sizes = []
    encode = model.encode

    def watched(features, cu_frames):
        encoded, cu_tokens = encode(features, cu_frames)
        sizes.append(len(encoded))
        return encoded, cu_tokens

    monkeypatch.setattr(model, "encode", watched)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # else a core each takes its part of them
    loop = loop_of(model, encode_budget=20)
    for index in range(9):
        loop.submit(Request(index, recording(index, 32)))
    finish(loop)
    assert sizes == [16, 16, 16, 16, 8]
    assert loop.stats().encoded_tokens == 9 * 8
    assert loop.stats().tokens_generated == 0


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    history=histories(COUNT, 20, 50),
    ahead=st.integers(0, 4),
    pages=st.sampled_from([12, 300]),
    budget=st.sampled_from([1, 12, 1000]),
    order=st.permutations(range(COUNT)),
)
def test_random_histories_of_both_kinds_give_what_each_request_gives_alone(
    model, alone, history, ahead, pages, budget, order
):
    loop = loop_of(model, num_pages=pages, num_slots=4, encode_budget=budget, ahead=ahead)
    check_history(loop, history, order, request, alone)


@pytest.mark.parametrize("ahead", [1, 3])
def test_an_id_used_again_while_its_first_result_is_on_its_way_is_another_request(model, alone, ahead):
    loop = loop_of(model, ahead=ahead)
    loop.submit(request(0))
    loop.submit(request(1))  # which goes on meanwhile
    assert loop.step() == []
    assert loop.cancel(0)
    assert RequestOutput(0, (), FinishReason.CANCELLED) in loop.step()
    loop.submit(request(0, 2))  # encoder-only as well
    outputs = finish(loop)
    assert same(outputs[0], alone[0, 2])
    assert same(outputs[1], alone[1, 0])


def test_a_waiting_one_is_cancelled_before_it_is_encoded(model):
    loop = loop_of(model, encode_budget=1)
    for index in range(3):
        loop.submit(Request(index, recording(index, 9)))
    loop.step()
    assert loop.cancel(1)
    assert not loop.cancel(0), "it has ended"
    (cancelled, answered) = loop.step()
    assert cancelled == RequestOutput(1, (), FinishReason.CANCELLED)
    assert answered.request_id == 2
    finish(loop)


def test_one_that_cannot_be_encoded_fails_alone_with_its_error(model, alone):
    loop = loop_of(model, num_slots=30, num_pages=300)
    for index in range(8):
        loop.submit(request(index))
    loop.submit(Request(99, torch.randn(30, FEATURES + 2)))
    outputs = finish(loop)
    failed = outputs.pop(99)
    assert (failed.predictions, failed.finish_reason) == (None, FinishReason.ERROR)
    assert "channels" in str(failed.error)
    assert all(same(output, alone[index, 0]) for index, output in outputs.items())
    assert len(outputs) == 8


def test_memory_that_runs_out_halves_what_is_encoded_at_once(model, alone, monkeypatch, caplog):
    sizes = []
    predict = model.predict

    def short_of_memory(features, cu_frames):
        sizes.append(features.shape[0])
        if features.shape[0] > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(features, cu_frames)

    monkeypatch.setattr(model, "predict", short_of_memory)
    loop = loop_of(model, num_slots=30, num_pages=300, encode_budget=120)
    for index in range(COUNT):
        loop.submit(request(index))
    outputs = finish(loop)
    for index, output in outputs.items():
        if index == 10:  # 71 frames, too large for the memory even alone
            assert "out of memory" in str(output.error)
        else:
            assert same(output, alone[index, 0])
    assert sizes[0] > 60
    assert "at most 60 encoder positions" in caplog.text


def test_predictions_keep_no_other_request_in_memory(model):
    loop = loop_of(model)
    for index in range(6):
        loop.submit(Request(index, recording(index, 32)))
    best = finish(loop)[3].predictions["best"]
    assert best.untyped_storage().nbytes() == 8 * best.element_size()


def test_an_encoder_only_model_needs_no_sizes():
    loop = GenerationLoop(ModelRunner(OnlyPredicts()))
    for index in range(5):
        loop.submit(Request(index, recording(index, 3 + index)))
    outputs = finish(loop)
    for index in range(5):
        assert torch.equal(outputs[index].predictions["doubled"], 2 * recording(index, 3 + index))
    with pytest.raises(ValueError, match="51 frames; at most 50"):
        loop.submit(Request(7, recording(0, 51)))
    assert not loop.has_work


def test_a_request_of_a_task_that_the_model_does_not_have_is_refused(model):
    loop = GenerationLoop(ModelRunner(OnlyPredicts()))
    with pytest.raises(ValueError, match="OnlyPredicts does not generate; give the request no options"):
        loop.submit(Request(0, recording(0, 9), GREEDY))
    generative = Speech2TextForConditionalGeneration(model.config).eval()
    loop = generative.generation_loop(num_pages=9, num_rows=2)
    with pytest.raises(ValueError, match="decodes token by token; give the request options"):
        loop.submit(Request(0, recording(0, 9)))
    assert not loop.has_work
