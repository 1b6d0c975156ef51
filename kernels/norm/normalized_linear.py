"""Linear layer behind a layer norm, and queries, keys and values of a decode step, in one launch."""

from typing import Any

import torch
from torch import Tensor

from ..linear.activation import activated
from ..linear.gemm import check_linear, epilogue, linear_cpu, linear_reference, linear_triton, tile_of_part
from ..runtime.dispatch import Operation
from ..runtime.launch import ALIGNMENTS, DTYPES, alignment, kernel
from ..runtime.optional_triton import tl, triton
from .layer_norm import layer_norm_reference, layer_norm_triton, rms_norm_reference

# Each program normalizes its rows itself, once for every block of columns: wider rows take a launch before.
WIDEST_NORM = 1024


def normalized_linear(
    hidden: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    eps: float,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    phase: str = "encode",
) -> Tensor:
    """Layer norm, then a linear layer: `activation(norm(hidden) @ weight.T + bias)`.

    Args:
        hidden: [rows, K].
        norm_weight, norm_bias: [K], of the layer norm; of an RMS norm where the bias is None.
        eps: added to the variance.
        weight: [N, K], as in `torch.nn.Linear`.
        bias: [N].
        activation, phase: as in `linear`.

    Returns:
        [rows, N].

    Raises:
        ValueError: shapes that do not fit, or an unknown activation or phase.
    """
    check_linear(hidden, weight, activation, phase)
    check_norm(hidden, norm_weight)
    norm = norm_weight, norm_bias, eps
    return _normalized_linear(  # type: ignore[no-any-return]
        hidden, *norm, weight, bias, activation=activation, phase=phase
    )


def check_norm(hidden: Tensor, norm_weight: Tensor) -> None:
    """Validate a norm's width. Raises ValueError where rows of `hidden` have another."""
    if hidden.shape[-1] != norm_weight.shape[0]:
        raise ValueError(f"a norm of width {norm_weight.shape[0]} got rows of {hidden.shape[-1]}")


def normalized_linear_reference(
    hidden: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    eps: float,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    phase: str = "encode",
) -> Tensor:
    """Reference implementation of `normalized_linear` in plain torch."""
    normed = normalize_reference(hidden, norm_weight, norm_bias, eps)
    return linear_reference(normed, weight, bias, activation=activation)


def normalized_linear_cpu(
    hidden: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    eps: float,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    phase: str = "encode",
) -> Tensor:
    """`normalized_linear` on the CPU: the norm, which has no version of its own there, then `linear_cpu`."""
    normed = normalize_reference(hidden, norm_weight, norm_bias, eps)
    return linear_cpu(normed, weight, bias, activation=activation, phase=phase)


def normalize_reference(hidden: Tensor, norm_weight: Tensor, norm_bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm of each row in plain torch; RMS norm where the bias is None."""
    if norm_bias is None:
        return rms_norm_reference(hidden, norm_weight, eps)  # type: ignore[return-value]
    return layer_norm_reference(hidden, norm_weight, norm_bias, eps)  # type: ignore[return-value]


def normalized_linear_triton(
    hidden: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    eps: float,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    phase: str = "encode",
) -> Tensor:
    """`normalized_linear` in one launch in decode steps of rows that are not too wide, in two otherwise.

    An encoding has so many blocks of columns that normalizing again for each would take longer than a launch.
    """
    (rows, width), outputs = hidden.shape, weight.shape[0]
    if phase != "decode" or width > WIDEST_NORM:
        normed = layer_norm_triton(hidden, norm_weight, norm_bias, eps)
        assert isinstance(normed, Tensor)
        return linear_triton(normed, weight, bias, activation=activation, phase=phase)
    form, code, floor = epilogue(activation)
    out = hidden.new_empty(rows, outputs)
    case = normalized_linear_kernel.case(hidden.device, form, hidden.dtype, alignment(width, outputs))
    tiles = case.block_count("BLOCK_M", rows) * case.block_count("BLOCK_N", outputs)
    tensors = hidden, norm_weight, norm_bias, weight, bias, out, None, None, None
    norm = True, norm_bias is not None
    case.launch((tiles,), *tensors, rows, outputs, width, 0, *norm, bias is not None, code, eps, floor)
    return out


_normalized_linear = Operation(
    normalized_linear_reference, cpu=normalized_linear_cpu, triton=normalized_linear_triton
)


@kernel(sizes=("N", "K"), outputs=("out_ptr", "keys_ptr", "values_ptr"))
def normalized_linear_kernel(
    hidden_ptr,  # [rows, K]
    norm_weight_ptr,  # [K]
    norm_bias_ptr,  # [K]
    weight_ptr,  # [N, K]; in the paged form [3 * N, K]: of queries, keys and values
    bias_ptr,  # [N] or [3 * N]
    out_ptr,  # [rows, N]
    keys_ptr,  # [positions, N]; this and the next two in the paged form only
    values_ptr,  # [positions, N]
    slots_ptr,  # [rows], cache positions
    rows: tl.int32,
    N: tl.int32,
    K: tl.int32,
    positions: tl.int32,  # number of cache positions
    normed: tl.int32,  # 0 or 1; always 1 but in the paged form
    centered: tl.int32,  # 1 for layer norm; 0 for RMS norm, without mean and bias
    has_bias: tl.int32,
    activation: tl.int32,  # its `code_of`, in the curved form
    eps: tl.float32,
    floor: tl.float32,  # in the plain form: 0 for ReLU, -inf without activation
    FORM: tl.constexpr,
    PRECISION: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_NORM: tl.constexpr,
):
    parts = 3 if FORM == "paged" else 1
    row_block, part, n = tile_of_part(rows, N, parts, GROUP, BLOCK_M, BLOCK_N)
    m = row_block * BLOCK_M + tl.arange(0, BLOCK_M)
    k = tl.arange(0, BLOCK_K)
    hidden_rows = hidden_ptr + m.to(tl.int64)[:, None] * K
    weight_rows = weight_ptr + (part * N + n).to(tl.int64)[None, :] * K

    mean, variance = row_moments(
        hidden_rows, (m < rows)[:, None], K, K * normed, centered, BLOCK_M, BLOCK_NORM
    )
    scale = tl.where(normed == 1, tl.rsqrt(variance + eps), 1.0)
    values = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        inside = start + k < K
        mask = (m < rows)[:, None] & inside[None, :]
        hidden = tl.load(hidden_rows + (start + k)[None, :], mask=mask, other=0.0)
        gain = tl.load(norm_weight_ptr + start + k, mask=start + k < K * normed, other=1.0).to(tl.float32)
        shift = tl.load(norm_bias_ptr + start + k, mask=start + k < K * normed * centered, other=0.0)
        normal = (hidden.to(tl.float32) - mean[:, None]) * scale[:, None]
        normal = normal * gain[None, :] + shift.to(tl.float32)[None, :]
        weight = tl.load(
            weight_rows + (start + k)[:, None], mask=(n < N)[None, :] & inside[:, None], other=0.0
        )
        values = tl.dot(normal.to(weight.dtype), weight, values, input_precision=PRECISION)

    bias = tl.load(bias_ptr + part * N + n, mask=n < N * has_bias, other=0.0)
    values += bias.to(tl.float32)[None, :]
    if FORM == "curved":
        values = activated(values, activation)
    if FORM == "plain":
        values = tl.where(values < floor, floor, values)
    values = values.to(out_ptr.dtype.element_ty)
    offsets = m.to(tl.int64)[:, None] * N + n[None, :]
    if FORM == "paged":
        columns = (n < N)[None, :]
        tl.store(out_ptr + offsets, values, mask=(m < tl.where(part == 0, rows, 0))[:, None] & columns)
        slot = tl.load(slots_ptr + m, mask=m < rows, other=-1)
        known = (slot >= 0)[:, None] & columns
        offsets = slot[:, None] * N + n[None, :]
        tl.store(keys_ptr + offsets, values, mask=(slot < tl.where(part == 1, positions, 0))[:, None] & known)
        tl.store(
            values_ptr + offsets, values, mask=(slot < tl.where(part == 2, positions, 0))[:, None] & known
        )
    else:
        tl.store(out_ptr + offsets, values, mask=(m < rows)[:, None] & (n < N)[None, :])


@triton.jit
def row_moments(hidden_rows, inside, width, read, centered, BLOCK_M: tl.constexpr, BLOCK: tl.constexpr):
    """Mean and variance of each row, in one pass over blocks of columns (Chan, Golub and LeVeque, 1979).

    Deviations are from the mean of their block, so that no digits cancel. `read` is `width`, or 0 to read
    nothing; without centering the mean is 0.
    """
    mean = tl.zeros((BLOCK_M,), tl.float32)
    squares = tl.zeros((BLOCK_M,), tl.float32)
    columns = tl.arange(0, BLOCK)
    for start in range(0, read, BLOCK):
        mask = inside & (start + columns < width)[None, :]
        block = tl.load(hidden_rows + (start + columns)[None, :], mask=mask, other=0.0).to(tl.float32)
        count = tl.minimum(width - start, BLOCK).to(tl.float32)
        block_mean = tl.where(centered == 1, tl.sum(block, 1) / count, 0.0)
        deviation = tl.where(mask, block - block_mean[:, None], 0.0)
        change, total = block_mean - mean, start + count
        squares += tl.sum(deviation * deviation, 1) + change * change * (count * start / total)
        mean += change * (count / total)
    return mean, squares / width


def _blocks(architecture: str, form: str, dtype: torch.dtype, sizes: str) -> dict[str, Any]:
    """Tile sizes and stages of one case: those of `linear` in decode steps, whose rows are few.

    Tiles are no wider, though each normalizes its rows: they spread a step's few rows over all processors.
    """
    wide = dtype == torch.float32
    inner = 16 if wide else 32 if sizes == "any" else 64
    return {
        "FORM": form,
        "BLOCK_M": 32,
        "BLOCK_N": 64,
        "BLOCK_K": min(inner, 32) if architecture == "gfx942" else inner,
        "BLOCK_NORM": 64,
        "num_warps": 8 if wide else 4,
        "num_stages": 2 if architecture == "gfx942" else 3,
    }


normalized_linear_kernel.declare_all(
    ("plain", "curved", "paged"),
    DTYPES,
    ALIGNMENTS,
    pointers={"slots_ptr": torch.int64},
    blocks=_blocks,
    GROUP=8,
)
