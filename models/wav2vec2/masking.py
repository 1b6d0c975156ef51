"""Masks of SpecAugment (arXiv 1904.08779), as wav2vec 2.0 trains with it."""

import torch
from torch import Tensor


def draw_spans(lengths: list[int], probability: float, span: int, min_spans: int) -> Tensor:
    """Draw masked spans in each row on its own: bool [sum of lengths].

    A row has `probability * length / span` spans, rounded up or down by a draw; they may overlap. A row
    shorter than a span has none. The distribution is transformers' at batch size 1, the generator torch's.

    Args:
        lengths: of the rows.
        probability: share of a row that its spans mask where they do not overlap.
        span: positions, at least 1.
        min_spans: of a row, as far as it has room.

    Raises:
        ValueError: a span below 1.
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
