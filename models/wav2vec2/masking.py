"""SpecAugment (arXiv 1904.08779) as wav2vec 2.0 trains with it: spans of positions and of channels, drawn."""

import torch
from torch import Tensor


def drawn_spans(lengths: list[int], probability: float, span: int, least: int) -> Tensor:
    """Which positions are masked: bool [sum of lengths], spans of `span` in each row, drawn on its own.

    `probability * length / span` of them, rounded up or down by a draw, may overlap. A row that is too short
    for a span has none. transformers' draw in distribution, at batch size 1; by torch's generator.

    Args:
        lengths: of the rows.
        probability: share of a row that its spans would mask, did they not overlap.
        span: positions, at least 1.
        least: spans of a row, as far as it has room.

    Raises:
        ValueError: a span below 1.
    """
    if span < 1:
        raise ValueError(f"a mask's length must be at least 1, got {span}")
    rounding = torch.rand(()).item()
    rows = []
    for length in lengths:
        mask = torch.zeros(length, dtype=torch.bool)
        places = max(length - span + 1, 0)
        count = max(int(probability * length / span + rounding), least)
        starts = torch.randperm(places)[: min(count, length // span)]
        mask[(starts[:, None] + torch.arange(span)).flatten()] = True
        rows.append(mask)
    return torch.cat([torch.zeros(0, dtype=torch.bool), *rows])
