"""The generation loop: everything mixed equals everything alone, and every request ends once."""

import random
from dataclasses import replace

import loops
import pytest
import torch
from loops import assert_empty, finish, small_model, take_step
from torch import Tensor

from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration
from tritone.scheduler.request import FinishReason, GenerationOptions, Request, RequestOutput
from tritone.scheduler.scheduler import CapacityError

FEATURES = 7
GREEDY = GenerationOptions(max_length=20, eos_token_ids=(2,))
ENDLESS = replace(GREEDY, max_length=40, eos_token_ids=())
KINDS = [
    GREEDY,
    replace(GREEDY, num_beams=3),
    replace(GREEDY, do_sample=True, seed=3),
    replace(GREEDY, num_beams=5, length_penalty=0.5, early_stopping=True),
    replace(GREEDY, do_sample=True, num_return_sequences=3, temperature=1.4, top_p=0.9, seed=8),
    replace(GREEDY, num_beams=2, early_stopping="never", no_repeat_ngram_size=2, max_length=33),
    replace(GREEDY, num_beams=2, do_sample=True, seed=21),
    replace(GREEDY, repetition_penalty=1.5, max_length=17),
]


@pytest.fixture(scope="module")
def model() -> Speech2TextForConditionalGeneration:
    return small_model()


def recording(seed: int, frames: int) -> Tensor:
    return loops.recording(seed, frames, FEATURES)


def requests(count: int = 16) -> list[Request]:
    return [
        Request(
            index,
            recording(index, 1 + 37 * index % 190),
            KINDS[index % len(KINDS)],
            priority=index % 3,
            stream=index % 2 == 0,
        )
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def alone(model) -> dict[int, RequestOutput]:
    outputs: dict[int, RequestOutput] = {}
    for request in requests():
        loop = model.generation_loop(num_pages=40, num_rows=5)
        loop.submit(request)
        finish(loop, outputs)
        assert_empty(loop)
    return outputs


@pytest.mark.parametrize(
    ("pages", "rows", "budget"), [(600, 80, 4096), (90, 12, 50), (20, 5, 1)], ids=["roomy", "tight", "tiny"]
)
def test_what_is_mixed_in_flight_completes_as_it_does_alone(pages, rows, budget, model, alone):
    loop = model.generation_loop(num_pages=pages, num_rows=rows, encode_budget=budget)
    for request in requests():
        loop.submit(request)
    assert finish(loop) == alone
    assert_empty(loop)


@pytest.mark.parametrize("seed", range(2))
def test_arrivals_and_cancellations_in_between_change_no_other_result(seed, model, alone):
    chance = random.Random(seed)
    loop = model.generation_loop(num_pages=60, num_rows=11, encode_budget=60)
    waiting = requests()
    chance.shuffle(waiting)
    outputs: dict[int, RequestOutput] = {}
    cancelled = set()
    for _ in range(3000):
        if not (waiting or loop.has_work):
            break
        for _ in range(chance.randrange(3)):
            if waiting:
                loop.submit(waiting.pop())
        if chance.random() < 0.2:
            victim = chance.randrange(16)
            if loop.cancel(victim):
                cancelled.add(victim)
                assert not loop.cancel(victim), "a request is cancelled once"
        take_step(loop, outputs)
    assert_empty(loop)
    assert cancelled
    assert outputs.keys() == alone.keys()
    for request_id, output in outputs.items():
        if request_id in cancelled:
            assert output == RequestOutput(request_id, (), FinishReason.CANCELLED)
        else:
            assert output == alone[request_id]


def test_streamed_tokens_are_those_of_the_output_as_they_come(model, alone):
    loop = model.generation_loop(num_pages=600, num_rows=80)
    given = requests()
    for request in given:
        loop.submit(request)
    outputs: dict[int, RequestOutput] = {}
    pieces: dict[int, list[int]] = {}
    most_at_once = 0
    while loop.has_work:
        for event in take_step(loop, outputs):
            pieces.setdefault(event.request_id, []).extend(event.token_ids)
            most_at_once = max(most_at_once, len(event.token_ids))
    assert most_at_once == 1, "a token is reported in the step that decodes it"
    streaming = {
        request.request_id for request in given if request.stream and request.options.hypotheses == 1
    }
    assert pieces.keys() == streaming
    assert len(streaming) >= 3
    for request_id, tokens in pieces.items():
        (hypothesis,) = alone[request_id].hypotheses
        assert (given[request_id].options.decoder_start_token_id, *tokens) == hypothesis.token_ids


def test_a_higher_priority_goes_first_and_within_one_the_first_come(model):
    loop = model.generation_loop(num_pages=20, num_rows=1)
    order = [(0, 0), (1, 5), (2, -1), (3, 5), (4, 0)]
    for request_id, priority in order:
        loop.submit(Request(request_id, recording(1, 9), replace(GREEDY, max_length=3), priority))
    assert list(finish(loop)) == [1, 3, 0, 4, 2]


def test_a_running_request_is_cancelled_within_a_step_and_the_others_go_on(model):
    loop = model.generation_loop(num_pages=40, num_rows=4)
    for request_id in range(3):
        loop.submit(Request(request_id, recording(request_id, 50), ENDLESS, stream=True))
    for _ in range(4):
        events = loop.step()
    assert [event.request_id for event in events] == [0, 1, 2]
    assert loop.cancel(1)
    events = loop.step()
    assert events[0] == RequestOutput(1, (), FinishReason.CANCELLED)
    assert [event.request_id for event in events[1:]] == [0, 2]
    assert loop.stats().running == 2
    outputs = finish(loop)
    assert {request_id: one.finish_reason for request_id, one in outputs.items()} == {
        0: FinishReason.LENGTH,
        2: FinishReason.LENGTH,
    }
    assert_empty(loop)


def test_a_waiting_request_is_cancelled_before_it_starts(model):
    loop = model.generation_loop(num_pages=40, num_rows=1)
    for request_id in range(2):
        loop.submit(Request(request_id, recording(request_id, 50), ENDLESS))
    loop.step()
    assert (loop.stats().running, loop.stats().waiting) == (1, 1)
    assert loop.cancel(1)
    assert loop.step() == [RequestOutput(1, (), FinishReason.CANCELLED)]
    loop.cancel(0)
    assert finish(loop) == {0: RequestOutput(0, (), FinishReason.CANCELLED)}
    assert_empty(loop)


def test_what_is_over_or_never_was_cannot_be_cancelled(model):
    loop = model.generation_loop(num_pages=40, num_rows=1)
    assert not loop.cancel(7)
    loop.submit(Request(0, recording(0, 9), replace(GREEDY, max_length=2)))
    (output,) = loop.step()
    assert isinstance(output, RequestOutput)
    assert not loop.cancel(0)
    assert loop.has_work, "its pages are released in the next step"
    assert loop.step() == []
    assert not loop.cancel(0)
    assert_empty(loop)


def test_a_request_that_cannot_be_encoded_fails_alone_with_its_error(model, alone):
    loop = model.generation_loop(num_pages=600, num_rows=80)
    for request in requests(8):
        loop.submit(request)
    loop.submit(Request(99, torch.randn(30, FEATURES + 2), KINDS[1]))
    outputs = finish(loop)
    failed = outputs.pop(99)
    assert (failed.hypotheses, failed.finish_reason) == ((), FinishReason.ERROR)
    assert "channels" in str(failed.error)
    assert outputs == {index: alone[index] for index in range(8)}
    assert_empty(loop)


def test_memory_that_runs_out_while_encoding_halves_what_is_encoded_at_once(
    model, alone, monkeypatch, caplog
):
    sizes = []
    encode = model.encode

    def short_of_memory(features, cu_frames):
        sizes.append(features.shape[0])
        if features.shape[0] > 200:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(features, cu_frames)

    monkeypatch.setattr(model, "encode", short_of_memory)
    loop = model.generation_loop(num_pages=600, num_rows=80, encode_budget=120)
    for request in requests():
        loop.submit(request)
    assert finish(loop) == alone
    assert max(sizes[: len(sizes) // 2]) > 200 >= max(sizes[-4:])
    assert "at most 60 encoder positions" in caplog.text
    assert_empty(loop)


def test_a_recording_too_large_for_the_memory_fails_alone(model, alone, monkeypatch):
    encode = model.encode

    def short_of_memory(features, cu_frames):
        if max(cu_frames.diff().tolist()) > 150:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(features, cu_frames)

    monkeypatch.setattr(model, "encode", short_of_memory)
    loop = model.generation_loop(num_pages=600, num_rows=80)
    for request in requests():
        loop.submit(request)
    outputs = finish(loop)
    for index, output in outputs.items():
        if 1 + 37 * index % 190 > 150:
            assert output.finish_reason is FinishReason.ERROR
            assert "out of memory" in str(output.error)
        else:
            assert output == alone[index]


def test_a_request_that_can_never_fit_is_refused_with_the_numbers_and_leaves_no_trace(model):
    loop = model.generation_loop(num_pages=5, num_rows=2)
    with pytest.raises(
        CapacityError, match=r"request 0 needs 6 pages \(4 for 50 encoder positions, .*cache has 5"
    ):
        loop.submit(Request(0, recording(0, 200), GREEDY))
    with pytest.raises(CapacityError, match=r"needs 3 rows .* the decode batch has 2; raise num_rows"):
        loop.submit(Request(0, recording(0, 9), replace(GREEDY, num_beams=3, max_length=9)))
    with pytest.raises(ValueError, match="the model has 60"):
        loop.submit(Request(0, recording(0, 999), GREEDY))
    assert_empty(loop)
    assert loop.step() == []
    loop.submit(Request(0, recording(0, 9), replace(GREEDY, max_length=3)))
    assert finish(loop)[0].hypotheses


def test_an_id_in_use_is_refused_and_the_request_that_has_it_goes_on(model):
    loop = model.generation_loop(num_pages=40, num_rows=2)
    first = Request(4, recording(0, 9), ENDLESS)
    loop.submit(first)
    for _ in range(2):
        with pytest.raises(ValueError, match="request id 4 is in use"):
            loop.submit(Request(4, recording(1, 30), replace(GREEDY, max_length=3)))
        loop.step()
    output = finish(loop)[4]
    other = model.generation_loop(num_pages=40, num_rows=2)
    other.submit(first)
    assert finish(other)[4] == output


def test_numbers_of_the_loop_follow_what_it_does(model):
    loop = model.generation_loop(num_pages=30, num_rows=4)
    stats = loop.stats()
    assert (stats.pages_total, stats.steps, stats.tokens_generated, stats.encoded_tokens) == (30, 0, 0, 0)
    assert not loop.has_work
    loop.submit(Request(0, recording(0, 100), replace(ENDLESS, num_beams=3, max_length=17)))
    loop.submit(Request(1, recording(1, 9), replace(ENDLESS, max_length=5)))
    loop.submit(Request(2, recording(2, 9), replace(ENDLESS, max_length=5)))
    stats = loop.stats()
    assert (stats.running, stats.waiting, stats.pages_used) == (0, 3, 0)
    loop.step()
    stats = loop.stats()
    assert (stats.running, stats.waiting, stats.pages_used) == (2, 1, 7)  # 2 + 3 and 1 + 1 pages
    assert (stats.steps, stats.tokens_generated, stats.encoded_tokens) == (1, 4, 28)
    finish(loop)
    stats = loop.stats()
    assert (stats.tokens_generated, stats.encoded_tokens) == (3 * 16 + 4 + 4, 31)
    assert_empty(loop)
