"""Layer normalization (arXiv 1607.06450) and RMS normalization (arXiv 1910.07467) with a fused residual."""

from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from ..linear.activation import activate, activate_, activated, check_activation, code_of
from ..runtime.dispatch import Operation
from ..runtime.launch import ALIGNMENTS, DTYPES, alignment, kernel
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
    """Layer normalization of each row: `activation((hidden - mean) / sqrt(var + eps) * weight + bias)`.

    Args:
        hidden: [rows, width].
        weight, bias: [width].
        eps: added to the variance.
        residual: [rows, width], added to `hidden` first.
        activation: one of `ACTIVATIONS`.

    Returns:
        [rows, width]; with a residual the normalized sum and the sum itself, both [rows, width].

    Raises:
        ValueError: shapes that do not fit, or an unknown activation.
    """
    _check("layer_norm", hidden, weight, residual)
    check_activation(activation)
    return _layer_norm(hidden, weight, bias, eps, residual=residual, activation=activation)


@overload
def rms_norm(hidden: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor: ...
@overload
def rms_norm(
    hidden: Tensor, weight: Tensor, eps: float = 1e-6, *, residual: Tensor
) -> tuple[Tensor, Tensor]: ...
def rms_norm(
    hidden: Tensor, weight: Tensor, eps: float = 1e-6, *, residual: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """RMS normalization of each row, as in T5: `hidden / sqrt(mean of squares + eps) * weight`.

    Args:
        hidden: [rows, width].
        weight: [width].
        eps: added to the mean of squares.
        residual: [rows, width], added to `hidden` first; the sum is then returned too.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check("rms_norm", hidden, weight, residual)
    return _rms_norm(hidden, weight, eps, residual=residual)


def _check(name: str, hidden: Tensor, weight: Tensor, residual: Tensor | None) -> None:
    shape = hidden.shape  # made anew at each access
    if shape[-1] != weight.shape[0]:
        raise ValueError(f"{name} of width {weight.shape[0]} got rows of {hidden.shape[-1]}")
    if residual is not None and residual.shape != shape:
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
    """Reference implementation of `layer_norm` in plain torch."""
    total = hidden if residual is None else hidden + residual
    out = activate(F.layer_norm(total, (hidden.shape[-1],), weight, bias, eps), activation)
    return out if residual is None else (out, total)


def layer_norm_cpu(
    *arguments: Any, residual: Tensor | None = None, activation: str | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """Layer normalization on the CPU: the reference's, then an activation with position-independent bits."""
    out = layer_norm_reference(*arguments, residual=residual)
    return (activate_(out[0], activation), out[1]) if isinstance(out, tuple) else activate_(out, activation)


def rms_norm_reference(
    hidden: Tensor, weight: Tensor, eps: float = 1e-6, *, residual: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """Reference implementation of `rms_norm` in plain torch; squares are summed in float32 at least."""
    total = hidden if residual is None else hidden + residual
    wide = total.to(torch.promote_types(total.dtype, torch.float32))
    scale = wide.square().mean(-1, keepdim=True).add(eps).rsqrt()
    out = (wide * scale * weight).to(hidden.dtype)
    return out if residual is None else (out, total)


def rms_norm_triton(
    hidden: Tensor, weight: Tensor, eps: float = 1e-6, *, residual: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """RMS normalization by `layer_norm_kernel`, with a mean of 0 and without bias."""
    return layer_norm_triton(hidden, weight, None, eps, residual=residual)


def layer_norm_triton(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Layer normalization in one launch; RMS normalization if `bias` is None.

    Computes the mean, then the squared deviations from it, in float32.
    """
    width = weight.numel()
    rows = hidden.numel() // width
    out = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    total = out if residual is None else torch.empty_like(out)
    case = layer_norm_kernel.case(hidden.device, _size(width), hidden.dtype, alignment(width))
    tensors = hidden, residual, weight, bias, out, total
    terms = residual is not None, bias is not None
    case.launch((case.block_count("ROWS", rows),), *tensors, rows, width, *terms, code_of(activation), eps)
    return out if residual is None else (out, total)


@kernel(sizes=("N",), outputs=("out_ptr", "total_ptr"))
def layer_norm_kernel(
    hidden_ptr,  # [rows, N]
    residual_ptr,  # [rows, N]
    weight_ptr,  # [N]
    bias_ptr,  # [N]
    out_ptr,  # [rows, N]
    total_ptr,  # [rows, N]: hidden + residual
    rows: tl.int32,
    N: tl.int32,
    has_residual: tl.int32,  # 0 or 1; total is written only with a residual
    centered: tl.int32,  # 1 for layer norm; 0 for RMS norm, without mean and bias
    activation: tl.int32,  # its `code_of`
    eps: tl.float32,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    LOOP: tl.constexpr,  # rows may be wider than BLOCK: three passes over each
):
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = tl.arange(0, BLOCK)
    offsets = m.to(tl.int64)[:, None] * N + n[None, :]
    added = m < rows * has_residual
    if LOOP:
        # Three reads, of which the last two hit the cache: no program could hold rows of every width. A lane
        # adds up its columns in order, so that sums do not depend on the launch.
        partial = tl.zeros((ROWS, BLOCK), tl.float32)
        for start in range(0, N, BLOCK):
            inside = (start + n < N)[None, :]
            mask, with_residual = (m < rows)[:, None] & inside, added[:, None] & inside
            partial += summed(hidden_ptr, residual_ptr, offsets + start, mask, with_residual).to(tl.float32)
        mean = tl.where(centered == 1, tl.sum(partial, 1) / N, 0.0)
        partial = tl.zeros((ROWS, BLOCK), tl.float32)
        for start in range(0, N, BLOCK):
            inside = (start + n < N)[None, :]
            mask, with_residual = (m < rows)[:, None] & inside, added[:, None] & inside
            row = summed(hidden_ptr, residual_ptr, offsets + start, mask, with_residual)
            deviation = tl.where(inside, row.to(tl.float32) - mean[:, None], 0.0)
            partial += deviation * deviation
        scale = tl.rsqrt(tl.sum(partial, 1) / N + eps)
        for start in range(0, N, BLOCK):
            inside = (start + n < N)[None, :]
            mask, with_residual = (m < rows)[:, None] & inside, added[:, None] & inside
            row = summed(hidden_ptr, residual_ptr, offsets + start, mask, with_residual)
            weight = tl.load(weight_ptr + start + n, mask=start + n < N, other=0.0).to(tl.float32)
            bias = tl.load(bias_ptr + start + n, mask=start + n < N * centered, other=0.0).to(tl.float32)
            out = (row.to(tl.float32) - mean[:, None]) * scale[:, None] * weight[None, :] + bias[None, :]
            out = activated(out, activation)
            tl.store(out_ptr + offsets + start, out.to(out_ptr.dtype.element_ty), mask=mask)
            tl.store(total_ptr + offsets + start, row, mask=with_residual)
    else:
        inside = (n < N)[None, :]
        mask, with_residual = (m < rows)[:, None] & inside, added[:, None] & inside
        row = summed(hidden_ptr, residual_ptr, offsets, mask, with_residual)
        tl.store(total_ptr + offsets, row, mask=with_residual)
        wide = row.to(tl.float32)
        mean = tl.where(centered == 1, tl.sum(wide, 1) / N, 0.0)
        deviation = tl.where(inside, wide - mean[:, None], 0.0)
        scale = tl.rsqrt(tl.sum(deviation * deviation, 1) / N + eps)
        weight = tl.load(weight_ptr + n, mask=n < N, other=0.0).to(tl.float32)
        bias = tl.load(bias_ptr + n, mask=n < N * centered, other=0.0).to(tl.float32)
        out = activated(deviation * scale[:, None] * weight[None, :] + bias[None, :], activation)
        tl.store(out_ptr + offsets, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def summed(hidden_ptr, residual_ptr, offsets, mask, with_residual):
    """Sum of hidden and residual, 0 outside of the masks.

    It is rounded to their dtype like torch's sum, so that the normalized sum is the one that is returned.
    """
    hidden = tl.load(hidden_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    residual = tl.load(residual_ptr + offsets, mask=with_residual, other=0.0).to(tl.float32)
    return (hidden + residual).to(hidden_ptr.dtype.element_ty)


_SIZES = (256, 1024, 4096)  # widths that a program holds at once; others are rounded up to one of these
_WIDER = 0  # in place of a size, for wider rows


def _size(width: int) -> int:
    for size in _SIZES:
        if width <= size:
            return size
    return _WIDER


def _blocks(architecture: str, size: int, dtype: torch.dtype, sizes: str) -> dict[str, Any]:
    """Tile sizes and warps of one compiled case.

    Narrow rows share a program, so that each thread reads 16 elements at once. Unaligned rows are read one
    element at a time, with a register for every address.
    """
    if size == _WIDER:
        block = 4096 if sizes == "aligned" else 2048
        return {"ROWS": 1, "BLOCK": block, "LOOP": True, "num_warps": 8}
    rows = {256: 8 if sizes == "aligned" else 4, 1024: 2, 4096: 1}[size]
    return {"ROWS": rows, "BLOCK": size, "LOOP": False, "num_warps": 8 if rows == 1 else 4}


_layer_norm = Operation(layer_norm_reference, cpu=layer_norm_cpu, triton=layer_norm_triton)
_rms_norm = Operation(rms_norm_reference, triton=rms_norm_triton)


layer_norm_kernel.declare_all((*_SIZES, _WIDER), DTYPES, ALIGNMENTS, blocks=_blocks, num_stages=1)
