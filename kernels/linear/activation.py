"""Elementwise activations by name: in plain torch, on the CPU and in kernels."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.optional_triton import tl, triton

# Names as in a checkpoint's `activation_function` or `hidden_act`. Several names are one formula, which peers
# write out in different ways, with different rounding.
_TANH_GELU = partial(F.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_python": F.gelu,
    "gelu_new": _TANH_GELU,
    "gelu_fast": _TANH_GELU,
    "gelu_accurate": _TANH_GELU,
    "gelu_pytorch_tanh": _TANH_GELU,
    "gelu_python_tanh": _TANH_GELU,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def check_activation(name: str | None) -> None:
    """Validate an activation's name, or None. Raises ValueError with the known names."""
    if name is not None and name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; one of {', '.join(sorted(ACTIVATIONS))}")


def activate(hidden: Tensor, name: str | None) -> Tensor:
    """Apply an activation by name, in plain torch; None returns `hidden` itself."""
    return hidden if name is None else ACTIVATIONS[name](hidden)


def activate_(hidden: Tensor, name: str | None) -> Tensor:
    """Apply an activation on the CPU, forward only, in place if `hidden` is contiguous.

    An element's bits do not depend on its position in the tensor; torch's do for all but ReLU and tanh.
    """
    if name is None:
        return hidden
    hidden = hidden.contiguous()
    function = ACTIVATIONS[name]
    if function in _VECTORS_ONLY:
        _by_whole_vectors(_VECTORS_ONLY[function], hidden.view(-1))
    else:
        torch.relu_(hidden) if function is F.relu else torch.tanh_(hidden)
    return hidden


# In-place activations whose rounding in torch depends on an element's position: whole vectors are rounded one
# way, and the rest after the last vector of every thread's share another way.
_VECTORS_ONLY: dict[Callable[[Tensor], Tensor], Callable[[Tensor], object]] = {
    F.gelu: torch.ops.aten.gelu_,
    _TANH_GELU: partial(torch.ops.aten.gelu_, approximate="tanh"),
    F.silu: partial(F.silu, inplace=True),
    torch.sigmoid: torch.sigmoid_,
}
_VECTORS = 64  # elements: torch takes two vectors of at most 32 at a time
_LARGE = 32768  # elements: torch may divide a larger call among threads, in equal shares of at least this
_SMALL = 16384  # elements: torch gives a smaller call to a single thread, whatever the activation


def _by_whole_vectors(function: Callable[[Tensor], object], flat: Tensor) -> None:
    """Apply an activation in place, in calls that give every thread whole vectors only."""
    equal_shares = _LARGE * torch.get_num_threads()
    whole = flat.numel() - flat.numel() % equal_shares
    if whole:
        function(flat[:whole])
    for part in flat[whole:].split(_SMALL):
        vectors = part.numel() - part.numel() % _VECTORS
        if vectors:
            function(part[:vectors])
        if vectors < part.numel():
            rest = part.new_zeros(_VECTORS)
            rest[: part.numel() - vectors] = part[vectors:]
            function(rest)
            part[vectors:] = rest[: part.numel() - vectors]


def post_operation(name: str | None) -> tuple[str, str] | None:
    """oneDNN's name and algorithm of an activation that it fuses into a GEMM; None if it cannot."""
    return ("none", "") if name is None else _POST_OPERATIONS.get(ACTIVATIONS[name])


# Without ReLU: oneDNN's turns NaN into 0.
_POST_OPERATIONS: dict[Callable[[Tensor], Tensor], tuple[str, str]] = {
    F.gelu: ("gelu", "none"),
    _TANH_GELU: ("gelu", "tanh"),
    F.silu: ("swish", ""),
    torch.tanh: ("tanh", ""),
    torch.sigmoid: ("sigmoid", ""),
}


def gated(values: Tensor, gate: Tensor) -> Tensor:
    """Gated linear unit `values * sigmoid(gate)`, in which an element's bits do not depend on its position.

    Computed by torch.exp: torch.sigmoid, and so F.glu, rounds values after the last whole vector differently.
    """
    return (_wide(values) / _wide(gate).neg().exp_().add_(1.0)).to(values.dtype)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


# Branches of `activated`.
_CODES = {F.gelu: 0, _TANH_GELU: 1, F.silu: 2, torch.tanh: 3, torch.sigmoid: 4, F.relu: 5}
NONE = 6  # any other number


# Activations that shipped models apply to large tiles, by the form of a GEMM kernel's cases in which the code
# is a constant: among branches taken at run time each has the registers of all, at the cost of every second
# program.
CONSTANT_FORMS = {"gelu": 0, "tanh_gelu": 1}
AT_RUN_TIME = -1  # constant of all other cases


def code_of(name: str | None) -> int:
    """Integer code of an activation, which selects its branch in `activated`."""
    return NONE if name is None else _CODES[ACTIVATIONS[name]]


@triton.jit
def activated(values, activation):
    """Apply the activation with a code from `code_of` to float32 values.

    A code that is a constant of the case leaves one branch. Elsewhere it branches at run time, alike for all
    rows: as a constant it would multiply the compiled cases of every kernel, dtype and tile by six.
    """
    if activation == 0:
        values = _gelu(values)
    elif activation == 1:
        values = (
            0.5 * values * (1.0 + _tanh(0.7978845608028654 * (values + 0.044715 * values * values * values)))
        )
    elif activation == 2:
        values = values * tl.sigmoid(values)
    elif activation == 3:
        values = _tanh(values)
    elif activation == 4:
        values = tl.sigmoid(values)
    elif activation == 5:
        values = tl.where(values < 0.0, 0.0, values)  # NaN stays NaN
    return values


@triton.jit
def _gelu(values):
    """Exact GELU, `values * Phi(values)`, by a polynomial for the logarithm of the normal tail.

    Phi(-x) = exp2(-1 + c1 x + ... + c8 x^8) for x >= 0, and x Phi(x) = x - x Phi(-x): 8 multiply-adds and one
    power, without the second set of coefficients of an erf, and the registers for choosing between the two.
    Beyond the fitted range the polynomial falls on, so that Phi(-x) goes to 0.

    The coefficients are our own fit on [0, 5.5] to float64's log(Phi): least squares at 4,001 Chebyshev
    points, reweighted 3,000 times by the errors, so that the largest becomes smallest (Lawson, 1961). The
    error is relative, at most 7.2e-8, down to Phi(-x) = 0.05, and below that absolute.

    Largest errors in float32 against float64, of 4,000,001 values of [-12, 12], beside those of
    `0.5 * x * (1 + erf(x / sqrt(2)))` by torch: absolute 2.6e-7 and 4.6e-7, for negative x 5.6e-8 and 8.9e-8.
    Relative for positive x 2.1e-7 and 1.4e-7 (2.5 and 1.8 units in the last place), for x in [-1, 0] 3.3e-7
    and 2.3e-7, in [-4, -1] 5.0e-5 and 5.0e-4.
    """
    x = tl.abs(values)
    power = -2.1769360500911716e-06 * x + 3.1474872230319306e-05
    power = power * x - 0.00014860340161249042
    power = power * x - 0.00022741462453268468
    power = power * x + 0.007180355954915285
    power = power * x - 0.05257507413625717
    power = power * x - 0.45918357372283936
    power = power * x - 1.1511077880859375
    tail = tl.exp2(power * x - 1.0)
    part = tl.minimum(x, 16.0) * tail  # infinity times 0 would be NaN
    return tl.where(values < 0.0, -part, values - part)


@triton.jit
def _tanh(values):
    """Hyperbolic tangent by exp of values that are never positive, so that it cannot overflow."""
    decay = tl.exp(-2.0 * tl.abs(values))
    tanh = (1.0 - decay) / (1.0 + decay)
    return tl.where(values < 0.0, -tanh, tanh)
