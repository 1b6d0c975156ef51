"""Which implementation of an operation runs: the choice every dispatching function of this package makes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def choose(
    *tensors: Tensor | None,
    reference: Callable[..., Any],
    cpu: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """The implementation for these tensors.

    Anything that needs a gradient goes to `reference`, the specification. Otherwise CPU tensors go to
    `cpu` where an operation has one. Operations without a tuned implementation for the device run
    their reference there.

    Args:
        tensors: the operation's tensor arguments; None is skipped.
        reference: plain torch, differentiable, any device.
        cpu: tuned for CPU tensors, forward only.

    Raises:
        ValueError: if the tensors lie on different devices.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    devices = {tensor.device for tensor in given}
    if len(devices) > 1:
        names = ", ".join(sorted(map(str, devices)))
        raise ValueError(
            f"all tensors of an operation must be on one device, got {names}; move them with .to(device)"
        )
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return reference
    if cpu is not None and given[0].device.type == "cpu":
        return cpu
    return reference
