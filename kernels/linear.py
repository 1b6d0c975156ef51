"""GEMM with bias, activation and residual."""

import math
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

# From 12 rows on MKL computes a row the same way whatever the number of rows; below, it does not. With
# fewer than 12 outputs a row's sum depends on where the row lies in memory.
_LEAST = 16


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
    """The reference with small calls padded to 16 rows and 16 outputs, so that a row's sum keeps order."""
    rows, outputs = hidden.shape[0], weight.shape[0]
    if rows < _LEAST:
        hidden = F.pad(hidden, (0, 0, 0, _LEAST - rows))
    if outputs < _LEAST:
        weight = F.pad(weight, (0, 0, 0, _LEAST - outputs))
        bias = None if bias is None else F.pad(bias, (0, _LEAST - outputs))
    out = F.linear(hidden, weight, bias)[:rows, :outputs]
    if activation is not None:
        out = _INVARIANT.get(activation, ACTIVATIONS[activation])(out)
    return out.contiguous() if residual is None else out.add_(residual).contiguous()


def gated(values: Tensor, gate: Tensor) -> Tensor:
    """`values * sigmoid(gate)`; an element's bits do not depend on its place in the tensor.

    torch.sigmoid (hence F.glu and F.silu) rounds what is left over behind the last whole vector otherwise
    than the rest, and every thread's share of a tensor has such a rest; torch.exp does not.
    """
    wide = gate.float()
    return (values.float() / wide.neg().exp_().add_(1.0)).to(values.dtype)


def _gelu(hidden: Tensor) -> Tensor:
    wide = hidden.float()
    return (0.5 * wide * (1.0 + torch.erf(wide * 0.5**0.5))).to(hidden.dtype)


def _gelu_tanh(hidden: Tensor) -> Tensor:
    wide = hidden.float()
    inner = (2.0 / math.pi) ** 0.5 * (wide + 0.044715 * wide * wide * wide)
    return (0.5 * wide * (1.0 + torch.tanh(inner))).to(hidden.dtype)


def _silu(hidden: Tensor) -> Tensor:
    return gated(hidden, hidden)


def _sigmoid(hidden: Tensor) -> Tensor:
    return gated(torch.ones_like(hidden), hidden)


# Activations that torch rounds by an element's place in the tensor, made of operations that it does not.
_INVARIANT: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "silu": _silu,
    "swish": _silu,
    "sigmoid": _sigmoid,
}
