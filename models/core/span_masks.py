"""Span masks of SpecAugment (arXiv 1904.08779), drawn as in wav2vec 2.0's training."""

import torch
from torch import Tensor


def draw_spans(lengths: list[int], probability: float, span: int, min_spans: int) -> Tensor:
    """Draw random masked spans for each row independently, as a packed mask, bool [sum of lengths].

    A row has `probability * length / span` spans, rounded up or down at random; they may overlap. A row
    shorter than a span has none. The distribution is that of transformers at batch size 1, with random
    values from torch's generator.

    Args:
        lengths: lengths of the rows.
        probability: fraction of a row that is masked if its spans do not overlap.
        span: length of a span in positions, at least 1.
        min_spans: minimum number of spans of a row, as far as it has room.

    Raises:
        ValueError: the span is below 1.
    """
    if span < 1:
        raise ValueError(f"a mask's length must be at least 1, got {span}")
    rounding = torch.rand(()).item()
    rows = []
    for length in lengths:
        mask = torch.zeros(length, dtype=torch.bool)
        count = max(int(probability * length / span + rounding), min_spans)
        starts = torch.randperm(max(length - span + 1, 0))[: min(count, length // span)]
        mask[(starts[:, None] + torch.arange(span)).flatten()] = True
        rows.append(mask)
    return torch.cat([torch.zeros(0, dtype=torch.bool), *rows])
