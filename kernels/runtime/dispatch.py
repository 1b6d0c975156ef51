"""Choice of an operation's implementation by its tensors: reference, CPU or Triton.

An operation `xxx` has up to three implementations of one signature: `xxx_reference`, the reference in plain
torch; `xxx_cpu`; and `xxx_triton`, which launches kernels. `xxx` checks its arguments and calls
`_xxx = Operation(xxx_reference, cpu=xxx_cpu, triton=xxx_triton)`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .launch import interpreting


def choose(
    *tensors: Tensor | None,
    reference: Callable[..., Any],
    cpu: Callable[..., Any] | None = None,
    triton: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Choose an operation's implementation by the device and dtypes of its tensors.

    `reference` for gradients, and for float64 on a GPU; else `triton` for CUDA tensors, and for CPU tensors
    under TRITON_INTERPRET=1 except float64; else `cpu`. `reference` also replaces one that is missing.

    Args:
        tensors: the operation's tensor arguments; None is skipped.
        reference: differentiable implementation in plain torch, for any device.
        cpu: implementation tuned for CPU tensors, forward only.
        triton: implementation by Triton kernels, forward only.

    Raises:
        ValueError: tensors on different devices, or bfloat16 in Triton's interpreter.
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
    kind = given[0].device.type
    dtypes = {tensor.dtype for tensor in given}
    if torch.float64 in dtypes:
        return cpu or reference if kind == "cpu" else reference
    if kind == "cpu" and interpreting() and triton is not None:
        if torch.bfloat16 in dtypes:
            raise ValueError(
                "Triton's interpreter multiplies bfloat16 wrongly; "
                "use float32 or float16 under TRITON_INTERPRET=1"
            )
        return triton
    return {"cpu": cpu, "cuda": triton}.get(kind) or reference


class Operation:
    """Operation with up to three implementations; a call runs the one that `choose` picks for its tensors.

    A call with a nonzero `dropout`, for training, runs the reference: the others lack that option.
    """

    def __init__(
        self,
        reference: Callable[..., Any],
        *,
        cpu: Callable[..., Any] | None = None,
        triton: Callable[..., Any] | None = None,
    ) -> None:
        self.reference, self.cpu, self.triton = reference, cpu, triton

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if dropout := options.pop("dropout", 0.0):
            return self.reference(*arguments, dropout=dropout, **options)
        tensors = [value for value in (*arguments, *options.values()) if isinstance(value, Tensor)]
        run = choose(*tensors, reference=self.reference, cpu=self.cpu, triton=self.triton)
        return run(*arguments, **options)
