"""Draws from a counter-based generator, candidates and their ties, rules on scores."""

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from tritone.kernels.sampling.candidates import draw_candidates, top_candidates
from tritone.kernels.sampling.draw import categorical
from tritone.kernels.sampling.logits import ban_repeated_ngrams, ban_sequence, penalize_repetition
from tritone.kernels.sampling.philox import philox_uniform, philox_words, uniform_from_words
from tritone.kernels.sampling.warping import warp

INF = float("inf")

# "philox4x32 10" of kat_vectors in the Random123 distribution: counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> tuple[Tensor, ...]:
    return tuple(torch.tensor([int(word, 16)]) for word in text.split())


def numbers(count: int, value: int = 0) -> Tensor:
    return torch.full((count,), value, dtype=torch.int64)


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(counter, key, result):
    assert philox_words(words(counter), words(key)) == words(result)


def test_a_uniform_number_is_addressed_by_the_seed_the_sequence_the_step_and_the_index():
    seed, sequence, step, index = 0x299F31D0A4093822, 0x13198A2E, 0x85A308D3, 3
    counter = tuple(torch.tensor([word]) for word in (index, step, sequence, 0))
    wanted = uniform_from_words(philox_words(counter, words("a4093822 299f31d0"))[0])
    drawn = philox_uniform(numbers(1, seed), numbers(1, sequence), numbers(1, step), count=4)
    assert drawn.shape == (1, 4)
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn[:, 3], wanted)


def test_uniform_numbers_lie_strictly_between_0_and_1_so_that_logarithms_are_finite():
    extremes = uniform_from_words(torch.tensor([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]))
    assert bool((extremes > 0).all())
    assert bool((extremes < 1).all())
    assert bool((-(-extremes.log()).log()).isfinite().all())
    assert extremes.tolist() == sorted(extremes.tolist())


def test_uniform_numbers_are_spread_evenly_over_every_address():
    for drawn in (
        philox_uniform(numbers(1, 11), numbers(1), numbers(1), count=40_000)[0],
        philox_uniform(torch.arange(40_000), numbers(40_000), numbers(40_000))[:, 0],
        philox_uniform(numbers(40_000), torch.arange(40_000), numbers(40_000))[:, 0],
        philox_uniform(numbers(40_000), numbers(40_000), torch.arange(40_000))[:, 0],
    ):
        counts = torch.histc(drawn, bins=64, min=0, max=1)
        assert chisquare(counts.numpy()).pvalue > 1e-3


def test_a_draw_depends_on_neither_the_batch_nor_its_position():
    torch.manual_seed(0)
    scores = torch.randn(9, 31)
    seeds, sequence_index, steps = torch.randint(0, 2**62, (9,)), torch.arange(9) % 3, torch.arange(9) + 5
    whole = categorical(scores, seeds, sequence_index, steps)
    values, indices = draw_candidates(scores, 5, seeds, sequence_index, steps)
    for order in (torch.arange(9).flip(0), torch.tensor([4]), torch.tensor([8, 0, 4])):
        given = scores[order], seeds[order], sequence_index[order], steps[order]
        assert torch.equal(categorical(*given), whole[order])
        again, tokens = draw_candidates(given[0], 5, *given[1:])
        assert torch.equal(again, values[order])
        assert torch.equal(tokens, indices[order])


def test_draws_follow_the_softmax_of_the_scores():
    scores = torch.tensor([0.0, 2.0, -INF, -1.0, 1.0, -INF])
    draws = 30_000
    drawn = categorical(scores.expand(draws, -1), numbers(draws, 3), numbers(draws), torch.arange(draws))
    counts = torch.bincount(drawn, minlength=6)
    assert counts[[2, 5]].tolist() == [0, 0]
    possible = torch.tensor([0, 1, 3, 4])
    expected = scores.softmax(-1)[possible].double() * draws
    assert (
        chisquare(counts[possible].numpy(), expected.numpy() * (draws / expected.sum().item())).pvalue > 1e-3
    )


@pytest.mark.parametrize("possible", [0, 3, 6])
def test_a_score_of_minus_infinity_is_never_drawn(possible):
    scores = torch.full((2000, 7), -INF)
    scores[:, possible] = -50.0
    drawn = categorical(scores, torch.arange(2000), numbers(2000), numbers(2000))
    assert bool((drawn == possible).all())


def test_candidates_are_drawn_one_after_the_other_without_replacement():
    scores = torch.tensor([1.0, 0.0, -1.0, 0.5])
    draws = 30_000
    values, indices = draw_candidates(
        scores.expand(draws, -1), 2, torch.arange(draws), numbers(draws), numbers(draws)
    )
    assert torch.equal(values, scores[indices])
    p = scores.double().softmax(-1)
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    expected = torch.tensor([float(p[i] * p[j] / (1 - p[i])) for i, j in pairs], dtype=torch.float64) * draws
    counts = torch.tensor([int(((indices[:, 0] == i) & (indices[:, 1] == j)).sum()) for i, j in pairs])
    assert int(counts.sum()) == draws, "no token twice"
    assert chisquare(counts.numpy(), expected.numpy() * (draws / expected.sum().item())).pvalue > 1e-3


def test_candidates_that_cannot_be_drawn_come_last():
    scores = torch.tensor([-INF, 0.0, -INF, 1.0, -INF]).expand(500, -1)
    values, indices = draw_candidates(scores, 3, torch.arange(500), numbers(500), numbers(500))
    assert bool((indices[:, :2].sort(-1).values == torch.tensor([1, 3])).all())
    assert bool((indices[:, 2] == 0).all())
    assert bool((values[:, 2] == -INF).all())


TIED = {
    "all equal": torch.zeros(3, 40),
    "all minus infinity": torch.full((2, 40), -INF),
    "equal at the border": torch.tensor([[5.0, *[1.0] * 38, 7.0], [1.0] * 39 + [2.0]]),
    "fewer finite than asked for": torch.tensor([[-INF, 3.0, *[-INF] * 36, 2.0, -INF]]),
    "one row tied and one not": torch.stack([torch.arange(40.0), torch.arange(40.0) // 10]),
    "tied inside the border alone": torch.tensor([[*[9.0] * 2, *range(-38, 0)]]),
}


def check_against_a_full_sort(scores: Tensor, count: int) -> None:
    wanted, order = scores.sort(dim=-1, descending=True, stable=True)
    values, indices = top_candidates(scores, count)
    assert torch.equal(values, wanted[:, :count])
    assert torch.equal(indices, order[:, :count])


@pytest.mark.parametrize("count", [1, 2, 4, 10, 39, 40])
@pytest.mark.parametrize("name", TIED)
def test_equal_candidates_come_by_the_lowest_index(name, count):
    check_against_a_full_sort(TIED[name], count)


@pytest.mark.parametrize("size", [1, 2, 31, 1024, 5000])
def test_candidates_equal_those_of_a_stable_sort_of_everything(size):
    torch.manual_seed(size)
    for levels in (2, 5, 1000):
        scores = torch.randint(0, levels, (7, size)).float()
        scores[torch.rand(7, size) < 0.2] = -INF
        for count in {1, min(3, size), min(15, size), size}:
            check_against_a_full_sort(scores, count)
    check_against_a_full_sort(torch.randn(7, size), min(15, size))


def test_looking_for_candidates_changes_no_score():
    scores = torch.zeros(2, 9)
    top_candidates(scores, 3)
    assert torch.equal(scores, torch.zeros(2, 9))


WARPS = [
    {},
    {"temperature": 0.7},
    {"temperature": 3.0, "top_k": 5},
    {"top_k": 1},
    {"top_k": 1000},
    {"top_p": 0.9},
    {"top_p": 1e-9},
    {"temperature": 0.5, "top_k": 20, "top_p": 0.3},
    {"temperature": 1.5, "top_k": 2, "top_p": 0.5, "keep": 4},
    {"top_p": 0.01, "keep": 3},
]


@pytest.mark.parametrize("options", WARPS, ids=str)
def test_warping_equals_transformers(options):
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    torch.manual_seed(1)
    scores = torch.randn(6, 53) * 3
    scores[2, 10:50] = -INF
    keep = options.get("keep", 1)
    wanted = scores
    if "temperature" in options:
        wanted = TemperatureLogitsWarper(options["temperature"])(None, wanted)
    if "top_k" in options:
        wanted = TopKLogitsWarper(options["top_k"], min_tokens_to_keep=keep)(None, wanted)
    if "top_p" in options:
        wanted = TopPLogitsWarper(options["top_p"], min_tokens_to_keep=keep)(None, wanted)
    warped = warp(scores, **options)
    assert torch.equal(warped, wanted)
    assert bool(((warped > -INF).sum(-1) >= min(keep, 13)).all())
    for row in range(6):
        assert torch.equal(warp(scores[row : row + 1], **options)[0], warped[row])


def histories() -> tuple[Tensor, Tensor]:
    """Rows of different lengths in one table; tokens behind a row's length do not count."""
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 6, (12, 11), generator=generator), torch.tensor(
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11]
    )


def each_row_alone(processor, scores: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
    rows = [
        processor(tokens[row : row + 1, : int(lengths[row])], scores[row : row + 1].clone())
        for row in range(len(tokens))
    ]
    return torch.cat(rows)


@pytest.mark.parametrize("penalty", [0.5, 1.3])
def test_a_repetition_penalty_sees_a_rows_own_tokens_as_in_transformers(penalty):
    from transformers import RepetitionPenaltyLogitsProcessor

    tokens, lengths = histories()
    scores = torch.randn(12, 9, generator=torch.Generator().manual_seed(0))
    wanted = each_row_alone(RepetitionPenaltyLogitsProcessor(penalty), scores, tokens, lengths)
    assert torch.equal(penalize_repetition(scores, tokens, lengths, penalty), wanted)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 11, 12])
def test_repeated_ngrams_are_banned_as_in_transformers(size):
    from transformers import NoRepeatNGramLogitsProcessor

    tokens, lengths = histories()
    scores = torch.zeros(12, 9)
    wanted = each_row_alone(NoRepeatNGramLogitsProcessor(size), scores, tokens, lengths)
    assert torch.equal(ban_repeated_ngrams(scores, tokens, lengths, size), wanted)
    if size <= 3:
        assert bool((wanted == -INF).any()), "the histories repeat themselves"


@pytest.mark.parametrize("word", [(3,), (0, 1), (5, 2), (1, 1, 1), (2, 4, 3, 0)])
def test_a_banned_sequence_is_not_completed_as_in_transformers(word):
    from transformers import NoBadWordsLogitsProcessor

    tokens, lengths = histories()
    tokens[3, :4], tokens[8, 4:9] = torch.tensor([1, 2, 4, 3]), torch.tensor([1, 0, 5, 1, 1])
    scores = torch.zeros(12, 9)
    wanted = each_row_alone(NoBadWordsLogitsProcessor([list(word)], eos_token_id=8), scores, tokens, lengths)
    assert torch.equal(ban_sequence(scores, tokens, lengths, word), wanted)
    assert torch.equal(scores, torch.zeros(12, 9)), "the scores given are not written to"
