"""Operands of the kernels' tests, and the check that a sequence's bits do not depend on its batch.

Tests import this as `kernel_checks`, as they do `factories`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tritone.kernels.conv.positional import positional_length
from tritone.kernels.runtime.packing import cumulative


def noise(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    """Normal numbers, the same for the same shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(device, dtype)


def conv_operands(
    lengths: list[int],
    channels: int,
    outputs: int,
    kernel: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> list[Tensor]:
    """hidden [tokens, channels], cu_seqlens, weight [outputs, channels, kernel], bias [outputs]."""
    generator = torch.Generator().manual_seed(sum(lengths) * 1009 + channels)
    hidden = torch.randn(sum(lengths), channels, generator=generator)
    weight = torch.randn(outputs, channels, kernel, generator=generator) / (channels * kernel) ** 0.5
    bias = torch.randn(outputs, generator=generator)
    hidden, weight, bias = (tensor.to(device, dtype) for tensor in (hidden, weight, bias))
    return [hidden, cumulative(lengths, device), weight, bias]


def positional_operands(
    lengths: list[int],
    size: tuple[int, int, int, int],
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> list[Tensor]:
    """hidden, cu_seqlens, weight, bias, residual of a grouped convolution.

    Args:
        size: channels, groups, kernel, stride.
    """
    channels, groups, kernel, stride = size
    _, cu_seqlens, weight, bias = conv_operands(lengths, channels // groups, channels, kernel, dtype, device)
    rows = sum(positional_length(length, kernel, stride) for length in lengths)
    hidden = noise(sum(lengths), channels, dtype=dtype, device=device)
    return [hidden, cu_seqlens, weight, bias, noise(rows, channels, dtype=dtype, device=device)]


def close(out: Tensor, wanted: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(out.double(), wanted.double(), rtol=tolerance, atol=tolerance)


def wide(*tensors: Tensor | None) -> list[Tensor | None]:
    """The same in float64; None stays None."""
    return [None if tensor is None else tensor.double() for tensor in tensors]


def check_bits_in_any_batch(
    pieces: Sequence[Tensor], run: Callable[[Tensor, Tensor], Sequence[Tensor]]
) -> None:
    """Each sequence alone equals itself first, last and in the middle of a batch, to the bit.

    Args:
        pieces: rows of each sequence, six or more.
        run: outputs of each sequence of a packed batch, from its rows and cu_seqlens.
    """

    def batch(order: Sequence[int]) -> Sequence[Tensor]:
        rows = [pieces[index] for index in order]
        return run(torch.cat(rows), cumulative([len(row) for row in rows], rows[0].device))

    alone = [batch([index])[0] for index in range(len(pieces))]
    whole = range(len(pieces))
    for order in (whole, whole[::-1], [2, 5, 0, 4, 1, 3], [3, 0]):
        for index, out in zip(order, batch(order), strict=True):
            assert torch.equal(out, alone[index]), f"{len(pieces[index])} rows, in the order {list(order)}"
