"""Operands of the kernels' tests, and their shared checks: numbers, bits in any batch, refusals.

Tests import this as `kernel_checks`, as they do `factories`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
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


def label(value: Any) -> str:
    """Name of a case, the same in every process."""
    if isinstance(value, tuple):
        return ", ".join(map(label, value))
    return getattr(value, "__name__", str(value))


def by_device(name: str, cpu: Sequence[Any], kernels: Sequence[Any]) -> pytest.MarkDecorator:
    """Parametrize the fixture `device`, and with it an argument that has other values on each."""
    cases = [*(("cpu", case) for case in cpu), *(("kernels", case) for case in kernels)]
    return pytest.mark.parametrize(("device", name), cases, indirect=["device"], ids=label)


def drawn(
    *shapes: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> list[Tensor]:
    """Normal numbers in tensors of these shapes, one after the other from one generator."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]


def close(out: Tensor, wanted: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(out.double(), wanted.double(), rtol=tolerance, atol=tolerance, equal_nan=True)


def near(out: Tensor, wanted: Tensor, dtype: torch.dtype, tolerance: Mapping[torch.dtype, float]) -> None:
    """Check dtype and numbers of an output, within the tolerance of its dtype."""
    assert out.dtype == dtype
    close(out, wanted, tolerance[dtype])


def wide(*given: Any) -> list[Any]:
    """The arguments with their floating-point tensors in float64."""
    return [one.double() if isinstance(one, Tensor) and one.is_floating_point() else one for one in given]


def same_bits(found: Tensor, wanted: Tensor, message: str = "") -> None:
    """Check equality to the bit, of NaN to NaN too."""
    torch.testing.assert_close(
        found, wanted, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{message}: {text}"
    )


def check_bits(count: int, run: Callable[[Sequence[int]], Sequence[Tensor]]) -> None:
    """Each of `count` sequences alone equals itself first, last and in the middle of a batch, to the bit.

    Args:
        run: outputs of each sequence of a batch of these sequences in this order.
    """
    alone = [run([index])[0] for index in range(count)]
    whole = range(count)
    for order in (whole, whole[::-1], [*whole[1::2], *whole[::2]], [count // 2, 0]):
        for index, out in zip(order, run(order), strict=True):
            same_bits(out, alone[index], f"sequence {index} in the order {list(order)}")


def check_bits_in_any_batch(
    pieces: Sequence[Tensor], run: Callable[[Tensor, Tensor], Sequence[Tensor]]
) -> None:
    """Check the bits of sequences in batches of them.

    Args:
        pieces: rows of each sequence.
        run: outputs of each sequence of a packed batch, from its rows and cu_seqlens.
    """

    def batch(order: Sequence[int]) -> Sequence[Tensor]:
        rows = [pieces[index] for index in order]
        return run(torch.cat(rows), cumulative([len(row) for row in rows], rows[0].device))

    check_bits(len(pieces), batch)


def check_bits_of_rows(
    rows: int, run: Callable[[slice], Sequence[Tensor]], counts: Sequence[int] = (1, 2, 3)
) -> None:
    """Rows have the same bits in a call of `counts` of them, from the first, the middle and to the last.

    Args:
        run: outputs of these rows, one of each row or several.
    """
    whole = run(slice(0, rows))
    for count in counts:
        for start in {0, (rows - count) // 2, rows - count}:
            part = slice(start, start + count)
            for found, wanted in zip(run(part), whole, strict=True):
                same_bits(found, wanted[part], f"{count} rows from {start} on")


def surrounded(tensor: Tensor, bad: float) -> Tensor:
    """The same numbers in the middle of a larger piece of memory, as in a pool, of `bad` ones."""
    around = torch.full((len(tensor) + 64, *tensor.shape[1:]), bad).to(tensor)
    around[32:-32] = tensor
    return around[32:-32]


def refused(problem: str, operation: Callable[..., Any], *given: Any, **options: Any) -> None:
    """Check that a call raises a ValueError with this message."""
    with pytest.raises(ValueError, match=problem):
        operation(*given, **options)
