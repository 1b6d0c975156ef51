"""Layer normalization and RMS normalization over the last dimension, with a fused residual."""

from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor

from ..linear.activation import activate, activate_, activated, check_activation, code_of
from ..runtime.dispatch import choose
from ..runtime.launch import ARCHITECTURES, DTYPES, kernel, ready
from ..runtime.optional_triton import tl, triton


@overload
def layer_norm(
    hidden: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, *, activation: str | None = None
) -> Tensor: ...
@overload
def layer_norm(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    residual: Tensor,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]: ...
def layer_norm(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`activation((hidden - mean) / sqrt(var + eps) * weight + bias)`, each row on its own.

    Args:
        hidden: [rows, width].
        weight, bias: [width].
        eps: added to the variance.
        residual: [rows, width], added to `hidden` first.
        activation: one of `ACTIVATIONS`.

    Returns:
        [rows, width]; with a residual that of the sum, and the sum itself, for the layers behind.

    Raises:
        ValueError: shapes that do not fit, or an unknown activation.
    """
    _check("layer_norm", hidden, weight, residual)
    check_activation(activation)
    run = choose(
        hidden,
        weight,
        bias,
        residual,
        reference=layer_norm_reference,
        cpu=layer_norm_cpu,
        triton=layer_norm_triton,
    )
    return run(hidden, weight, bias, eps, residual=residual, activation=activation)


@overload
def rms_norm(hidden: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor: ...
@overload
def rms_norm(
    hidden: Tensor, weight: Tensor, eps: float = 1e-6, *, residual: Tensor
) -> tuple[Tensor, Tensor]: ...
def rms_norm(
    hidden: Tensor, weight: Tensor, eps: float = 1e-6, *, residual: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """`hidden / sqrt(mean of squares + eps) * weight`, each row on its own (T5; arXiv 1910.07467).

    Args:
        hidden: [rows, width].
        weight: [width].
        eps: added to the mean of squares.
        residual: as in `layer_norm`.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check("rms_norm", hidden, weight, residual)
    run = choose(hidden, weight, residual, reference=rms_norm_reference, triton=rms_norm_triton)
    return run(hidden, weight, eps, residual=residual)


def _check(name: str, hidden: Tensor, weight: Tensor, residual: Tensor | None) -> None:
    if hidden.shape[-1] != weight.shape[0]:
        raise ValueError(f"{name} of width {weight.shape[0]} got rows of {hidden.shape[-1]}")
    if residual is not None and residual.shape != hidden.shape:
        raise ValueError(
            f"{name} adds a residual of hidden's shape {list(hidden.shape)}, got {list(residual.shape)}"
        )


def layer_norm_reference(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The specification, in plain torch."""
    total = hidden if residual is None else hidden + residual
    out = activate(F.layer_norm(total, (hidden.shape[-1],), weight, bias, eps), activation)
    return out if residual is None else (out, total)


def layer_norm_cpu(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The reference, but for an activation whose bits do not depend on the place."""
    total = hidden if residual is None else hidden + residual
    out = activate_(F.layer_norm(total, (hidden.shape[-1],), weight, bias, eps), activation)
    return out if residual is None else (out, total)


def rms_norm_reference(
    hidden: Tensor, weight: Tensor, eps: float = 1e-6, *, residual: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """The specification, in plain torch; squares summed in float32 at least."""
    total = hidden if residual is None else hidden + residual
    wide = total.to(torch.promote_types(total.dtype, torch.float32))
    scale = wide.square().mean(-1, keepdim=True).add(eps).rsqrt()
    out = (wide * scale * weight).to(hidden.dtype)
    return out if residual is None else (out, total)


def layer_norm_triton(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """One launch; the mean first, then the squared deviations from it, in float32."""
    return _normalized(hidden, weight, bias, eps, residual, activation)


def rms_norm_triton(
    hidden: Tensor, weight: Tensor, eps: float = 1e-6, *, residual: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """The same kernel, with a mean of 0 and no bias."""
    return _normalized(hidden, weight, None, eps, residual)


def _normalized(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    residual: Tensor | None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Layer norm where there is a bias, RMS norm where there is none."""
    width = hidden.shape[-1]
    rows = hidden.numel() // width
    out = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    total = out if residual is None else torch.empty_like(out)
    case = layer_norm_kernel.case(
        hidden.device, _size(width), hidden.dtype, "aligned" if width % 16 == 0 else "any"
    )
    hidden = ready(hidden)
    case.launch(
        (triton.cdiv(rows, case.constant("ROWS")),),
        hidden,
        hidden if residual is None else ready(residual),
        ready(weight),
        out if bias is None else ready(bias),
        out,
        total,
        rows,
        width,
        int(residual is not None),
        int(bias is not None),
        code_of(activation),
        eps,
    )
    return out if residual is None else (out, total)


@kernel(sizes=("N",))
def layer_norm_kernel(
    hidden_ptr,  # [rows, N]
    residual_ptr,  # [rows, N]
    weight_ptr,  # [N]
    bias_ptr,  # [N]
    out_ptr,  # [rows, N]
    total_ptr,  # [rows, N]: hidden + residual
    rows: tl.int32,
    N: tl.int32,
    has_residual: tl.int32,  # 0 or 1; without it nothing is written to total
    centered: tl.int32,  # 1 for layer norm; 0 for RMS norm, which has neither mean nor bias
    activation: tl.int32,  # its `code_of`
    eps: tl.float32,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    LOOP: tl.constexpr,  # rows may be wider than BLOCK: go over them three times
):
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = tl.arange(0, BLOCK)
    offsets = m.to(tl.int64)[:, None] * N + n[None, :]
    added = m < rows * has_residual
    if LOOP:
        # Read again rather than kept: a second look hits the cache, and no program could hold any width.
        # What a lane adds up is in the order of its columns, whoever else is in the launch.
        partial = tl.zeros((ROWS, BLOCK), tl.float32)
        for start in range(0, N, BLOCK):
            inside = (start + n < N)[None, :]
            there, also = (m < rows)[:, None] & inside, added[:, None] & inside
            partial += summed(hidden_ptr, residual_ptr, offsets + start, there, also).to(tl.float32)
        mean = tl.where(centered == 1, tl.sum(partial, 1) / N, 0.0)
        partial = tl.zeros((ROWS, BLOCK), tl.float32)
        for start in range(0, N, BLOCK):
            inside = (start + n < N)[None, :]
            there, also = (m < rows)[:, None] & inside, added[:, None] & inside
            row = summed(hidden_ptr, residual_ptr, offsets + start, there, also)
            deviation = tl.where(inside, row.to(tl.float32) - mean[:, None], 0.0)
            partial += deviation * deviation
        scale = tl.rsqrt(tl.sum(partial, 1) / N + eps)
        for start in range(0, N, BLOCK):
            inside = (start + n < N)[None, :]
            there, also = (m < rows)[:, None] & inside, added[:, None] & inside
            row = summed(hidden_ptr, residual_ptr, offsets + start, there, also)
            weight = tl.load(weight_ptr + start + n, mask=start + n < N, other=0.0).to(tl.float32)
            bias = tl.load(bias_ptr + start + n, mask=start + n < N * centered, other=0.0).to(tl.float32)
            out = (row.to(tl.float32) - mean[:, None]) * scale[:, None] * weight[None, :] + bias[None, :]
            out = activated(out, activation)
            tl.store(out_ptr + offsets + start, out.to(out_ptr.dtype.element_ty), mask=there)
            tl.store(total_ptr + offsets + start, row, mask=also)
    else:
        inside = (n < N)[None, :]
        there, also = (m < rows)[:, None] & inside, added[:, None] & inside
        row = summed(hidden_ptr, residual_ptr, offsets, there, also)
        tl.store(total_ptr + offsets, row, mask=also)
        wide = row.to(tl.float32)
        mean = tl.where(centered == 1, tl.sum(wide, 1) / N, 0.0)
        deviation = tl.where(inside, wide - mean[:, None], 0.0)
        scale = tl.rsqrt(tl.sum(deviation * deviation, 1) / N + eps)
        weight = tl.load(weight_ptr + n, mask=n < N, other=0.0).to(tl.float32)
        bias = tl.load(bias_ptr + n, mask=n < N * centered, other=0.0).to(tl.float32)
        out = activated(deviation * scale[:, None] * weight[None, :] + bias[None, :], activation)
        tl.store(out_ptr + offsets, out.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def summed(hidden_ptr, residual_ptr, offsets, there, added):
    """hidden + residual, rounded to their type as torch's sum is: what is normalized is what is handed on.
    0 where there is neither."""
    hidden = tl.load(hidden_ptr + offsets, mask=there, other=0.0).to(tl.float32)
    residual = tl.load(residual_ptr + offsets, mask=added, other=0.0).to(tl.float32)
    return (hidden + residual).to(hidden_ptr.dtype.element_ty)


_SIZES = (256, 1024, 4096)  # widths that a program holds at once, rounded up to one of these
_WIDER = 0  # in place of a size, for more than that


def _size(width: int) -> int:
    return next((size for size in _SIZES if width <= size), _WIDER)


def _shape(size: int, alignment: str) -> dict[str, int]:
    """Tile and warps. Narrow rows share a program, so that a thread has 16 numbers to read at once; rows that
    are not aligned are read a number at a time, which takes a register for every address."""
    if size == _WIDER:
        return {"ROWS": 1, "BLOCK": 4096 if alignment == "aligned" else 2048, "num_warps": 8}
    rows = {256: 8 if alignment == "aligned" else 4, 1024: 2, 4096: 1}[size]
    return {"ROWS": rows, "BLOCK": size, "num_warps": 8 if rows == 1 else 4}


def _declare() -> None:
    parameters = ("hidden_ptr", "residual_ptr", "weight_ptr", "bias_ptr", "out_ptr", "total_ptr")
    for architecture in ARCHITECTURES:
        for dtype in DTYPES:
            for size in (*_SIZES, _WIDER):
                for alignment in ("aligned", "any"):
                    layer_norm_kernel.declare(
                        size,
                        dtype,
                        alignment,
                        architecture=architecture,
                        pointers=dict.fromkeys(parameters, dtype),
                        aligned=alignment == "aligned",
                        num_stages=1,
                        LOOP=size == _WIDER,
                        **_shape(size, alignment),
                    )


_declare()
