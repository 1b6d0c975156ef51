"""Steps launched ahead of the results of earlier ones change no result, whatever comes and goes meanwhile."""

from dataclasses import dataclass, replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tritone.models.speech_to_text.config import Speech2TextConfig
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
    torch.manual_seed(3)
    config = Speech2TextConfig(
        vocab_size=29,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        conv_channels=6,
        max_source_positions=30,
        max_target_positions=20,
        input_feat_per_channel=FEATURES,
        init_std=0.6,
    )
    return Speech2TextForConditionalGeneration(config).eval()


def request(index: int, life: int = 0) -> Request:
    """Requests of one id are other ones in another life."""
    seed, frames = index + COUNT * life, 1 + 7 * (index + life)
    features = torch.randn(frames, FEATURES, generator=torch.Generator().manual_seed(seed))
    options = KINDS[index % len(KINDS)]
    return Request(index, features, options, keep_scores=index % 3 == 0, stream=index % 2 == 0)


def same(one: RequestOutput, other: RequestOutput) -> bool:
    """Scores of steps are tensors, which `==` would not compare as a whole."""
    steps = zip(one.scores, other.scores, strict=True)
    return replace(one, scores=()) == replace(other, scores=()) and all(torch.equal(a, b) for a, b in steps)


@pytest.fixture(scope="module")
def alone(model) -> dict[tuple[int, int], RequestOutput]:
    """What each request comes to by itself, every step's result awaited; by id and life."""
    completions = {}
    for index, life in product(range(COUNT), range(LIVES)):
        loop = model.generation_loop(num_pages=40, num_rows=3, ahead=0)
        loop.submit(request(index, life))
        while loop.has_work:
            for event in loop.step():
                if isinstance(event, RequestOutput):
                    completions[index, life] = event
    lengths = {len(completion.hypotheses[0].token_ids) for completion in completions.values()}
    assert len(lengths) > 3, "some end at their limit, some before"
    return completions


@dataclass
class Seen:
    """What a loop has reported of its requests."""

    completions: dict[int, RequestOutput]
    pieces: dict[int, list[int]]

    def step(self, loop: GenerationLoop) -> None:
        for event in loop.step():
            assert event.request_id not in self.completions, "a completion is a request's last event"
            if isinstance(event, Tokens):
                self.pieces.setdefault(event.request_id, []).extend(event.token_ids)
            else:
                self.completions[event.request_id] = event


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
    for what, index in history:
        if what == "submit" and to_come:
            lives[index := to_come.pop()] = 0
            loop.submit(request(index))
        elif what == "cancel" and loop.cancel(index):
            cancelled.add(index)
        elif what == "again" and seen.completions.keys() & cancelled:
            index = min(seen.completions.keys() & cancelled)
            if lives[index] + 1 < LIVES:
                lives[index] += 1
                cancelled.discard(index)
                del seen.completions[index]
                seen.pieces.pop(index, None)
                loop.submit(request(index, lives[index]))
        seen.step(loop)
    for _ in range(1000):
        if not loop.has_work:
            break
        seen.step(loop)
    stats = loop.stats()
    assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, 0)
    assert seen.completions.keys() == lives.keys()
    for index, completion in seen.completions.items():
        if index in cancelled:
            assert completion == RequestOutput(index, (), FinishReason.CANCELLED)
        else:
            assert same(completion, alone[index, lives[index]])
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
    assert same(seen.completions[4], alone[4, 0])
    assert same(seen.completions[6], alone[6, 0])


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
