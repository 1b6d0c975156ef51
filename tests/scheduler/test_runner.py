"""The runner under the scheduler's plans: several steps in one, late reports, refused requests."""

from dataclasses import replace

import loops
import pytest
import torch
from loops import small_model
from torch import Tensor

from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration
from tritone.scheduler.config import RunnerConfig
from tritone.scheduler.request import FinishReason, GenerationOptions, Hypothesis, Request, RequestOutput
from tritone.scheduler.runner import ModelRunner
from tritone.scheduler.scheduler import Scheduler

FEATURES = 7
GREEDY = GenerationOptions(max_length=17, eos_token_ids=(2,))  # 16 positions: exactly a page
BEAMS = replace(GREEDY, num_beams=3)
SAMPLED = replace(GREEDY, do_sample=True, num_return_sequences=2, seed=11)


@pytest.fixture(scope="module")
def model() -> Speech2TextForConditionalGeneration:
    return small_model()


def recording(seed: int, frames: int) -> Tensor:
    return loops.recording(seed, frames, FEATURES)


def requests() -> list[Request]:
    """A request of every kind, some that share their rules, ending at different lengths."""
    options = [
        GREEDY,
        BEAMS,
        SAMPLED,
        replace(GREEDY, max_length=33, min_length=30),
        replace(BEAMS, max_length=9, length_penalty=2.0),
        replace(SAMPLED, seed=12),
        replace(BEAMS, num_beams=5, early_stopping=True, repetition_penalty=1.3, max_length=18),
        replace(BEAMS, do_sample=True, seed=5),
        replace(GREEDY, max_length=2),
        replace(GREEDY, max_length=16, eos_token_ids=()),
        replace(BEAMS, max_length=17, eos_token_ids=()),
    ]
    lengths = [5, 64, 70, 1, 128, 33, 90, 16, 65, 200, 31]
    return [
        Request(index, recording(index, frames), option)
        for index, (frames, option) in enumerate(zip(lengths, options, strict=True))
    ]


Results = dict[int, tuple[tuple[Hypothesis, ...], FinishReason]]


def drive(
    runner: ModelRunner, given: list[Request], decode_steps: int = 1, late: int = 0, budget: int = 1000
) -> Results:
    """Run all requests, each step `decode_steps` tokens long and reported `late` steps after it."""
    scheduler = Scheduler(runner.num_pages, runner.num_slots, budget)
    for request in given:
        scheduler.add(request.request_id, runner.demand(request), request.priority)
    by_id = {request.request_id: request for request in given}
    results: Results = {}
    unreported: list[tuple[int, dict[int, FinishReason]]] = []
    for _ in range(1000):
        if not scheduler.has_work:
            break
        step = scheduler.schedule(decode_steps)
        events = runner.collect(
            runner.launch(step, {one.request_id: by_id[one.request_id] for one in step.admitted})
        )
        outputs = [event for event in events if isinstance(event, RequestOutput)]
        for output in outputs:
            assert output.request_id not in results, "a request ends once"
            results[output.request_id] = (output.hypotheses, output.finish_reason)
        unreported.append((step.number, {output.request_id: output.finish_reason for output in outputs}))
        if len(unreported) > late:
            scheduler.update(*unreported.pop(0))
    assert not scheduler.has_work
    assert (scheduler.pages_used, scheduler.slots_used) == (0, 0)
    return results


@pytest.fixture(scope="module")
def alone(model) -> Results:
    """Results of each request in a cache of its own."""
    results: Results = {}
    for request in requests():
        results |= drive(ModelRunner(model, num_pages=60, num_slots=5), [request])
    assert {reason for _, reason in results.values()} == {FinishReason.STOP, FinishReason.LENGTH}
    return results


@pytest.mark.parametrize("decode_steps", [1, 2, 3, 7, 40])
def test_several_tokens_a_step_give_what_one_gives(decode_steps, model, alone):
    runner = ModelRunner(model, num_pages=200, num_slots=40)
    assert drive(runner, requests(), decode_steps) == alone


@pytest.mark.parametrize(("decode_steps", "late"), [(1, 1), (1, 3), (3, 2)])
def test_reports_that_come_late_change_nothing(decode_steps, late, model, alone):
    runner = ModelRunner(model, num_pages=200, num_slots=40)
    assert drive(runner, requests(), decode_steps, late) == alone


@pytest.mark.parametrize("decode_steps", [1, 3])
def test_a_cache_so_small_that_most_wait_changes_nothing(decode_steps, model, alone):
    runner = ModelRunner(model, num_pages=14, num_slots=5)
    assert drive(runner, requests(), decode_steps, late=1, budget=20) == alone


def test_no_cache_position_is_read_before_it_is_written(model, alone):
    runner = ModelRunner(model, num_pages=40, num_slots=9)
    runner._cache.keys.fill_(float("nan"))
    runner._cache.values.fill_(float("nan"))
    for tables in runner._state.buffers:
        tables.score.fill_(float("nan"))
        tables.final_score.fill_(float("nan"))
        tables.tokens.fill_(-1)
        tables.origin.fill_(10**6)
    assert drive(runner, requests(), decode_steps=3, late=1) == alone


def test_a_runner_is_used_again_after_everything_has_ended(model, alone):
    runner = ModelRunner(model, num_pages=40, num_slots=9)
    for _ in range(2):
        assert drive(runner, list(reversed(requests()))) == alone


def test_hypotheses_are_what_the_options_ask_for(model, alone):
    for request in requests():
        hypotheses, reason = alone[request.request_id]
        options = request.options
        assert len(hypotheses) == options.hypotheses
        assert reason == hypotheses[0].finish_reason
        for hypothesis in hypotheses:
            tokens = hypothesis.token_ids
            assert tokens[0] == options.decoder_start_token_id
            assert options.min_length <= len(tokens) <= options.max_length
            stopped = tokens[-1] in options.eos_token_ids
            assert hypothesis.finish_reason == (FinishReason.STOP if stopped else FinishReason.LENGTH)
            assert stopped or len(tokens) == options.max_length
            assert not set(tokens[1:-1]) & set(options.eos_token_ids)
        if options.num_beams > 1 and not options.do_sample:
            scores = [hypothesis.score for hypothesis in hypotheses]
            assert scores == sorted(scores, reverse=True)


def test_a_score_of_greedy_search_is_the_mean_log_probability_of_its_tokens(model, alone):
    for index in (0, 2, 3):
        request = requests()[index]
        for hypothesis in alone[index][0]:
            tokens = torch.tensor([hypothesis.token_ids])
            with torch.no_grad():
                logits = model(request.inputs[None], decoder_input_ids=tokens[:, :-1]).logits
            wanted = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None]).mean()
            assert hypothesis.score == pytest.approx(float(wanted), abs=1e-5)


def test_a_score_of_beam_search_is_the_sum_over_the_length_to_the_penalty(model, alone):
    for index in (1, 4, 10):
        request = requests()[index]
        for hypothesis in alone[index][0]:
            tokens = torch.tensor([hypothesis.token_ids])
            with torch.no_grad():
                logits = model(request.inputs[None], decoder_input_ids=tokens[:, :-1]).logits
            total = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None]).sum()
            wanted = float(total) / (tokens.shape[1] - 1) ** request.options.length_penalty
            assert hypothesis.score == pytest.approx(wanted, abs=1e-5)


def test_samples_differ_by_seed_and_by_index_and_are_drawn_again_from_the_same(model):
    request = Request(0, recording(1, 40), replace(SAMPLED, num_return_sequences=4, temperature=1.5))
    first, _ = drive(ModelRunner(model, num_pages=60, num_slots=4), [request])[0]
    assert len({hypothesis.token_ids for hypothesis in first}) > 1
    again = replace(request, request_id=9)
    assert drive(ModelRunner(model, num_pages=60, num_slots=4), [again])[9][0] == first
    other = replace(request, options=replace(request.options, seed=99))
    assert drive(ModelRunner(model, num_pages=60, num_slots=4), [other])[0][0] != first


class Frames:
    """A front end whose features are the samples themselves; it fails on a waveform that begins with -1."""

    def frame_count(self, samples: int) -> int:
        return samples // FEATURES

    def extract_packed(self, waveforms, cu_samples, dtype=None) -> tuple[Tensor, Tensor]:
        if bool((waveforms[cu_samples[:-1].long()] == -1.0).any()):
            raise RuntimeError("a waveform that cannot be read")
        return waveforms.view(-1, FEATURES), cu_samples // FEATURES


def test_waveforms_and_features_go_side_by_side(model, alone):
    given = requests()
    mixed = [
        replace(request, inputs=request.inputs.flatten()) if request.request_id % 2 else request
        for request in given
    ]
    for some in (mixed, [replace(request, inputs=request.inputs.flatten()) for request in given]):
        assert drive(ModelRunner(model, Frames(), num_pages=200, num_slots=40), some) == alone


@pytest.mark.parametrize("decode_steps", [1, 3])
def test_a_request_that_cannot_be_encoded_fails_alone(decode_steps, model, alone):
    bad = [
        Request(100, torch.randn(40, FEATURES + 1), BEAMS),
        Request(101, -torch.ones(21 * FEATURES), GREEDY),
        Request(102, torch.randn(5, FEATURES, 2), GREEDY),
    ]
    runner = ModelRunner(model, Frames(), num_pages=200, num_slots=60)
    good = requests()
    results = drive(runner, [*good[:3], bad[0], *good[3:7], *bad[1:], *good[7:]], decode_steps)
    for request in bad:
        assert results.pop(request.request_id) == ((), FinishReason.ERROR)
    assert results == alone


def test_a_failure_is_reported_with_its_error(model):
    runner = ModelRunner(model, Frames(), num_pages=20, num_slots=4)
    scheduler = Scheduler(20, 4, 1000)
    request = Request(3, -torch.ones(FEATURES), GREEDY)
    scheduler.add(3, runner.demand(request))
    (output,) = runner.collect(runner.launch(scheduler.schedule(), {3: request}))
    assert (output.request_id, output.hypotheses, output.finish_reason) == (3, (), FinishReason.ERROR)
    assert str(output.error) == "a waveform that cannot be read"


def test_a_demand_is_what_the_request_can_ever_need(model):
    runner = ModelRunner(model, Frames(), num_pages=20, num_slots=4)
    demand = runner.demand(Request(0, recording(0, 100), BEAMS))
    assert (demand.encode_tokens, demand.decode_positions, demand.hypotheses) == (25, 16, 3)
    assert runner.demand(Request(0, torch.zeros(100 * FEATURES + 3), BEAMS)) == demand
    assert runner.demand(Request(0, recording(0, 1), SAMPLED)).hypotheses == 2


@pytest.mark.parametrize(
    ("inputs", "options", "problem"),
    [
        (
            torch.zeros(3),
            GREEDY,
            "3 samples are shorter than one frame of 25 ms; there is nothing to transcribe",
        ),
        (torch.zeros(0, FEATURES), GREEDY, "there is nothing to transcribe"),
        (torch.zeros(241, FEATURES), GREEDY, "241 frames are 61 encoder positions, and the model has 60"),
        (torch.zeros(9, FEATURES), replace(GREEDY, max_length=65), "max_length is 65, .* holds 64"),
        (torch.tensor(1.0), GREEDY, r"inputs must be .* got a tensor of shape \[\]"),
    ],
    ids=["short waveform", "no frames", "long recording", "long transcript", "a number"],
)
def test_requests_that_the_model_cannot_take_are_refused_at_once(inputs, options, problem, model):
    runner = ModelRunner(model, Frames(), num_pages=20, num_slots=4)
    with pytest.raises(ValueError, match=problem):
        runner.demand(Request(0, inputs, options))


def test_a_waveform_without_a_front_end_is_refused(model):
    runner = ModelRunner(model, num_pages=20, num_slots=4)
    with pytest.raises(ValueError, match=r"takes features .*; extract them from the waveform first"):
        runner.demand(Request(0, torch.zeros(700), GREEDY))


def test_a_runner_sized_for_requests_holds_them_all_at_once_where_memory_allows(model, alone):
    given = requests()
    runner = ModelRunner.sized_for(model, given)
    demands = [runner.demand(request) for request in given]
    assert runner.num_pages == sum(demand.pages for demand in demands)
    assert runner.num_slots == sum(demand.hypotheses for demand in demands)
    bounded = RunnerConfig(default_cache_bytes=1, default_num_slots=1)
    runner = ModelRunner.sized_for(model, given, bounded)
    assert runner.num_pages == max(demand.pages for demand in demands)
    assert runner.num_slots == max(demand.hypotheses for demand in demands)
    assert drive(runner, given) == alone
    assert ModelRunner.sized_for(model, []).num_pages == 0
