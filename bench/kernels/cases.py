"""What a timing consists of: the call, its inputs, what it is compared to and what it must give."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..common.roofline import Work

HALF = 2  # bytes of a float16 or bfloat16 number
ERRORS = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 2e-2}  # relative, in norm


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to compute a case.

    Args:
        run: the call, given which of the rotating copies of its inputs to take.
        part: of what it returns, what is compared with `wanted`.
        wanted: in float64 or float32; None for the case's.
        graph: whether a CUDA graph can hold the call.
    """

    run: Callable[[int], Any]
    part: Callable[[Any], Tensor]
    wanted: Tensor | None = None
    graph: bool = True


@dataclass(frozen=True, slots=True)
class Prepared:
    """A case with its inputs in memory.

    Args:
        ours: the kernel.
        peers: what it is compared to, by name.
        wanted: a part of the right output.
        error: the largest relative error allowed, in norm.
        missing: peers that could not be made, and why.
    """

    ours: Contestant
    peers: dict[str, Contestant]
    wanted: Tensor
    error: float
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a case runs.

    Args:
        dtype: of the values, where the kernel leaves a choice.
        copies: of the inputs, so that those of one call are gone from the cache until their next turn.
    """

    device: torch.device
    dtype: torch.dtype
    copies: int

    def random(self, *shape: int, scale: float = 1.0, dtype: torch.dtype | None = None) -> list[Tensor]:
        """Normally distributed numbers, another set for each copy."""
        return [
            torch.randn(shape, device=self.device, dtype=torch.float32).mul_(scale).to(dtype or self.dtype)
            for _ in range(self.copies)
        ]

    def integers(self, limit: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.randint(limit, shape, device=self.device, dtype=dtype)

    @property
    def error(self) -> float:
        return ERRORS[self.dtype]


@dataclass(frozen=True, slots=True)
class Case:
    """What is timed.

    Args:
        kernel: its name.
        shape: for people, after the model's name and the number of sequences.
        work: what it cannot do without.
        prepare: makes the inputs.
        tags: what the goals look for.
        graph: timed in a CUDA graph, since launching takes longer than a small kernel does; not for calls
            that wait for the device.
        tiles: find out what another tile would give at this number of rows.
    """

    kernel: str
    model: str
    sequences: int
    shape: str
    work: Work
    prepare: Callable[[Stage], Prepared]
    tags: frozenset[str] = frozenset()
    graph: bool = False
    tiles: bool = False

    @property
    def label(self) -> str:
        return f"{self.model}, {self.sequences} x, {self.shape}"
