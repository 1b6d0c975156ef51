"""Layer normalisation over the last dimension."""

import torch.nn.functional as F
from torch import Tensor

from .dispatch import choose


def layer_norm(hidden: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """`(hidden - mean) / sqrt(var + eps) * weight + bias`, each row on its own.

    Args:
        hidden: [rows, width].
        weight, bias: [width].
        eps: added to the variance.

    Raises:
        ValueError: if the widths differ.
    """
    if hidden.shape[-1] != weight.shape[0]:
        raise ValueError(f"layer_norm of width {weight.shape[0]} got rows of {hidden.shape[-1]}")
    return choose(hidden, weight, bias, reference=layer_norm_reference)(hidden, weight, bias, eps)


def layer_norm_reference(hidden: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """The specification, in plain torch."""
    return F.layer_norm(hidden, (hidden.shape[-1],), weight, bias, eps)
