"""GEMM whose rows are windows of longer rows of numbers and are read where they lie: a convolution."""

import math
from itertools import product

import torch
from torch import Tensor

from ..linear.activation import activated, code_of
from ..runtime.launch import ARCHITECTURES, DTYPES, kernel, precision, ready
from ..runtime.optional_triton import tl, triton


def window_product(
    hidden: Tensor,
    first: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """`activation(windows @ weight.T + bias) + residual` for each group of channels, in one launch.

    Args:
        hidden: [groups, positions, C], on a GPU.
        first: int32 [rows], the position where each row's window begins; all of it lies inside.
        weight: [groups, N, K]; a window is K numbers, position after position.
        bias: [groups * N], or None.
        activation: one of `ACTIVATIONS`, or None.
        residual: [rows, groups * N], added after the activation.

    Returns:
        [rows, groups * N], each group's outputs side by side.
    """
    groups, positions, channels = hidden.shape
    _, outputs, width = weight.shape
    rows = first.numel()
    out = hidden.new_empty(rows, groups * outputs)
    aligned = all(size % 16 == 0 for size in (channels, outputs, width))
    case = window_product_kernel.case(
        hidden.device,
        "plain" if activation in (None, "relu") else "curved",
        hidden.dtype,
        "aligned" if aligned else "any",
        "wide" if aligned and hidden.dtype != torch.float32 and outputs > 64 else "narrow",
    )
    tiles = triton.cdiv(rows, case.constant("BLOCK_M")) * triton.cdiv(outputs, case.constant("BLOCK_N"))
    case.launch(
        (tiles, groups),
        ready(hidden),
        ready(first),
        ready(weight),
        out if bias is None else ready(bias),
        out if residual is None else ready(residual),
        out,
        rows,
        outputs,
        width,
        channels,
        positions,
        int(bias is not None),
        int(residual is not None),
        code_of(activation),
        0.0 if activation == "relu" else -math.inf,
    )
    return out


def window_starts(begin: Tensor, cu_out: Tensor, rows: int, stride: int) -> Tensor:
    """int32 [rows]: where each output's window begins, from where each utterance's first one does."""
    utterance = torch.repeat_interleave(cu_out.diff(), output_size=rows)
    place = torch.arange(rows, dtype=torch.int32, device=cu_out.device) - cu_out[utterance]
    return begin[utterance] + place * stride


@kernel(sizes=("N", "K", "channels"))
def window_product_kernel(
    hidden_ptr,  # [groups, positions, channels]
    first_ptr,  # int32 [rows]
    weight_ptr,  # [groups, N, K]
    bias_ptr,  # [groups * N]
    residual_ptr,  # [rows, groups * N]
    out_ptr,  # [rows, groups * N]
    rows: tl.int32,
    N: tl.int32,
    K: tl.int32,
    channels: tl.int32,
    positions: tl.int32,
    has_bias: tl.int32,  # 0 or 1, as the next one
    has_residual: tl.int32,
    activation: tl.int32,  # its `code_of`, in the curved form
    floor: tl.float32,  # in the plain form: 0 for ReLU, -inf for nothing
    FORM: tl.constexpr,
    PRECISION: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # So that neighbors share weights and rows in the L2, GROUP row blocks go through all columns together.
    row_blocks, column_blocks = tl.cdiv(rows, BLOCK_M), tl.cdiv(N, BLOCK_N)
    in_group = GROUP * column_blocks
    first_block = tl.program_id(0) // in_group * GROUP
    group_size = tl.minimum(row_blocks - first_block, GROUP)
    place = tl.program_id(0) % in_group
    m = (first_block + place % group_size) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = (place // group_size) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)

    group, groups = tl.program_id(1), tl.num_programs(1)
    first = group.to(tl.int64) * positions + tl.load(first_ptr + m, mask=m < rows, other=0)
    window_rows = hidden_ptr + first[:, None] * channels
    weight_rows = weight_ptr + (group.to(tl.int64) * N + n)[None, :] * K
    values = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        inside = start + k < K
        window = tl.load(
            window_rows + (start + k)[None, :], mask=(m < rows)[:, None] & inside[None, :], other=0.0
        )
        there = (n < N)[None, :] & inside[:, None]
        weight = tl.load(weight_rows + (start + k)[:, None], mask=there, other=0.0)
        values = tl.dot(window, weight, values, input_precision=PRECISION)

    columns = group * N + n
    values += tl.load(bias_ptr + columns, mask=n < N * has_bias, other=0.0).to(tl.float32)[None, :]
    if FORM == "curved":
        values = activated(values, activation)
    if FORM == "plain":
        values = tl.where(values < floor, floor, values)  # keeps NaN
    places = m.to(tl.int64)[:, None] * (groups * N) + columns[None, :]
    with_residual = (m < rows * has_residual)[:, None] & (n < N)[None, :]
    values += tl.load(residual_ptr + places, mask=with_residual, other=0.0).to(tl.float32)
    tl.store(
        out_ptr + places,
        values.to(out_ptr.dtype.element_ty),
        mask=(m < rows)[:, None] & (n < N)[None, :],
    )


def _declare() -> None:
    pointers = ("hidden_ptr", "weight_ptr", "bias_ptr", "residual_ptr", "out_ptr")
    choices = product(ARCHITECTURES, ("plain", "curved"), DTYPES, ("aligned", "any"), ("wide", "narrow"))
    for architecture, form, dtype, alignment, tile in choices:
        if tile == "wide" and (alignment == "any" or dtype == torch.float32):
            continue
        window_product_kernel.declare(
            form,
            dtype,
            alignment,
            tile,
            architecture=architecture,
            pointers=dict.fromkeys(pointers, dtype) | {"first_ptr": torch.int32},
            aligned=alignment == "aligned",
            FORM=form,
            PRECISION=precision(dtype),
            GROUP=8,
            **_blocks(architecture, dtype, alignment, tile),
        )


def _blocks(architecture: str, dtype: torch.dtype, alignment: str, tile: str) -> dict[str, int]:
    """Tile, warps and stages. Groups of the positional convolution have 48 or 64 outputs; rows that are not
    aligned are read a number at a time, which takes a register for every address."""
    rows, outputs, inner = (128, 128 if tile == "wide" else 64, 64)
    if dtype == torch.float32:
        rows, outputs, inner = 32, 64, 32
    if alignment == "any":
        rows, outputs, inner = min(rows, 64), 64, 32
    return {
        "BLOCK_M": rows,
        "BLOCK_N": outputs,
        "BLOCK_K": min(inner, 32) if architecture == "gfx942" else inner,
        "num_warps": 8 if rows == 128 else 4,
        "num_stages": 2 if architecture == "gfx942" else 3,
    }


_declare()
