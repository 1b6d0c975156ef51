"""Candidates of a beam step, the best and drawn ones, against the references, which sort."""

import pytest
import torch
from torch import Tensor

from tritone.kernels.sampling.candidates import (
    draw_candidates,
    draw_candidates_reference,
    top_candidates,
    top_candidates_reference,
)

INF = float("inf")
TOLERANCE = 2e-5  # of log-softmax, for every dtype of the scores: they are widened to float32 first


def tables(rows: int, width: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(rows * 1000 + width)
    random = torch.randn(rows, width, generator=generator) * 3
    one = torch.full((rows, width), -INF)
    one[:, width // 2] = 1.0
    return {
        "random": random,
        "tied": random.round(),
        "all equal": torch.zeros(rows, width),
        "all minus infinity": torch.full((rows, width), -INF),
        "all but one minus infinity": one,
        "both zeros": random.sign() * 0.0,
    }


def first_step(rows: int, beams: int) -> Tensor:
    """Running scores of a beam search's first step: beams but the first so low that their sums are equal."""
    running = torch.zeros(rows)
    running.view(-1, beams)[:, 1:] = -1e9
    return running


def check_equal(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> None:
    assert found[1].dtype == torch.int64
    assert torch.equal(found[1].cpu(), wanted[1])
    assert torch.equal(found[0].cpu(), wanted[0])


@pytest.mark.parametrize("width", [5, 14, 1000])
@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_candidates_equal_those_of_a_stable_sort_of_all_sums(beams, width, kernels_on):
    rows = 2 * beams
    sums = [torch.linspace(-5, 0, rows), first_step(rows, beams), None]
    for place, scores in enumerate(tables(rows, width).values()):
        running, count = sums[place % 3], (2 + place % 3) * beams  # for one, two and three end tokens
        on_device = None if running is None else running.to(kernels_on)
        found = top_candidates(scores.to(kernels_on), count, running=on_device, beams=beams)
        check_equal(found, top_candidates_reference(scores, count, running=running, beams=beams))


@pytest.mark.parametrize("name", ["random", "tied", "all minus infinity"])
def test_the_first_step_finds_all_in_the_first_beam(name, kernels_on):
    scores = tables(4, 14)[name]
    values, indices = top_candidates(
        scores.to(kernels_on), 8, running=first_step(4, 4).to(kernels_on), beams=4
    )
    assert bool((indices < 14).all())
    check_equal((values, indices), top_candidates_reference(scores, 8, running=first_step(4, 4), beams=4))


def test_a_vocabulary_of_many_blocks(kernels_on):
    for scores in tables(2, 10_007).values():
        found = top_candidates(scores.to(kernels_on), 10, beams=2)
        check_equal(found, top_candidates_reference(scores, 10, beams=2))
    # Every block holds better candidates than the one before it: no bound excludes any.
    rising = torch.arange(10_007.0)[None] // 512
    check_equal(top_candidates(rising.to(kernels_on), 10), top_candidates_reference(rising, 10))


@pytest.mark.parametrize(
    ("name", "width", "beams", "count"),
    [("tied", 40, 33, 66), ("random", 70, 3, 210), ("tied", 70, 3, 210), ("random", 2100, 1, 2060)],
)
def test_any_number_of_candidates_up_to_all(name, width, beams, count, kernels_on):
    scores = tables(beams, width)[name]
    found = top_candidates(scores.to(kernels_on), count, beams=beams)
    check_equal(found, top_candidates_reference(scores, count, beams=beams))


@pytest.mark.parametrize("width", [5, 1000, 5003])
def test_log_softmax_on_the_way_equals_the_reference(width, dtype, kernels_on):
    scores = tables(6, width)["random"].to(kernels_on, dtype)
    running = torch.linspace(-0.31, 0, 6, device=kernels_on)
    values, indices = top_candidates(scores, 4, running=running, beams=2, normalize=True)
    wanted = top_candidates_reference(scores.double(), 4, running=running.double(), beams=2, normalize=True)
    torch.testing.assert_close(values.double(), wanted[0], rtol=TOLERANCE, atol=TOLERANCE)
    assert torch.equal(indices, wanted[1])


@pytest.mark.parametrize("width", [7, 1000])
def test_a_request_has_the_same_candidates_alone_and_in_any_batch(width, dtype, kernels_on):
    scores = tables(9, width)["random"].to(kernels_on, dtype)
    running = torch.linspace(-2, 0, 9, device=kernels_on)
    options = {"beams": 3, "normalize": True}
    values, indices = top_candidates(scores, 6, running=running, **options)
    for start, end in [(0, 1), (1, 2), (2, 3), (1, 3)]:
        one = slice(3 * start, 3 * end)
        alone = top_candidates(scores[one], 6, running=running[one], **options)
        assert torch.equal(alone[0], values[start:end])
        assert torch.equal(alone[1], indices[start:end])
    scores[:3], scores[6:] = float("nan"), INF
    poisoned = top_candidates(scores, 6, running=running, **options)
    assert torch.equal(poisoned[0][1], values[1])
    assert torch.equal(poisoned[1][1], indices[1])


def test_nan_comes_first_as_torch_sorts_it(kernels_on):
    scores = torch.tensor([[1.0, float("nan"), INF, -INF, -float("nan"), 2.0]], device=kernels_on)
    values, indices = top_candidates(scores, 6)
    assert indices.tolist() == [[1, 4, 2, 5, 0, 3]]
    assert bool(values[0, :2].isnan().all())
    assert values[0, 2:].tolist() == [INF, 2.0, 1.0, -INF]


@pytest.mark.parametrize("width", [5, 14, 1000, 3001])
@pytest.mark.parametrize("beams", [1, 3])
def test_drawn_candidates_equal_the_reference(beams, width, kernels_on):
    requests, count = 3, 2 * beams
    scores = tables(requests * beams, width)["random"]
    scores[0, 1:4] = -INF
    running = torch.linspace(-3, 0, requests * beams)
    address = (torch.tensor([3, 2**40 + 7, 3]), torch.tensor([0, 1, 0]), torch.tensor([4, 4, 5]))
    found = draw_candidates(
        scores.to(kernels_on),
        count,
        *(part.to(kernels_on) for part in address),
        running=running.to(kernels_on),
        beams=beams,
    )
    wanted = draw_candidates_reference(scores, count, *address, running=running, beams=beams)
    check_equal(found, wanted)
    alone = draw_candidates(
        scores[beams : 2 * beams].to(kernels_on),
        count,
        *(part[1:2].to(kernels_on) for part in address),
        running=running[beams : 2 * beams].to(kernels_on),
        beams=beams,
    )
    check_equal(alone, (wanted[0][1:2], wanted[1][1:2]))


def test_more_candidates_than_there_are_scores_are_refused(kernels_on):
    with pytest.raises(ValueError, match="11 candidates of 10 scores"):
        top_candidates(torch.zeros(2, 5, device=kernels_on), 11, beams=2)


def test_no_requests_have_no_candidates(kernels_on):
    values, indices = top_candidates(torch.zeros(0, 5, device=kernels_on), 4, beams=2)
    assert values.shape == indices.shape == (0, 4)


@pytest.mark.parametrize("bad", [float("nan"), INF])
@pytest.mark.parametrize("vocabulary", [11, 3000])
def test_a_hypothesis_with_a_bad_score_comes_first_even_an_unreachable_one(bad, vocabulary, device):
    scores = torch.randn(4, vocabulary, generator=torch.Generator().manual_seed(3)).to(device)
    scores[1, vocabulary - 2] = bad
    running = torch.tensor([-1.0, -1e9, -1.0, -1e9], device=device)
    values, indices = top_candidates(scores, 4, running=running, beams=2, normalize=True)
    assert bool(values[0].isnan().all())
    assert bool((indices[0] >= vocabulary).all())
    assert bool((values[1].isfinite() & (indices[1] < vocabulary)).all())
