"""Steps launched ahead of the results of earlier ones: no result changes, whatever comes and goes."""

from dataclasses import replace
from itertools import product

import loops
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import check_history, finish, histories, same, tiny_model

from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration
from tritone.scheduler.request import FinishReason, GenerationOptions, Request, RequestOutput

FEATURES = 5
# No token twice, or a model this small would say one until its limit: so ends come at all lengths.
GREEDY = GenerationOptions(max_length=14, eos_token_ids=(2, 5, 7), no_repeat_ngram_size=1)
KINDS = [
    GREEDY,
    replace(GREEDY, num_beams=3),
    replace(GREEDY, do_sample=True, seed=3, max_length=17),
    replace(GREEDY, num_beams=2, early_stopping=True, length_penalty=0.3),
    replace(GREEDY, do_sample=True, num_return_sequences=2, seed=8),
]
COUNT, LIVES = 10, 4


@pytest.fixture(scope="module")
def model() -> Speech2TextForConditionalGeneration:
    return tiny_model()


def request(index: int, life: int = 0) -> Request:
    """A request; one id is another request in another life."""
    seed, frames = index + COUNT * life, 1 + 7 * (index + life)
    features = loops.recording(seed, frames, FEATURES)
    options = replace(KINDS[index % len(KINDS)], token_log_probs=index < len(KINDS))
    return Request(index, features, options, keep_scores=index % 3 == 0, stream=index % 2 == 0)


@pytest.fixture(scope="module")
def alone(model) -> dict[tuple[int, int], RequestOutput]:
    """Output of each request by itself, every step's result awaited; by id and life."""
    outputs = {}
    for index, life in product(range(COUNT), range(LIVES)):
        loop = model.generation_loop(num_pages=40, num_rows=3, ahead=0)
        loop.submit(request(index, life))
        outputs[index, life] = finish(loop)[index]
    lengths = {len(output.hypotheses[0].token_ids) for output in outputs.values()}
    assert len(lengths) > 3, "some end at their limit, some before"
    return outputs


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    history=histories(COUNT, 25, 60),
    ahead=st.integers(0, 5),
    pages=st.sampled_from([12, 40, 300]),
    rows=st.sampled_from([3, 5, 40]),
    graphs=st.booleans(),
    overlap=st.booleans(),
    order=st.permutations(range(COUNT)),
)
def test_random_histories_give_what_each_request_gives_alone(
    model, alone, history, ahead, pages, rows, graphs, overlap, order
):
    loop = model.generation_loop(
        num_pages=pages, num_rows=rows, encode_budget=12, ahead=ahead, graphs=graphs, overlap=overlap
    )
    check_history(loop, history, order, request, alone)


@pytest.mark.parametrize("ahead", [1, 3])
def test_an_id_used_again_while_steps_are_in_flight_is_another_request(model, alone, ahead):
    loop = model.generation_loop(num_pages=40, num_rows=3, ahead=ahead)
    broken = Request(4, torch.randn(9, FEATURES + 1), GREEDY)  # cannot be encoded, which is found out late
    loop.submit(broken)
    loop.submit(request(6))  # which goes on meanwhile
    assert loop.step() == []
    assert loop.cancel(4)
    assert RequestOutput(4, (), FinishReason.CANCELLED) in loop.step()
    loop.submit(request(4))
    outputs = finish(loop)
    assert same(outputs[4], alone[4, 0])
    assert same(outputs[6], alone[6, 0])


def test_results_come_so_many_steps_later_and_no_more(model):
    steps = []
    for ahead in (0, 1, 4):
        loop = model.generation_loop(num_pages=40, num_rows=3, ahead=ahead)
        loop.submit(request(0))
        count = 0
        while loop.has_work:
            loop.step()
            count += 1
        steps.append(count)
    assert steps == [steps[0], steps[0] + 1, steps[0] + 4]


def test_a_negative_number_of_steps_is_refused(model):
    with pytest.raises(ValueError, match="ahead is -1; it must be 0 or more steps"):
        model.generation_loop(num_pages=40, num_rows=3, ahead=-1)
