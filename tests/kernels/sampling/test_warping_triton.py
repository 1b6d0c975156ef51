"""Temperature, top-k and top-p found by a search against the reference, which sorts."""

import pytest
import torch
from torch import Tensor

from tritone.kernels.sampling.warping import warp, warp_reference

INF = float("inf")
OPTIONS = [
    {"temperature": 0.7},
    {"temperature": 3.0, "top_k": 5},
    {"top_k": 1},
    {"top_k": 1000},
    {"top_k": 3, "keep": 4},
    {"top_p": 0.9},
    {"top_p": 1e-9},
    {"top_p": 0.01, "keep": 3},
    {"temperature": 0.5, "top_k": 20, "top_p": 0.3, "renormalize": True},
    {"temperature": 1.5, "top_k": 2, "top_p": 0.5, "keep": 4},
    {"top_k": 50, "top_p": 0.99, "keep": 10_000},
]


def tables(vocabulary: int) -> Tensor:
    """Rows that are random, tied, all equal, all but one -inf, huge, and of both zeros."""
    generator = torch.Generator().manual_seed(vocabulary)
    scores = torch.randn(6, vocabulary, generator=generator) * 3
    scores[1] = scores[1].round()
    scores[2] = 0.0
    scores[3] = -INF
    scores[3, vocabulary // 2] = -7.5
    scores[4] *= 1e30
    scores[5, ::2] = 0.0
    scores[5, 1::2] = -0.0
    return scores


def check(found: Tensor, scores: Tensor, options: dict) -> None:
    """The remaining tokens are the reference's in the same arithmetic, in which a tie stays a tie."""
    wanted = warp_reference(scores.cpu().float(), **options)
    assert torch.equal(found.cpu().isneginf(), wanted.isneginf())
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("vocabulary", [5, 14, 1000])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_remaining_tokens_are_those_of_a_sort(options, vocabulary, kernels_on):
    scores = tables(vocabulary).to(kernels_on)
    check(warp(scores, **options), scores, options)


@pytest.mark.parametrize("options", [OPTIONS[8], {"top_p": 0.8}], ids=str)
def test_a_vocabulary_of_many_blocks(options, dtype, kernels_on):
    generator = torch.Generator().manual_seed(3)
    scores = (torch.randn(2, 10_007, generator=generator) * 2).to(kernels_on, dtype)
    check(warp(scores, **options), scores, options)


@pytest.mark.parametrize("top_p", [0.1, 0.25, 0.5, 0.75, 0.875])
def test_of_equal_tokens_the_first_are_removed(top_p, kernels_on):
    """Eight equal tokens with exact shares; those that have at most 1 - top_p together are removed."""
    for ahead in (0, 2040):  # the equal ones in one block, and on both sides of a border between two
        scores = torch.full((1, ahead + 16), -INF)
        scores[0, ahead + 1 :: 2] = 1.0
        warped = warp(scores.to(kernels_on), top_p=top_p).cpu()
        gone = int(8 * (1 - top_p))
        wanted = scores.clone()
        wanted[0, ahead + 1 : ahead + 1 + 2 * gone] = -INF
        assert torch.equal(warped, wanted)


def test_the_search_tells_the_smallest_numbers_apart(kernels_on):
    smallest = torch.tensor([[3.0, -2.0, 0.0, 1.0, -0.0, -1.0, 2.0, -3.0]]) * 2.0**-149
    for top_k in range(1, 9):
        check(warp(smallest.to(kernels_on), top_k=top_k), smallest, {"top_k": top_k})


def test_a_row_has_the_same_bits_alone_and_in_any_batch(kernels_on):
    scores = tables(1000).to(kernels_on)
    options = {"temperature": 1.1, "top_k": 300, "top_p": 0.7, "renormalize": True}
    whole = warp(scores, **options)
    for one in (slice(0, 1), slice(1, 2), slice(5, 6), slice(0, 3)):
        assert torch.equal(warp(scores[one], **options), whole[one])
    scores[1:] = float("nan")
    assert torch.equal(warp(scores, **options)[0], whole[0])


def test_rows_without_any_probability_end_the_search_too(kernels_on):
    for value in (-INF, float("nan"), INF):
        scores = torch.full((2, 14), value, device=kernels_on)
        warped = warp(scores, top_k=3, top_p=0.5)
        assert torch.equal(warped.isnan() | warped.isinf(), torch.ones_like(warped, dtype=torch.bool))


def test_scores_given_are_not_written_to(kernels_on):
    scores = tables(14).to(kernels_on)
    before = scores.clone()
    warp(scores, temperature=2.0, top_k=2, renormalize=True)
    assert torch.equal(scores, before)
    assert warp(scores) is scores
