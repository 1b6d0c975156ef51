"""SpecAugment's spans: how many, how long, where."""

import pytest
import torch

from tritone.models.core.span_masks import draw_spans


def runs(mask: torch.Tensor) -> list[int]:
    """Lengths of the runs of true."""
    lengths, current = [], 0
    for masked in [*mask.tolist(), False]:
        current = current + 1 if masked else (lengths.append(current) if current else None) or 0
    return lengths


def test_the_number_of_spans_is_rounded_by_chance_to_its_mean() -> None:
    torch.manual_seed(0)
    # 1000 positions, spans of one: nothing overlaps, so that the masked positions are the spans.
    counts = [int(draw_spans([1000], 0.0123, 1, 0).sum()) for _ in range(400)]
    assert set(counts) == {12, 13}
    assert 12.2 < sum(counts) / len(counts) < 12.4


def test_spans_are_whole_and_everywhere() -> None:
    torch.manual_seed(1)
    hits = torch.zeros(40)
    for _ in range(300):
        mask = draw_spans([40], 0.3, 5, 0)
        assert min(runs(mask)) >= 5
        hits += mask
    assert hits.min() > 0
    assert hits[15:25].std() < 0.5 * hits[15:25].mean()


@pytest.mark.parametrize(("length", "spans"), [(40, 2), (9, 1), (10, 2), (5, 1), (4, 0), (0, 0)])
def test_there_are_as_many_spans_as_asked_for_and_as_there_is_room_for(length: int, spans: int) -> None:
    torch.manual_seed(2)
    for _ in range(20):
        masked = int(draw_spans([length], 0.0, 5, 2).sum())
        assert (masked > 0) == (spans > 0)
        assert masked <= 5 * spans


def test_rows_are_drawn_each_within_itself() -> None:
    torch.manual_seed(3)
    one, two = draw_spans([30, 7], 0.5, 4, 1).split([30, 7])
    assert one.any()
    assert two.sum() == 4
    assert draw_spans([], 0.5, 4, 1).shape == (0,)


def test_a_span_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        draw_spans([10], 0.5, 0, 1)
