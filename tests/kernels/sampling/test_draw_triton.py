"""One token a row, the best or drawn, and the random numbers of the draw, against the references."""

import math

import pytest
import torch
from torch import Tensor

from tritone.kernels.sampling.draw import (
    categorical,
    categorical_reference,
    draw,
    greedy,
    log_probability_reference,
)
from tritone.kernels.sampling.philox import philox_uniform, philox_uniform_reference

INF = float("inf")
VOCABULARIES = [5, 14, 1000, 10_007]
TOLERANCE = 2e-5  # of float32 arithmetic, whatever the type of the logits: they are widened first


def addresses(rows: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    seeds = torch.randint(0, 2**63 - 1, (rows,), generator=generator)
    return seeds.to(device), (torch.arange(rows) % 3).to(device), (torch.arange(rows) + 1).to(device)


def check_log_probabilities(found: Tensor, logits: Tensor, tokens: Tensor) -> None:
    wanted = log_probability_reference(logits.double(), tokens)
    torch.testing.assert_close(found.double(), wanted, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("count", [1, 5, 700])
def test_random_numbers_have_the_references_bits(count, kernels_on):
    address = (
        torch.tensor([0, 1, 2**32 - 1, 2**32, 0x299F31D0A4093822, 2**63 - 1]),
        torch.tensor([0, 7, 2**31, 2**32 - 1, 0x13198A2E, 1]),
        torch.tensor([0, 1, 2, 3, 0x85A308D3, 2**31]),
    )
    found = philox_uniform(*(part.to(kernels_on) for part in address), count)
    assert torch.equal(found.cpu(), philox_uniform_reference(*address, count))


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_the_best_token_and_its_log_probability(vocabulary, dtype, kernels_on):
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(6, vocabulary, generator=generator) * 4
    logits[1] = -3.0  # all equal
    logits[2, :] = -INF
    logits[2, vocabulary - 1] = -50.0
    logits[3, [1, vocabulary - 1]] = 70.0  # the first of two equal ones
    logits[4, ::2], logits[4, 1::2] = -0.0, 0.0
    logits[5] *= 100
    logits = logits.to(kernels_on, dtype)
    tokens, log_probabilities = greedy(logits)
    assert tokens.dtype == torch.int64
    assert tokens[1:5].tolist() == [0, vocabulary - 1, 1, 0]
    indices = torch.arange(vocabulary, device=kernels_on)
    best = torch.where(logits == logits.amax(-1, keepdim=True), indices, vocabulary)
    assert torch.equal(tokens, best.amin(-1))
    check_log_probabilities(log_probabilities, logits, tokens)
    scores = logits.float().flip(-1).contiguous()
    tokens, log_probabilities = greedy(logits, scores)
    assert torch.equal(scores.gather(-1, tokens[:, None])[:, 0], scores.amax(-1))
    check_log_probabilities(log_probabilities, logits, tokens)


def test_ties_beyond_a_block_go_to_the_first(kernels_on):
    logits = torch.zeros(4, 4500)
    for row, equal in enumerate([(4499, 30), (2047, 2048), (2100, 52 + 4096), (4096, 4097)]):
        logits[row, list(equal)] = 1.0
    tokens, _ = greedy(logits.to(kernels_on))
    assert tokens.tolist() == [30, 2047, 2100, 4096]


def test_a_number_that_is_none_is_the_best_as_torch_has_it_and_tokens_always_exist(kernels_on):
    logits = torch.zeros(3, 9, device=kernels_on)
    logits[0, 5] = float("nan")
    logits[1] = -INF
    tokens, log_probabilities = greedy(logits)
    assert tokens.tolist() == [5, 0, 0]
    assert bool(log_probabilities[:2].isnan().all())
    for token in draw(logits, logits, *addresses(3, kernels_on))[0][:2].tolist():
        assert 0 <= token < 9


@pytest.mark.parametrize("vocabulary", [5, 5000])
@pytest.mark.parametrize("bad", [float("nan"), INF])
def test_a_log_probability_tells_bad_logits_from_rules_that_leave_no_token(bad, vocabulary, dtype, device):
    logits = torch.zeros(5, vocabulary, dtype=dtype, device=device)
    scores = logits.float().clone()
    logits[1, vocabulary - 1] = bad
    logits[2, 0], scores[2, 0] = bad, -INF  # a token that may not be chosen anyway
    scores[3] = -INF
    logits[4, 1], scores[4] = bad, -INF
    for choose in (greedy, lambda *given: draw(*given, *addresses(5, device))):
        log_probabilities = choose(logits, scores)[1].tolist()
        assert log_probabilities[0] == pytest.approx(-math.log(vocabulary), abs=1e-4)
        assert [math.isnan(one) for one in log_probabilities] == [False, True, True, False, True]
        assert log_probabilities[3] == -INF
    assert bool(greedy(logits)[1][[1, 2, 4]].isnan().all())


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_draws_are_the_references(vocabulary, dtype, kernels_on):
    generator = torch.Generator().manual_seed(vocabulary)
    rows = 40 if vocabulary < 100 else 8
    logits = (torch.randn(rows, vocabulary, generator=generator) * 2).to(kernels_on, dtype)
    scores = logits.float() / 0.7
    scores[:, 1::3] = -INF
    scores[rows // 2 :, : vocabulary // 2] = -INF
    address = addresses(rows, kernels_on)
    tokens, log_probabilities = draw(logits, scores, *address)
    wanted = categorical_reference(scores.cpu(), *(part.cpu() for part in address))
    assert torch.equal(tokens.cpu(), wanted)
    assert len(set(tokens.tolist())) > 1
    check_log_probabilities(log_probabilities, logits, tokens)
    assert torch.equal(categorical(scores, *address), tokens)


@pytest.mark.parametrize("possible", [0, 3, 2048, 4999])
def test_the_only_possible_token_is_always_drawn(possible, kernels_on):
    scores = torch.full((20, 5000), -INF, device=kernels_on)
    scores[:, possible] = -200.0
    assert bool((categorical(scores, *addresses(20, kernels_on)) == possible).all())


@pytest.mark.parametrize("vocabulary", [14, 5000])
def test_a_row_has_the_same_bits_alone_and_in_any_company(vocabulary, dtype, kernels_on):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(7, vocabulary, generator=generator).to(kernels_on, dtype)
    scores, address = logits.float() * 1.5, addresses(7, kernels_on)
    whole = [*greedy(logits), *greedy(logits, scores), *draw(logits, scores, *address)]
    for one in (slice(0, 1), slice(3, 4), slice(6, 7), slice(2, 5)):
        own = [part[one] for part in address]
        alone = [*greedy(logits[one]), *greedy(logits[one], scores[one])]
        alone += draw(logits[one], scores[one], *own)
        for found, wanted in zip(alone, whole, strict=True):
            assert torch.equal(found, wanted[one])
    logits[1:], scores[1:] = float("nan"), INF
    poisoned = [*greedy(logits), *greedy(logits, scores), *draw(logits, scores, *address)]
    assert all(torch.equal(found[0], wanted[0]) for found, wanted in zip(poisoned, whole, strict=True))


def test_no_rows_give_no_tokens(kernels_on):
    logits = torch.zeros(0, 9, device=kernels_on)
    tokens, log_probabilities = draw(logits, logits, *addresses(0, kernels_on))
    assert tokens.shape == log_probabilities.shape == greedy(logits)[0].shape == (0,)
