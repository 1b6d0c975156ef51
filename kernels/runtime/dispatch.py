"""Choice of an operation's implementation by its tensors: reference, CPU or Triton.

An operation `xxx` has up to three implementations of one signature: `xxx_reference`, the reference in plain
torch; `xxx_cpu`; and `xxx_triton`, which launches kernels. `xxx` checks its arguments and calls
`_xxx = Operation(xxx_reference, cpu=xxx_cpu, triton=xxx_triton)`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .launch import DTYPES, interpreting, other_devices


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
    grad = torch.is_grad_enabled()
    device: torch.device | None = None
    needs_gradient, dtypes = False, []
    for tensor in tensors:  # one pass, since every operation of a step comes here
        if tensor is None:
            continue
        if device is None:
            device = tensor.device
        elif tensor.device != device:
            raise ValueError(other_devices({one.device for one in tensors if one is not None}))
        needs_gradient = needs_gradient or (grad and tensor.requires_grad)
        dtypes.append(tensor.dtype)
    if needs_gradient or device is None:
        return reference
    if torch.float64 in dtypes:
        return cpu or reference if device.type == "cpu" else reference
    if device.type == "cuda":
        return triton or reference
    if device.type != "cpu":
        return reference
    if triton is not None and interpreting():
        if torch.bfloat16 in dtypes:
            raise ValueError(
                "Triton's interpreter multiplies bfloat16 wrongly; "
                "use float32 or float16 under TRITON_INTERPRET=1"
            )
        return triton
    return cpu or reference


_OF_KERNELS = frozenset(DTYPES)

# Operations of the modules imported so far by their references' names; `tritone.kernels.use` finds them here.
OPERATIONS: dict[str, "Operation"] = {}


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
        OPERATIONS[reference.__name__.removesuffix("_reference")] = self

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if options and (dropout := options.pop("dropout", 0.0)):
            return self.reference(*arguments, dropout=dropout, **options)
        if self.triton is not None and runs_on_gpu(arguments):
            return self.triton(*arguments, **options)
        tensors = [value for value in (*arguments, *options.values()) if isinstance(value, Tensor)]
        run = choose(*tensors, reference=self.reference, cpu=self.cpu, triton=self.triton)
        return run(*arguments, **options)


def runs_on_gpu(arguments: tuple[Any, ...]) -> bool:
    """True for the usual call on a GPU, without gradients, in a fifth of the time of `choose`.

    The first tensor of floating-point numbers decides; the launch compares devices and dtypes of all.
    """
    for value in arguments:
        if getattr(value, "dtype", None) in _OF_KERNELS:
            return value.is_cuda and not torch.is_grad_enabled()
    return False
