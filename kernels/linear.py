"""GEMM with bias, activation and residual."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import choose

# Names as in the checkpoints' `activation_function`.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}

# From 12 rows on MKL computes a row the same way whatever the number of rows; below, it does not.
_MIN_ROWS = 16


def linear(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """`activation(hidden @ weight.T + bias) + residual`; a row's bits do not depend on the number of rows.

    Args:
        hidden: [rows, K].
        weight: [N, K], as in `torch.nn.Linear`.
        bias: [N].
        activation: one of `ACTIVATIONS`.
        residual: [rows, N], added last.

    Returns:
        [rows, N], in hidden's dtype.

    Raises:
        ValueError: shapes that do not fit, or an unknown activation.
    """
    if hidden.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"linear takes [rows, {weight.shape[1]}], got {list(hidden.shape)}")
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; one of {', '.join(sorted(ACTIVATIONS))}")
    run = choose(hidden, weight, bias, residual, reference=linear_reference, cpu=linear_cpu)
    return run(hidden, weight, bias, activation=activation, residual=residual)


def linear_reference(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """The specification, in plain torch."""
    out = F.linear(hidden, weight, bias)
    if activation is not None:
        out = ACTIVATIONS[activation](out)
    return out if residual is None else residual + out


def linear_cpu(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """The reference with small calls padded to 16 rows, so that a row's sum keeps its order."""
    rows = hidden.shape[0]
    padded = hidden if rows >= _MIN_ROWS else F.pad(hidden, (0, 0, 0, _MIN_ROWS - rows))
    out = F.linear(padded, weight, bias)[:rows]
    if activation is not None:
        out = ACTIVATIONS[activation](out)
    return out if residual is None else out.add_(residual)
