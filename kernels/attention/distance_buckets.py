"""Buckets of query-key distances that share a learned bias (T5, arXiv 1910.10683)."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Buckets:
    """Assignment of the distances between queries and keys to buckets.

    Half of a direction's buckets hold one distance each, the others ranges that grow logarithmically up to
    `farthest`; greater distances share the last.

    Args:
        count: number of buckets, the rows of the bias table.
        farthest: distance from which on all share the last bucket of their direction.
        both_directions: half of the buckets are for keys after the query; else all are for keys before it,
            and keys after it have distance 0.

    Raises:
        ValueError: too few buckets, or a `farthest` within the one-distance buckets or above 2**20.
    """

    count: int
    farthest: int
    both_directions: bool

    def __post_init__(self) -> None:
        least = 4 if self.both_directions else 2
        single = (self.count // 2 if self.both_directions else self.count) // 2
        if self.count < least or not single < self.farthest <= _MAX_DISTANCE:
            raise ValueError(
                f"{self.count} buckets up to distance {self.farthest} cannot be divided: there must be at "
                f"least {least}, and the distance above {single} (that many have a bucket each) and at most "
                f"{_MAX_DISTANCE}"
            )

    def rows(self, device: torch.device) -> Tensor:
        """Bucket of each distance, query position - key position, from -farthest to farthest.

        The result, int64 [2 * farthest + 1], is cached. It is computed in float32, as in transformers, since
        the buckets' edges depend on rounding.
        """
        return _rows(self, device)


_MAX_DISTANCE = 2**20  # the expanded biases have a column for each


@cache
def _rows(buckets: Buckets, device: torch.device) -> Tensor:
    distance = torch.arange(-buckets.farthest, buckets.farthest + 1)
    of_direction = buckets.count // 2 if buckets.both_directions else buckets.count
    away = distance.abs() if buckets.both_directions else distance.clamp(min=0)
    single = of_direction // 2
    steps = torch.log(away.float() / single) / math.log(buckets.farthest / single) * (of_direction - single)
    shared = (single + steps.clamp(min=0).long()).clamp(max=of_direction - 1)
    behind = (distance < 0) * of_direction if buckets.both_directions else 0
    return (torch.where(away < single, away, shared) + behind).to(device)
