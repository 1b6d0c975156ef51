"""Implicit GEMM: a convolution as a matrix product that reads each window where it lies in memory."""

from typing import Any

import torch
from torch import Tensor

from ..linear.activation import AT_RUN_TIME, CONSTANT_FORMS, activated
from ..linear.gemm import add_residual, epilogue, tile_of_program
from ..runtime.launch import ALIGNMENTS, DTYPES, alignment, kernel
from ..runtime.optional_triton import tl

_CONSTANT = ("gelu",)  # of `CONSTANT_FORMS`, which speech encoders apply to their convolutions


def implicit_gemm(
    hidden: Tensor,
    first: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Grouped convolution in one launch: `activation(windows @ weight.T + bias) + residual` of each group.

    Args:
        hidden: [groups, positions, C], on a GPU.
        first: int32 [rows], the position where each row's window begins; the window must end inside `hidden`.
        weight: [groups, N, K]; a window is K contiguous elements, position after position.
        bias: [groups * N], or None.
        activation: one of `ACTIVATIONS`, or None.
        residual: [rows, groups * N], added after the activation.

    Returns:
        [rows, groups * N], the outputs of the groups side by side.
    """
    groups, positions, channels = hidden.shape
    _, outputs, width = weight.shape
    rows = first.numel()
    out = hidden.new_empty(rows, groups * outputs)
    sizes = alignment(channels, outputs, width)
    large = sizes == "aligned" and hidden.dtype != torch.float32
    form, code, floor = epilogue(activation, _CONSTANT if large else ())
    tile = "wide" if large and outputs > 64 else "narrow"
    case = implicit_gemm_kernel.case(hidden.device, form, hidden.dtype, sizes, tile)
    tiles = case.block_count("BLOCK_M", rows) * case.block_count("BLOCK_N", outputs)
    tensors = hidden, first, weight, bias, residual, out
    terms = bias is not None, residual is not None
    case.launch((tiles, groups), *tensors, rows, outputs, width, channels, positions, *terms, code, floor)
    return out


def window_starts(begin: Tensor, cu_out: Tensor, rows: int, stride: int) -> Tensor:
    """Position where each output's window begins: int32 [rows].

    Args:
        begin: int32 [n], first position of each utterance's first window.
        cu_out: int32 [n + 1], offsets of the outputs.
        rows: total number of outputs.
        stride: positions from one window to the next.
    """
    utterance = torch.repeat_interleave(cu_out.diff(), output_size=rows)
    index = torch.arange(rows, dtype=torch.int32, device=cu_out.device) - cu_out[utterance]
    return begin[utterance] + index * stride


@kernel(sizes=("N", "K", "channels"))
def implicit_gemm_kernel(
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
    floor: tl.float32,  # in the plain form: 0 for ReLU, -inf without activation
    FORM: tl.constexpr,
    ACTIVATION: tl.constexpr,  # in the curved form: its `code_of`, or AT_RUN_TIME for the argument's
    PRECISION: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row_block, column_block = tile_of_program(rows, N, GROUP, BLOCK_M, BLOCK_N)
    m = row_block * BLOCK_M + tl.arange(0, BLOCK_M)
    n = column_block * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)

    group, groups = tl.program_id(1), tl.num_programs(1)
    first = group.to(tl.int64) * positions + tl.load(first_ptr + m, mask=m < rows, other=0)
    window_rows = hidden_ptr + first[:, None] * channels
    weight_rows = weight_ptr + (group.to(tl.int64) * N + n)[None, :] * K
    values = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)  # the accumulator and the epilogue are float32
    for start in range(0, K, BLOCK_K):
        inside = start + k < K
        window = tl.load(
            window_rows + (start + k)[None, :], mask=(m < rows)[:, None] & inside[None, :], other=0.0
        )
        mask = (n < N)[None, :] & inside[:, None]
        weight = tl.load(weight_rows + (start + k)[:, None], mask=mask, other=0.0)
        values = tl.dot(window, weight, values, input_precision=PRECISION)

    columns = group * N + n
    values += tl.load(bias_ptr + columns, mask=n < N * has_bias, other=0.0).to(tl.float32)[None, :]
    if FORM == "curved":
        values = activated(values, activation if ACTIVATION < 0 else ACTIVATION)
    if FORM == "plain":
        values = tl.where(values < floor, floor, values)  # NaN stays NaN
    offsets = m.to(tl.int64)[:, None] * (groups * N) + columns[None, :]
    pointers = residual_ptr + offsets
    values, mask = add_residual(values, pointers, m, n, rows, N, has_residual, ACTIVATION >= 0)
    tl.store(out_ptr + offsets, values.to(out_ptr.dtype.element_ty), mask=mask)


def _blocks(architecture: str, form: str, dtype: torch.dtype, sizes: str, tile: str) -> dict[str, Any]:
    """Tile sizes, warps and pipeline stages of one compiled case.

    Narrow tiles serve the positional convolution, whose groups have 48 or 64 outputs. Unaligned rows are
    read one element at a time, with a register for every address.
    """
    rows, outputs, inner = (128, 128 if tile == "wide" else 64, 64)
    if dtype == torch.float32:
        rows, outputs, inner = 32, 64, 32
    if sizes == "any":
        rows, outputs, inner = min(rows, 64), 64, 32
    return {
        "FORM": "curved" if form in CONSTANT_FORMS else form,
        "ACTIVATION": CONSTANT_FORMS.get(form, AT_RUN_TIME),
        "BLOCK_M": rows,
        "BLOCK_N": outputs,
        "BLOCK_K": min(inner, 32) if architecture == "gfx942" else inner,
        "num_warps": 8 if rows == 128 else 4,
        "num_stages": 2 if architecture == "gfx942" else 3,
    }


_HALF = (torch.float16, torch.bfloat16)
for _forms, _dtypes, _sizes, _tiles in (
    (("plain", "curved"), DTYPES, ALIGNMENTS, ("narrow",)),
    (("plain", "curved"), _HALF, ("aligned",), ("wide",)),
    (_CONSTANT, _HALF, ("aligned",), ("narrow", "wide")),
):
    implicit_gemm_kernel.declare_all(
        _forms,
        _dtypes,
        _sizes,
        _tiles,
        pointers={"first_ptr": torch.int32},
        blocks=_blocks,
        GROUP=8,
    )
