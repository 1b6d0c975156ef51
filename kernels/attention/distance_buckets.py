"""Which distances between two tokens share a learned bias (T5, arXiv 1910.10683)."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Buckets:
    """Which distances between two tokens share a bias.

    Half of a side's buckets are for one distance each, the others for ranges that grow logarithmically up to
    `farthest`; what lies beyond shares the last.

    Args:
        count: buckets, which are the rows of the table of biases.
        farthest: the distance from which on all share the last bucket of their side.
        both_sides: whether the buckets are shared out among keys before and behind the query; else all are
            for keys before it, and keys behind it count as the query's own place.

    Raises:
        ValueError: buckets that leave nothing to divide, or a `farthest` that is no distance to divide up to.
    """

    count: int
    farthest: int
    both_sides: bool

    def __post_init__(self) -> None:
        least = 4 if self.both_sides else 2
        single = (self.count // 2 if self.both_sides else self.count) // 2
        if self.count < least or not single < self.farthest <= _MOST_DISTANCES:
            raise ValueError(
                f"{self.count} buckets up to distance {self.farthest} cannot be divided: there must be at "
                f"least {least}, and the distance above {single} (that many have a bucket each) and at most "
                f"{_MOST_DISTANCES}"
            )

    def rows(self, device: torch.device) -> Tensor:
        """The bucket of each distance, the query's place - the key's, from -farthest to farthest: int64
        [2 * farthest + 1]. Made once. In float32 as transformers computes it: edges depend on rounding."""
        return _rows(self, device)


_MOST_DISTANCES = 2**20  # of which there is a table


@cache
def _rows(buckets: Buckets, device: torch.device) -> Tensor:
    distance = torch.arange(-buckets.farthest, buckets.farthest + 1)
    side = buckets.count // 2 if buckets.both_sides else buckets.count
    away = distance.abs() if buckets.both_sides else distance.clamp(min=0)
    single = side // 2
    steps = torch.log(away.float() / single) / math.log(buckets.farthest / single) * (side - single)
    shared = (single + steps.clamp(min=0).long()).clamp(max=side - 1)
    behind = (distance < 0) * side if buckets.both_sides else 0
    return (torch.where(away < single, away, shared) + behind).to(device)
