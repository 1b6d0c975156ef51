"""Cases of the kernels' benchmark: the kernel's call, its peers, their inputs and the expected output."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from tritone.kernels.runtime.packing import cumulative

from ..common.roofline import Work

HALF = 2  # bytes of a float16 or bfloat16 number
ERRORS = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 2e-2}  # relative, in norm

Call = Callable[[int], Any]  # given the index of one of the rotating copies of the inputs
Part = Callable[[Any], Tensor]  # of an output, the part that is compared


def last_padded(count: int) -> Part:
    """The last sequence's rows of a padded output [n, longest, ...]."""
    return lambda out: out[-1, :count]


def last_channels(count: int) -> Part:
    """The last sequence's rows of a padded, channels-first output [n, channels, longest]."""
    return lambda out: out[-1].T[:count]


@dataclass(frozen=True, slots=True)
class Implementation:
    """One way to compute a case.

    Args:
        run: the call.
        part: of its output, the part compared with `wanted`.
        wanted: in float64 or float32; None for the case's.
        graph: True where a CUDA graph can hold the call.
    """

    run: Call
    part: Part
    wanted: Tensor | None = None
    graph: bool = True


@dataclass(frozen=True, slots=True)
class Prepared:
    """A case with its inputs in memory.

    Args:
        ours: the kernel.
        wanted: a part of the correct output.
        error: the largest relative error allowed, in norm.
        peers: the implementations beside it, by name.
        missing: reasons why a peer could not be made, by name.
    """

    ours: Implementation
    wanted: Tensor
    error: float
    peers: dict[str, Implementation] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Call, wanted: Tensor, error: float, part: Part | None = None) -> Self:
        """The kernel, yet without peers; `part` is by default the last rows, as many as `wanted` has."""
        return cls(Implementation(run, part or (lambda out: out[-len(wanted) :])), wanted, error)

    def beside(
        self,
        name: str,
        run: Call,
        part: Part | None = None,
        wanted: Tensor | None = None,
        *,
        graph: bool = True,
    ) -> Self:
        """Add a peer, whose output is compared like the kernel's unless `part` or `wanted` is given."""
        self.peers[name] = Implementation(run, part or self.ours.part, wanted, graph)
        return self


@dataclass(frozen=True, slots=True)
class Setup:
    """Device and inputs of a case.

    Args:
        dtype: of the values, where the kernel leaves a choice.
        copies: of the inputs, so many that a call never finds its own in the cache.
    """

    device: torch.device
    dtype: torch.dtype
    copies: int

    def random(self, *shape: int, scale: float = 1.0, dtype: torch.dtype | None = None) -> list[Tensor]:
        """Normally distributed numbers, a set for each copy."""
        return [
            torch.randn(shape, device=self.device, dtype=torch.float32).mul_(scale).to(dtype or self.dtype)
            for _ in range(self.copies)
        ]

    def integers(self, limit: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.randint(limit, shape, device=self.device, dtype=dtype)

    def offsets(self, lengths: list[int]) -> Tensor:
        """cu_seqlens, int32 [n + 1]."""
        return cumulative(lengths, self.device)

    @property
    def error(self) -> float:
        return ERRORS[self.dtype]


def last_alone(
    reference: Callable[..., Any],
    packed: Tensor,
    lengths: list[int],
    *others: Any,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Tensor:
    """A reference's output for the last packed sequence alone, `reference(rows, cu_seqlens, *others)`, with
    all tensors in a wider type."""
    last = lengths[-1]
    wide = [other.to(dtype) if isinstance(other, Tensor) else other for other in others]
    out = reference(packed[-last:].to(dtype), cumulative([last], packed.device), *wide, **options)
    return out[0] if isinstance(out, tuple) else out


@dataclass(frozen=True, slots=True)
class Case:
    """One timing of a kernel.

    Args:
        kernel: its name.
        shape: for the label, after the model's name and the number of sequences.
        work: operations and bytes counted from the shapes.
        prepare: makes the inputs.
        tags: names by which the goals find it.
        graph: timed in a CUDA graph, since launching takes longer than a small kernel does; not for calls
            that wait for the device.
        tiles: also time the other tiles at this number of rows.
    """

    kernel: str
    model: str
    sequences: int
    shape: str
    work: Work
    prepare: Callable[[Setup], Prepared]
    tags: frozenset[str] = frozenset()
    graph: bool = False
    tiles: bool = False

    @property
    def label(self) -> str:
        return f"{self.model}, {self.sequences} x, {self.shape}"
