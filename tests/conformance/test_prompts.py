"""Prompts: tokens before the first generated one, against transformers, and prefilled to the bit."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from tritone.kernels.sampling.timestamps import TimestampRule

FRAMES = (31, 97, 150)
PROMPT = [7, 11, 5, 30, 9]  # behind the start token, which is 2
LONG = [3 + token * 7 % 27 for token in range(20)]  # into a second page of the cache

OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"max_length": 24},
    "beams": {"max_length": 24, "num_beams": 3, "num_return_sequences": 3},
    "lengths": {"max_new_tokens": 12, "min_new_tokens": 9, "num_beams": 3, "length_penalty": 2.0},
    "default length": {"min_new_tokens": 4},
    "never": {"max_length": 20, "num_beams": 3, "length_penalty": 0.5, "early_stopping": "never"},
    "begin": {"max_new_tokens": 9, "begin_suppress_tokens": [2, 16, 18, 30], "num_beams": 2},
    "forced": {"max_new_tokens": 9, "forced_bos_token_id": 8, "forced_eos_token_id": 2},
    "ngrams": {"max_length": 24, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
}


def generate_both(pair: Any, features: Tensor, prompt: Tensor, options: dict[str, Any]) -> tuple[Any, Any]:
    kept = {"return_dict_in_generate": True, "output_scores": True, "decoder_input_ids": prompt}
    return pair.theirs.generate(features, **kept, **options), pair.ours.generate(features, **kept, **options)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(
    "prompt", [[2], [2, *PROMPT], PROMPT, [2, *LONG]], ids=lambda one: f"{len(one)} tokens"
)
def test_prompts_agree_with_transformers(name: str, prompt: list[int], pair_of: Callable[[str], Any]) -> None:
    pair, options = pair_of("two-convs"), OPTIONS[name]
    if len(prompt) > 20 and "max_length" in options:
        options = options | {"max_length": 38}
    for frames in FRAMES:
        wanted, got = generate_both(pair, pair.features(frames), torch.tensor([prompt]), options)
        assert got.sequences.tolist() == wanted.sequences.tolist(), frames
        if "sequences_scores" in wanted:
            torch.testing.assert_close(got.sequences_scores, wanted.sequences_scores, rtol=0, atol=1e-4)
        assert len(got.scores) == len(wanted.scores)
        for ours, theirs in zip(got.scores, wanted.scores, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)


def test_each_row_of_a_batch_has_a_prompt_of_its_own(pair_of: Callable[[str], Any]) -> None:
    pair = pair_of("one-conv-pad-0")
    features = torch.cat([pair.features(60), pair.features(60) * 0.5])
    prompts = torch.tensor([[2, 5, 9], [2, 7, 4]])
    found = pair.ours.generate(features, decoder_input_ids=prompts, max_new_tokens=5)
    assert found[:, :3].tolist() == prompts.tolist()
    for row in range(2):
        one = slice(row, row + 1)
        alone = pair.theirs.generate(features[one], decoder_input_ids=prompts[one], max_new_tokens=5)
        assert found[row, : alone.shape[1]].tolist() == alone[0].tolist()


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (torch.tensor([2, 3]), r"must be \[1, tokens\]"),
        (torch.tensor([[2], [3]]), r"must be \[1, tokens\]"),
        (torch.tensor([[2, 9999]]), "names token 9999"),
        (torch.tensor([[2, *LONG]]), "max_length is 12; it must be 22 to"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(prompts: Tensor, message: str, pair_of: Any) -> None:
    pair = pair_of("two-convs")
    with pytest.raises(ValueError, match=message):
        pair.ours.generate(pair.features(31), decoder_input_ids=prompts, max_length=12)


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("limit", [None, 2])
def test_timestamps_agree_with_whispers_processor(
    limit: int | None, num_beams: int, pair_of: Any, run_loop: Any, make_request: Any
) -> None:
    pair, prompt = pair_of("two-convs"), [2, *PROMPT]
    rule = TimestampRule(first=14, no_timestamps=13, end=2, max_initial=limit)
    config = SimpleNamespace(
        no_timestamps_token_id=13, eos_token_id=2, bos_token_id=None, max_initial_timestamp_index=limit
    )
    processor = WhisperTimeStampLogitsProcessor(config, begin_index=len(prompt))
    options = {"max_length": 22, "num_beams": num_beams, "suppress_tokens": [16, 18, 30]}
    for frames in FRAMES:
        features = pair.features(frames)
        wanted = pair.theirs.generate(
            features,
            decoder_input_ids=torch.tensor([prompt]),
            logits_processor=[processor],
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
        one = make_request(pair, 0, features, **options)
        timed = replace(one.options, prompt_tokens=tuple(prompt), timestamps=rule)
        found = run_loop(pair.ours, [replace(one, options=timed)]).completions[0].hypotheses[0]
        assert list(found.token_ids) == wanted.sequences[0].tolist()
        assert any(token >= rule.first for token in found.token_ids[len(prompt) :])
        if num_beams > 1:
            assert found.score == pytest.approx(float(wanted.sequences_scores[0]), abs=1e-4)


MODES: list[dict[str, Any]] = [
    {},
    {"num_beams": 3, "length_penalty": 0.5},
    {"do_sample": True, "num_return_sequences": 3, "top_k": 30, "seed": 7},
    {"num_beams": 2, "do_sample": True, "seed": 9},
]


def requests_of(pair: Any, make_request: Callable[..., Any], prompts: list[list[int]]) -> list[Any]:
    requests = []
    for index, prompt in enumerate(prompts):
        options = MODES[index % len(MODES)] | {"max_length": len(prompt) + 6 + index % 3}
        one = make_request(pair, index, pair.features(40 + 7 * index), **options)
        requests.append(replace(one, options=replace(one.options, prompt_tokens=tuple(prompt))))
    return requests


@pytest.mark.parametrize("threads", [1, 2])
def test_logits_behind_a_prompt_are_the_same_alone_and_among_others(
    threads: int, pair_of: Any, run_loop: Any, make_request: Any
) -> None:
    torch.set_num_threads(threads)
    pair = pair_of("two-convs")
    prompts = [[2, *LONG[:length]] for length in (0, 5, 20, 1, 3, 16, 15, 2, 0, 7, 18, 4)]
    requests = requests_of(pair, make_request, prompts)
    together = run_loop(pair.ours, requests, arrivals=5)
    assert together.most_requests > 6
    for index, request in enumerate(requests):
        alone = run_loop(pair.ours, [request])
        assert together.completions[index].hypotheses == alone.completions[index].hypotheses
        found, wanted = together.logits[index], alone.logits[index]
        assert len(found) == len(wanted)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True)), index


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_prefilled_prompt_has_the_bits_of_one_step_for_each_token(
    num_beams: int, pair_of: Any, run_loop: Any, make_request: Any
) -> None:
    """A transcript's own beginning as a prompt leads to the same logits behind it."""
    pair = pair_of("two-convs")
    one = make_request(pair, 0, pair.features(97), max_length=30, min_length=30, num_beams=1)
    plain = run_loop(pair.ours, [one])
    (whole,) = plain.completions[0].hypotheses
    for length in (2, 3, 16, 17, 25):
        options = replace(one.options, prompt_tokens=whole.token_ids[:length], num_beams=num_beams)
        run = run_loop(pair.ours, [replace(one, options=options)])
        if num_beams == 1:
            assert run.completions[0].hypotheses[0].token_ids == whole.token_ids
            found, wanted = run.logits[0], plain.logits[0][length - 1 :]
            assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True)), length
        else:
            assert torch.equal(run.logits[0][0], plain.logits[0][length - 1].expand(num_beams, -1)), length
