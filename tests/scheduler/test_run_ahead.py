"""Steps launched ahead of the results of earlier ones: no result changes, whatever comes and goes."""

from dataclasses import dataclass, replace
from itertools import product

import loops
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import finish, tiny_model

from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.request import FinishReason, GenerationOptions, Request, RequestOutput, Tokens

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
    options = KINDS[index % len(KINDS)]
    return Request(index, features, options, keep_scores=index % 3 == 0, stream=index % 2 == 0)


def same(one: RequestOutput, other: RequestOutput) -> bool:
    """Equality of outputs, whose scores are tensors."""
    steps = zip(one.scores, other.scores, strict=True)
    return replace(one, scores=()) == replace(other, scores=()) and all(torch.equal(a, b) for a, b in steps)


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


@dataclass
class Seen:
    """Events of a loop so far: outputs, and streamed tokens."""

    outputs: dict[int, RequestOutput]
    pieces: dict[int, list[int]]

    def step(self, loop: GenerationLoop) -> None:
        for event in loop.step():
            assert event.request_id not in self.outputs, "a output is a request's last event"
            if isinstance(event, Tokens):
                self.pieces.setdefault(event.request_id, []).extend(event.token_ids)
            else:
                self.outputs[event.request_id] = event


# What happens before each step: a request comes, one is cancelled, a cancelled one comes again, or nothing.
HISTORIES = st.lists(
    st.tuples(st.sampled_from(["submit", "submit", "nothing", "cancel", "again"]), st.integers(0, COUNT - 1)),
    min_size=25,
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(
    history=HISTORIES,
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
    to_come, lives, cancelled = list(order), {}, set()
    seen = Seen({}, {})
    for action, index in history:
        if action == "submit" and to_come:
            lives[index := to_come.pop()] = 0
            loop.submit(request(index))
        elif action == "cancel" and loop.cancel(index):
            cancelled.add(index)
        elif action == "again" and seen.outputs.keys() & cancelled:
            index = min(seen.outputs.keys() & cancelled)
            if lives[index] + 1 < LIVES:
                lives[index] += 1
                cancelled.discard(index)
                del seen.outputs[index]
                seen.pieces.pop(index, None)
                loop.submit(request(index, lives[index]))
        seen.step(loop)
    for _ in range(1000):
        if not loop.has_work:
            break
        seen.step(loop)
    stats = loop.stats()
    assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, 0)
    assert seen.outputs.keys() == lives.keys()
    for index, output in seen.outputs.items():
        if index in cancelled:
            assert output == RequestOutput(index, (), FinishReason.CANCELLED)
        else:
            assert same(output, alone[index, lives[index]])
        if index in seen.pieces:
            tokens = alone[index, lives[index]].hypotheses[0].token_ids[1:]
            piece = tuple(seen.pieces[index])
            assert piece == tokens if index not in cancelled else piece == tokens[: len(piece)]


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
    seen = Seen({}, {})
    while loop.has_work:
        seen.step(loop)
    assert same(seen.outputs[4], alone[4, 0])
    assert same(seen.outputs[6], alone[6, 0])


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
