"""Linear layers of one input, such as queries, keys and values, as one product."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.weight_cache import cached
from .gemm import check_linear, linear_cpu, linear_parts_triton, linear_reference


def joined_linear(
    hidden: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    *,
    parts: int,
    phase: str = "encode",
) -> list[Tensor]:
    """Linear layers of the same input, whose outputs in their order are divided into equal parts.

    Args:
        hidden: [rows, K].
        weights: [N, K] of each layer, whose N may differ; each holds a whole number of parts.
        biases: [N] of each layer, or None.
        parts: number of parts.
        phase: as in `linear`.

    Returns:
        For each part [rows, sum of N / parts], contiguous.

    Raises:
        ValueError: shapes that do not fit, or an unknown phase.
    """
    for weight in weights:
        check_linear(hidden, weight, None, phase)
    width = sum(weight.shape[0] for weight in weights) // parts
    if any(weight.shape[0] % width for weight in weights):
        sizes = [weight.shape[0] for weight in weights]
        raise ValueError(f"outputs of {sizes} cannot be divided into {parts} parts of {width}")
    # One by one, since an operation finds gradients and devices by the tensors among its arguments.
    return _joined(hidden, *weights, *biases, parts=parts, phase=phase)  # type: ignore[no-any-return]


def joined_linear_reference(
    hidden: Tensor, *weights_and_biases: Tensor | None, parts: int, phase: str = "encode"
) -> list[Tensor]:
    """Reference implementation of `joined_linear`: one layer after the other."""
    return apart(linear_reference, hidden, *halves(weights_and_biases), parts=parts, phase=phase)


def joined_linear_cpu(
    hidden: Tensor, *weights_and_biases: Tensor | None, parts: int, phase: str = "encode"
) -> list[Tensor]:
    """Linear layers on the CPU, one after the other, so that each has the bits that it has alone."""
    return apart(linear_cpu, hidden, *halves(weights_and_biases), parts=parts, phase=phase)


def joined_linear_triton(
    hidden: Tensor, *weights_and_biases: Tensor | None, parts: int, phase: str = "encode"
) -> list[Tensor]:
    """`joined_linear` in one launch, by weights that are joined once."""
    weight, bias = joined(*halves(weights_and_biases))
    return list(linear_parts_triton(hidden, weight, bias, parts, phase).unbind())


_joined = Operation(joined_linear_reference, cpu=joined_linear_cpu, triton=joined_linear_triton)


def apart(
    layer: Callable[..., Tensor],
    hidden: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    *,
    parts: int,
    **options: Any,
) -> list[Tensor]:
    """Parts of the outputs of several layers, each computed by `layer(hidden, weight, bias, **options)`."""
    width = sum(weight.shape[0] for weight in weights) // parts
    found = []
    for weight, bias in zip(weights, biases, strict=True):
        # Contiguous, since the bits of attention on the CPU may depend on strides.
        found += [part.contiguous() for part in layer(hidden, weight, bias, **options).split(width, dim=1)]
    return found


def halves(weights_and_biases: Sequence[Any]) -> tuple[Sequence[Tensor], Sequence[Tensor | None]]:
    """Weights and biases of as many layers, given one after the other."""
    count = len(weights_and_biases) // 2
    return weights_and_biases[:count], weights_and_biases[count:]


def joined(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a single layer with the outputs of several; cached, for inference."""
    if len(weights) == 1:
        return weights[0], biases[0]
    weight = cached(_stacked, *weights)
    if all(bias is None for bias in biases):
        return weight, None
    filled = [
        cached(_zeros, weight) if bias is None else bias for weight, bias in zip(weights, biases, strict=True)
    ]
    return weight, cached(_stacked, *filled)


def _stacked(*tensors: Tensor) -> Tensor:
    return torch.cat([tensor.detach() for tensor in tensors])


def _zeros(weight: Tensor) -> Tensor:
    return weight.new_zeros(weight.shape[0])
