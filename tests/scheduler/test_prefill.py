"""Prompts in the loop: prefilled at admission, alone or among others, and what is read behind their start."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from loops import finish, recording, small_model, take_step, tiny_model

from tritone.kernels.sampling.timestamps import TimestampRule
from tritone.scheduler.config import RunnerConfig
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.request import FinishReason, GenerationOptions, Request, RequestOutput

GREEDY = GenerationOptions(max_length=30, eos_token_ids=(2, 5), no_repeat_ngram_size=1)
TIMES = TimestampRule(first=20, no_timestamps=19, end=2, max_initial=3)
OPTIONS = [
    replace(GREEDY, prompt_tokens=(2, 9, 4)),
    replace(GREEDY, prompt_tokens=tuple(range(3, 22)), no_speech_token=7, choices=(8, 3, 28), start_index=4),
    GREEDY,
    replace(GREEDY, num_beams=3, prompt_tokens=(2, 7), timestamps=TIMES),
    replace(
        GREEDY,
        do_sample=True,
        num_return_sequences=3,
        seed=5,
        prompt_tokens=tuple(range(3, 21)),
        token_log_probs=True,
    ),
    replace(
        GREEDY,
        prompt_tokens=(6,),
        no_speech_token=11,
        timestamps=TIMES,
        score_after_rules=True,
        token_log_probs=True,
    ),
    replace(GREEDY, num_beams=2, prompt_tokens=(2, 0), choices=(12, 13, 14), max_length=18),
    replace(GREEDY, prompt_tokens=(2, 0), choices=(21, 22, 23), no_speech_token=1, max_length=3),
]


@pytest.fixture(scope="module")
def model() -> Any:
    return small_model()


def request(index: int, options: GenerationOptions | None = None, **changes: Any) -> Request:
    options = options or OPTIONS[index % len(OPTIONS)]
    return Request(index, recording(index, 9 + 13 * index % 90, 7), options, **changes)


def run(model: Any, requests: list[Request], **settings: Any) -> dict[int, RequestOutput]:
    loop = model.generation_loop(num_pages=200, num_rows=40, **settings)
    for one in requests:
        loop.submit(one)
    return finish(loop)


@pytest.fixture(scope="module")
def alone(model: Any) -> dict[int, RequestOutput]:
    return {index: run(model, [request(index)])[index] for index in range(len(OPTIONS))}


@pytest.mark.parametrize(
    ("threads", "settings"),
    [
        (1, {}),
        (2, {}),
        (1, {"config": RunnerConfig(max_chunk_tokens=20)}),
        (1, {"graphs": True, "overlap": True, "ahead": 2}),
    ],
    ids=["plain", "cores", "chunks", "graphs"],
)
def test_prompts_mixed_in_a_batch_give_what_each_gives_alone(
    threads: int, settings: dict[str, Any], model: Any, alone: dict[int, RequestOutput]
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        loop = model.generation_loop(num_pages=60, num_rows=9, **settings)
        outputs: dict[int, RequestOutput] = {}
        for index in range(len(OPTIONS)):
            loop.submit(request(index))
            if index % 3 == 2:
                take_step(loop, outputs)
        assert finish(loop, outputs) == alone
    finally:
        torch.set_num_threads(before)


def test_sequences_begin_with_their_prompts(alone: dict[int, RequestOutput]) -> None:
    for index, options in enumerate(OPTIONS):
        chosen = {options.start_index + 1} if options.choices else set()
        for hypothesis in alone[index].hypotheses:
            assert len(hypothesis.token_ids) > len(options.prompt)
            for position, token in enumerate(options.prompt):
                if position in chosen:
                    assert hypothesis.token_ids[position] in options.choices
                else:
                    assert hypothesis.token_ids[position] == token


def test_a_stream_brings_the_tokens_behind_the_prompt(model: Any, alone: dict[int, RequestOutput]) -> None:
    loop = model.generation_loop(num_pages=60, num_rows=9)
    for index in range(2):
        loop.submit(request(index, stream=True))
    outputs: dict[int, RequestOutput] = {}
    streamed: dict[int, list[int]] = {0: [], 1: []}
    while loop.has_work:
        for piece in take_step(loop, outputs):
            streamed[piece.request_id] += piece.token_ids
    for index, tokens in streamed.items():
        (whole,) = alone[index].hypotheses
        assert tuple(tokens) == whole.token_ids[len(OPTIONS[index].prompt) :]


@pytest.mark.parametrize("start", [0, 2, 3], ids="behind token {}".format)
def test_what_is_read_behind_the_start_is_what_a_step_there_would_choose_by(start: int, model: Any) -> None:
    """Also behind the last token of a prompt, whose logits the first step computes again."""
    prompt = (2, 9, 4, 11)
    until = replace(GREEDY, prompt_tokens=prompt[: start + 1], max_length=start + 2, no_repeat_ngram_size=0)
    plain = run(model, [request(0, until, keep_scores=True)])[0]
    scores = plain.scores[0][0]
    probability = scores.double().softmax(-1)
    options = replace(GREEDY, prompt_tokens=prompt, start_index=start, no_speech_token=6)
    output = run(model, [request(0, options)])[0]
    assert output.no_speech_probability == pytest.approx(float(probability[6]), rel=1e-5)
    assert plain.no_speech_probability is None
    assert output.hypotheses == run(model, [request(0, replace(options, no_speech_token=None))])[0].hypotheses
    if start + 1 < len(prompt):
        choices = tuple(scores.argsort()[5:9].tolist())  # the last is the likeliest
        chosen = run(model, [request(0, replace(options, choices=choices))])[0]
        given = [*prompt[: start + 1], choices[-1], *prompt[start + 2 :]]
        wanted = run(model, [request(0, replace(options, prompt_tokens=tuple(given)))])[0]
        assert chosen == wanted, "as if the chosen token had been given"


def test_the_smallest_of_equal_choices_is_chosen(model: Any) -> None:
    model = small_model()
    with torch.no_grad():
        model.lm_head.weight[[9, 14, 21]] = model.lm_head.weight[14].clone()
    options = replace(GREEDY, prompt_tokens=(2, 0), choices=(21, 9, 14), max_length=3)
    assert run(model, [request(0, options)])[0].hypotheses[0].token_ids[1] == 9


def test_samples_of_a_prompt_differ_and_share_its_keys(model: Any) -> None:
    """Their first logits are those of greedy search, though each reads its own pages."""
    prompt = tuple(range(3, 22))
    sampled = replace(OPTIONS[4], prompt_tokens=prompt, max_length=25)
    output = run(model, [request(0, sampled, keep_scores=True)])[0]
    assert len({one.token_ids for one in output.hypotheses}) == 3
    plain = replace(GREEDY, prompt_tokens=prompt, max_length=20)
    wanted = run(model, [request(0, plain, keep_scores=True)])[0].scores[0]
    kept = torch.where(output.scores[0].isneginf(), output.scores[0], wanted)
    assert torch.equal(output.scores[0], kept)


def test_log_probabilities_are_of_the_generated_tokens(model: Any) -> None:
    """Under the model or after the rules, and with the temperature undone."""
    for changes in ({}, {"score_after_rules": True}):
        for drawn in ({}, {"do_sample": True, "temperature": 0.7, "top_k": 0, "seed": 3}):
            options = replace(OPTIONS[0], timestamps=TIMES, **changes, **drawn)
            output = run(model, [request(0, options, keep_scores=True)])[0]
            (found,) = output.hypotheses
            tokens = found.token_ids[3:]
            factor = options.temperature if options.do_sample else 1.0
            after = [
                float((scores[0] * factor).log_softmax(-1)[token])
                for scores, token in zip(output.scores, tokens, strict=True)
            ]
            assert found.score == pytest.approx(found.sum_log_probability / len(tokens))
            assert found.token_log_probs is None
            asking = replace(options, token_log_probs=True)
            (with_each,) = run(model, [request(0, asking)])[0].hypotheses
            each = with_each.token_log_probs
            assert replace(with_each, token_log_probs=None) == found
            assert np.add.accumulate(np.array(each, np.float32))[-1] == found.sum_log_probability
            if changes:
                assert each == pytest.approx(after, abs=1e-5)
                assert found.sum_log_probability == pytest.approx(sum(after), rel=1e-4)
            else:
                assert found.sum_log_probability < sum(after), "rules leave fewer tokens to share"


def test_the_sum_of_a_beam_is_its_score_times_the_penalty(model: Any) -> None:
    options = replace(OPTIONS[3], length_penalty=0.5)
    for found in run(model, [request(0, options)])[0].hypotheses:
        generated = len(found.token_ids) - 2
        assert found.sum_log_probability == pytest.approx(found.score * generated**0.5)


def test_times_rise_in_pairs_behind_any_prompt(alone: dict[int, RequestOutput]) -> None:
    for index in (3, 5):
        prompt = OPTIONS[index].prompt
        for hypothesis in alone[index].hypotheses:
            times = [token for token in hypothesis.token_ids[len(prompt) :] if token >= TIMES.first]
            assert TIMES.first <= hypothesis.token_ids[len(prompt)] <= TIMES.first + 3
            assert times == sorted(times)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_tokens": (2,) * 30}, "max_length is 30, and the prompt has 30 tokens"),
        ({"prompt_tokens": (2, 3), "start_index": 2}, "start_index is 2; it must be 0 to 1"),
        ({"start_index": -1}, "start_index is -1; it must be 0 to 0"),
        ({"prompt_tokens": (2, 3), "start_index": 1, "choices": (4,)}, "choices replace token 2"),
    ],
)
def test_options_that_do_not_fit_a_prompt_are_refused(
    changes: dict[str, Any], message: str, model: Any
) -> None:
    loop: GenerationLoop = model.generation_loop(num_pages=60, num_rows=9)
    with pytest.raises(ValueError, match=message):
        loop.submit(request(0, replace(GREEDY, **changes)))
    assert not loop.has_work


def test_a_token_that_the_model_does_not_have_fails_its_request_alone(
    model: Any, alone: dict[int, RequestOutput]
) -> None:
    bad = request(2, replace(GREEDY, prompt_tokens=(2, 999, 4)))
    outputs = run(model, [request(0), bad, request(1)])
    assert outputs[2].finish_reason is FinishReason.ERROR
    assert {index: outputs[index] for index in (0, 1)} == {index: alone[index] for index in (0, 1)}


def test_prompts_go_through_the_kernels(kernels_on: str) -> None:
    """Prefilled and mixed, with the bits of each alone."""
    model = tiny_model(max_target_positions=24).to(kernels_on)
    kinds = [
        replace(GREEDY, prompt_tokens=(2, 9, 4), timestamps=TIMES, max_length=5),
        replace(GREEDY, prompt_tokens=tuple(range(3, 21)), max_length=20, choices=(8, 3), no_speech_token=7),
        replace(GREEDY, prompt_tokens=(2, 7), num_beams=2, max_length=4),
    ]
    requests = [
        Request(index, recording(index, 9 + 20 * index, 5).to(kernels_on), options)
        for index, options in enumerate(kinds)
    ]
    together = run(model, requests)
    for one in requests:
        assert run(model, [one])[one.request_id] == together[one.request_id]
