"""Row indices of relative-position tables by distance, in logarithmic buckets (DeBERTa v2)."""

from functools import cache

import torch
from torch import Tensor


@cache
def relative_rows(buckets: int, farthest: int, device: torch.device) -> Tensor:
    """Row index into the relative-position tables (2 * span rows) for each distance from -limit to limit.

    The result, int32 [2 * limit + 1], is `rows` of `disentangled_attention`. Distances up to half of
    `buckets` have a row each, greater ones share rows in ranges that grow logarithmically up to `farthest`.
    Cached, and computed in float32 as in transformers: the ranges' edges depend on rounding.

    Args:
        buckets: number of rows for each direction, the span; 0 or less gives each distance its own row.
        farthest: distance from which on all share a row; the span where there are no buckets.
        device: device of the result.

    Raises:
        ValueError: 1 bucket, too many buckets for `farthest`, or a `farthest` below 1.
    """
    if farthest < 1:
        raise ValueError(f"the farthest relative position must be at least 1, got {farthest}")
    if buckets <= 0:
        return _clamped(torch.arange(-farthest, farthest + 1), farthest).to(device)
    middle = buckets // 2
    if middle < 1 or farthest - 1 <= middle:
        raise ValueError(
            f"{buckets} position buckets cannot be divided logarithmically up to {farthest}: use at least 2, "
            f"and a farthest relative position above {middle + 1}; or 0 for no buckets"
        )
    # Up to the outermost row in both directions; with 2 or 3 buckets all distances but 0 share one in each.
    power = 0.0 if middle == 1 else (buckets - 1 - middle) / (middle - 1)
    limit = int(middle * ((farthest - 1) / middle) ** power) + 2
    distance = torch.arange(-limit, limit + 1)
    size = torch.where(distance.abs() < middle, middle - 1, distance.abs())
    steps = torch.log(size / middle) / torch.log(torch.tensor((farthest - 1) / middle)) * (middle - 1)
    far = (torch.ceil(steps) + middle) * distance.sign()
    return _clamped(torch.where(size <= middle, distance.to(far.dtype), far).long(), buckets).to(device)


def _clamped(position: Tensor, span: int) -> Tensor:
    return (position + span).clamp(0, 2 * span - 1).int()
