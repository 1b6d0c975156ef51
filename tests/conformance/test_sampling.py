"""Sampling against transformers in distribution, from fixed seeds: a test passes or fails for good."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import chi2_contingency

DRAWS = 3000
FRAMES = 60
P_VALUE = 1e-4  # a right sampler falls below it in one of ten thousand choices of seeds

Draw = Callable[..., Counter[tuple[int, ...]]]


@pytest.fixture
def small(pair_of: Callable[[str], Any]) -> Any:
    """A small vocabulary, so that moderate samples fill its cells."""
    return pair_of("one-conv-pad-0")


@pytest.fixture
def draw_ours(small: Any, run_loop: Any, make_request: Any) -> Draw:
    """Counts of the sequences that Tritone draws, 25 from each seed, or one with beams."""

    def draw(draws: int = DRAWS, **options: Any) -> Counter[tuple[int, ...]]:
        each = 1 if options.get("num_beams", 1) > 1 else 25
        features = small.features(FRAMES)
        requests = [
            make_request(
                small, seed, features, do_sample=True, num_return_sequences=each, seed=seed, **options
            )
            for seed in range(draws // each)
        ]
        completions = run_loop(small.ours, requests).completions.values()
        return Counter(hypothesis.token_ids for one in completions for hypothesis in one.hypotheses[:each])

    return draw


@pytest.fixture
def draw_theirs(small: Any) -> Draw:
    """Counts of the sequences that transformers draws, without the padding behind their end tokens."""

    def draw(draws: int = DRAWS, **options: Any) -> Counter[tuple[int, ...]]:
        torch.manual_seed(20)
        one = options.get("num_beams", 1) > 1
        features = small.features(FRAMES).expand(draws if one else 1, -1, -1)
        options = {**options, "num_return_sequences": 1 if one else draws}
        return Counter(map(cut, small.theirs.generate(features, do_sample=True, **options).tolist()))

    def cut(sequence: list[int]) -> tuple[int, ...]:
        end = small.theirs.config.eos_token_id
        return tuple(sequence[: sequence.index(end, 1) + 1] if end in sequence[1:] else sequence)

    return draw


def p_value(ours: Counter[tuple[int, ...]], theirs: Counter[tuple[int, ...]]) -> float:
    """Chi-square test of homogeneity; sequences drawn fewer than ten times in all make one cell."""
    both = ours + theirs
    frequent = [sequence for sequence, count in both.items() if count >= 10]
    assert len(frequent) > 2
    table = [[counts[sequence] for sequence in frequent] for counts in (ours, theirs)]
    rest = [counts.total() - sum(row) for counts, row in zip((ours, theirs), table, strict=True)]
    if sum(rest):
        table = [[*row, count] for row, count in zip(table, rest, strict=True)]
    return float(chi2_contingency(table).pvalue)


SHAPES = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.7, "top_k": 5},
    {"top_k": 0},
    {"top_p": 0.7},
    {"top_p": 0.5, "top_k": 6, "temperature": 1.4},
    {"repetition_penalty": 1.5, "min_length": 4, "suppress_tokens": [18]},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sampled_frequencies_agree(shape: dict[str, Any], draw_ours: Draw, draw_theirs: Draw) -> None:
    ours, theirs = draw_ours(max_length=4, **shape), draw_theirs(max_length=4, **shape)
    assert ours.total() == theirs.total() == DRAWS
    assert p_value(ours, theirs) > P_VALUE


@pytest.mark.parametrize("other", [{"temperature": 1.2}, {"top_p": 0.9}, {"top_k": 12}], ids=str)
def test_the_test_sees_a_small_change_of_the_distribution(
    other: dict[str, Any], draw_ours: Draw, draw_theirs: Draw
) -> None:
    assert p_value(draw_ours(max_length=4, **other), draw_theirs(max_length=4)) < P_VALUE


BEAMS = [
    {"num_beams": 2, "max_length": 4},
    {"num_beams": 3, "max_length": 4, "temperature": 1.5},
    {"num_beams": 2, "max_length": 4, "top_k": 6, "length_penalty": 0.5},
    {"num_beams": 3, "max_length": 3, "top_p": 0.8, "early_stopping": True},
    # Beams always keep one token more than there are end tokens, whatever top_k says.
    {"num_beams": 2, "max_length": 4, "top_k": 1, "temperature": 3.0},
]


@pytest.mark.parametrize("shape", BEAMS, ids=str)
def test_frequencies_of_sampled_beams_agree(
    shape: dict[str, Any], draw_ours: Draw, draw_theirs: Draw
) -> None:
    ours, theirs = draw_ours(1000, **shape), draw_theirs(1000, **shape)
    assert p_value(ours, theirs) > P_VALUE


def test_a_seed_is_reproducible_and_another_differs(small: Any) -> None:
    features = small.features(FRAMES)
    options = {"do_sample": True, "max_length": 12, "num_return_sequences": 3}
    first = small.ours.generate(features, seed=11, **options)
    assert torch.equal(first, small.ours.generate(features, seed=11, **options))
    assert not torch.equal(first, small.ours.generate(features, seed=12, **options))
    beams = {"do_sample": True, "max_length": 12, "num_beams": 3}
    again = [small.ours.generate(features, seed=seed, **beams).tolist() for seed in (11, 11, 12, 13)]
    assert again[0] == again[1]
    assert len({str(rows) for rows in again}) > 1


def test_without_a_seed_calls_differ(small: Any) -> None:
    features = small.features(FRAMES)
    calls = {str(small.ours.generate(features, do_sample=True, max_length=16).tolist()) for _ in range(8)}
    assert len(calls) > 1


def test_the_returned_sequences_of_a_request_differ(small: Any) -> None:
    rows = small.ours.generate(
        small.features(FRAMES), do_sample=True, max_length=12, num_return_sequences=8, seed=3
    )
    assert len({tuple(row) for row in rows.tolist()}) > 4


def test_how_many_sequences_are_returned_does_not_change_those_before(small: Any) -> None:
    features = small.features(FRAMES)
    options = {"do_sample": True, "max_length": 12, "seed": 5, "min_length": 12}
    eight = small.ours.generate(features, num_return_sequences=8, **options)
    assert torch.equal(small.ours.generate(features, num_return_sequences=3, **options), eight[:3])
