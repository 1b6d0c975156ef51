"""Linear layer: a GEMM with bias, activation or GLU, residual and clamp in its epilogue."""

import math
from collections.abc import Container
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import ALIGNMENTS, DTYPES, alignment, kernel
from ..runtime.optional_triton import tl, triton
from .activation import ACTIVATIONS, AT_RUN_TIME, CONSTANT_FORMS, activate, activated, code_of, gated
from .cpu import multiply

PHASES = ("encode", "decode")


def linear(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    limit: float | None = None,
    phase: str = "encode",
) -> Tensor:
    """Linear layer with its epilogue: `activation(hidden @ weight.T + bias) + residual`.

    A row's bits do not depend on the number of rows.

    Args:
        hidden: [rows, K].
        weight: [N, K], as in `torch.nn.Linear`.
        bias: [N].
        activation: one of `ACTIVATIONS`, or "glu", which multiplies the first half of the outputs by the
            sigmoid of the second.
        residual: [rows, N], added after the activation; with "glu" [rows, N / 2].
        limit: the result is clamped to -limit ... limit.
        phase: "encode" or "decode", for many rows or few. Sums may differ between the two in the last bit, so
            a caller keeps to one phase.

    Returns:
        [rows, N], in hidden's dtype; with "glu" [rows, N / 2].

    Raises:
        ValueError: shapes that do not fit, or an unknown activation or phase.
    """
    check_linear(hidden, weight, activation, phase)
    return _linear(hidden, weight, bias, activation=activation, residual=residual, limit=limit, phase=phase)


def check_linear(hidden: Tensor, weight: Tensor, activation: str | None, phase: str) -> None:
    """Validate the arguments of a linear layer. Raises ValueError as `linear` does."""
    if hidden.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"linear takes [rows, {weight.shape[1]}], got {list(hidden.shape)}")
    if activation is not None and activation != "glu" and activation not in ACTIVATIONS:
        known = ", ".join(sorted([*ACTIVATIONS, "glu"]))
        raise ValueError(f"unknown activation {activation!r}; one of {known}")
    if phase not in PHASES:
        raise ValueError(f"unknown phase {phase!r}; one of {', '.join(PHASES)}")
    if activation == "glu" and weight.shape[0] % 2:
        raise ValueError(f"glu halves the outputs; {weight.shape[0]} cannot be halved")


def linear_reference(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    limit: float | None = None,
    phase: str = "encode",
) -> Tensor:
    """Reference implementation of `linear` in plain torch."""
    out = F.linear(hidden, weight, bias)
    out = F.glu(out) if activation == "glu" else activate(out, activation)
    out = out if residual is None else residual + out
    return out if limit is None else out.clamp(-limit, limit)


def linear_cpu(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    limit: float | None = None,
    phase: str = "encode",
) -> Tensor:
    """Linear layer on the CPU: `multiply` by a weight that is packed once, then the rest of the epilogue."""
    out = multiply(hidden, weight, bias, None if activation == "glu" else activation, phase)
    if activation == "glu":
        out = gated(*out.chunk(2, dim=-1))
    out = out.contiguous() if residual is None else out.add_(residual).contiguous()
    return out if limit is None else out.clamp_(-limit, limit)


def linear_triton(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    limit: float | None = None,
    phase: str = "encode",
) -> Tensor:
    """Linear layer in one launch, whose epilogue works on the float32 accumulators."""
    rows, width = hidden.shape
    outputs = weight.shape[0] // 2 if activation == "glu" else weight.shape[0]
    out = hidden.new_empty(rows, outputs)
    sizes = alignment(width, outputs)
    large = phase == "encode" and sizes == "aligned" and hidden.dtype != torch.float32
    form, code, floor = epilogue(activation, CONSTANT_FORMS if large else ())
    case = linear_kernel.case(hidden.device, phase, form, hidden.dtype, sizes)
    tiles = case.block_count("BLOCK_M", rows) * case.block_count("BLOCK_N", outputs)
    terms = bias is not None, residual is not None
    limit = math.inf if limit is None else limit
    tensors = hidden, weight, bias, residual, out
    case.launch((tiles,), *tensors, rows, outputs, width, *terms, code, floor, limit)
    return out


def linear_parts_triton(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, parts: int, phase: str
) -> Tensor:
    """Linear layer whose outputs are divided into equal parts: [parts, rows, N / parts], in one launch."""
    (rows, width), outputs = hidden.shape, weight.shape[0] // parts
    out = hidden.new_empty(parts, rows, outputs)
    case = linear_kernel.case(hidden.device, phase, "parts", hidden.dtype, alignment(width, outputs))
    tiles = case.block_count("BLOCK_M", rows) * case.block_count("BLOCK_N", outputs) * parts
    numbers = rows, outputs, width, bias is not None, False, 0, -math.inf, math.inf
    case.launch((tiles,), hidden, weight, bias, None, out, *numbers)
    return out


_linear = Operation(linear_reference, cpu=linear_cpu, triton=linear_triton)


def epilogue(activation: str | None, constant: Container[str] = ()) -> tuple[str, int, float]:
    """Epilogue of a GEMM kernel: its form, the activation's `code_of`, and the lower bound of the plain form.

    The plain form serves ReLU and no activation; each of `constant`, forms in `CONSTANT_FORMS`, serves its
    own activation; the curved form serves the others, except GLU, by a branch at run time.
    """
    form, code, floor = _EPILOGUES[activation]
    return (form if form in constant else "curved" if form in CONSTANT_FORMS else form), code, floor


def _epilogue(activation: str | None) -> tuple[str, int, float]:
    if activation in (None, "relu"):
        return "plain", code_of(activation), 0.0 if activation == "relu" else -math.inf
    code = code_of(activation)
    form = next((form for form, constant in CONSTANT_FORMS.items() if constant == code), "curved")
    return form, code, -math.inf


_EPILOGUES = {name: _epilogue(name) for name in (None, *ACTIVATIONS)} | {"glu": ("glu", 0, -math.inf)}


@triton.jit
def tile_of_program(rows, N, GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Row block and column block of this program.

    GROUP row blocks go through all columns together: neighbors share weights and rows in the L2 cache.
    """
    row_blocks, column_blocks = tl.cdiv(rows, BLOCK_M), tl.cdiv(N, BLOCK_N)
    in_group = GROUP * column_blocks
    first_block = tl.program_id(0) // in_group * GROUP
    group_size = tl.minimum(row_blocks - first_block, GROUP)
    index = tl.program_id(0) % in_group
    return first_block + index % group_size, index // group_size


@triton.jit
def tile_of_part(rows, N, parts, GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Row block of this program, its part of the outputs, and its columns within the part.

    No tile reaches over the end of its part.
    """
    blocks = tl.cdiv(N, BLOCK_N)
    row_block, block = tile_of_program(rows, blocks * parts * BLOCK_N, GROUP, BLOCK_M, BLOCK_N)
    part = block // blocks
    return row_block, part, (block - part * blocks) * BLOCK_N + tl.arange(0, BLOCK_N)


@triton.jit
def add_residual(values, pointers, m, n, rows, N, has_residual, BRANCH: tl.constexpr):
    """Values of rows `m` and columns `n` plus the residual, where there is one, and their mask.

    It branches or masks, as takes fewer registers: beside a constant activation a branch leaves room for two
    programs a processor, and in the plain form of the widest tiles it would cost the second one.
    """
    inside = (m < rows)[:, None] & (n < N)[None, :]
    if BRANCH:
        if has_residual == 1:
            values += tl.load(pointers, mask=inside, other=0.0).to(tl.float32)
    else:
        mask = (m < rows * has_residual)[:, None] & (n < N)[None, :]
        values += tl.load(pointers, mask=mask, other=0.0).to(tl.float32)
    return values, inside


@kernel(sizes=("N", "K"))
def linear_kernel(
    hidden_ptr,  # [rows, K]
    weight_ptr,  # [parts * N, K], with GLU [2 * N, K]: values, then gates
    bias_ptr,  # [parts * N] or [2 * N]
    residual_ptr,  # [rows, N]; not in the parts form, which has no activation and no limit either
    out_ptr,  # [parts, rows, N]
    rows: tl.int32,
    N: tl.int32,
    K: tl.int32,
    has_bias: tl.int32,  # 0 or 1, as the next one
    has_residual: tl.int32,
    activation: tl.int32,  # its `code_of`, in the curved form
    floor: tl.float32,  # in the plain form: 0 for ReLU, -inf without activation
    limit: tl.float32,  # inf for none
    FORM: tl.constexpr,
    ACTIVATION: tl.constexpr,  # in the curved form: its `code_of`, or AT_RUN_TIME for the argument's
    PRECISION: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    if FORM == "parts":
        # From the grid: as an argument it would cost the other forms registers, and every second program.
        parts = tl.num_programs(0) // (tl.cdiv(rows, BLOCK_M) * tl.cdiv(N, BLOCK_N))
        row_block, part, n = tile_of_part(rows, N, parts, GROUP, BLOCK_M, BLOCK_N)
        weight_ptr += part * N.to(tl.int64) * K
        bias_ptr += part * N
        out_ptr += part * rows.to(tl.int64) * N
    else:
        row_block, column_block = tile_of_program(rows, N, GROUP, BLOCK_M, BLOCK_N)
        n = column_block * BLOCK_N + tl.arange(0, BLOCK_N)
    m = row_block * BLOCK_M + tl.arange(0, BLOCK_M)
    k = tl.arange(0, BLOCK_K)

    hidden_rows = hidden_ptr + m.to(tl.int64)[:, None] * K
    weight_rows = weight_ptr + n.to(tl.int64)[None, :] * K
    values = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)  # accumulators and epilogue are float32
    gates = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        inside = start + k < K
        hidden = tl.load(
            hidden_rows + (start + k)[None, :], mask=(m < rows)[:, None] & inside[None, :], other=0.0
        )
        columns = weight_rows + (start + k)[:, None]
        mask = (n < N)[None, :] & inside[:, None]
        values = tl.dot(hidden, tl.load(columns, mask=mask, other=0.0), values, input_precision=PRECISION)
        if FORM == "glu":
            gate = tl.load(columns + N.to(tl.int64) * K, mask=mask, other=0.0)
            gates = tl.dot(hidden, gate, gates, input_precision=PRECISION)

    with_bias = n < N * has_bias
    values += tl.load(bias_ptr + n, mask=with_bias, other=0.0).to(tl.float32)[None, :]
    if FORM == "glu":
        gates += tl.load(bias_ptr + N + n, mask=with_bias, other=0.0).to(tl.float32)[None, :]
        values = values * tl.sigmoid(gates)
    elif FORM == "curved":
        values = activated(values, activation if ACTIVATION < 0 else ACTIVATION)
    elif FORM == "plain":
        values = tl.where(values < floor, floor, values)
    offsets = m.to(tl.int64)[:, None] * N + n[None, :]
    mask = (m < rows)[:, None] & (n < N)[None, :]
    if FORM != "parts":
        pointers = residual_ptr + offsets
        values, mask = add_residual(values, pointers, m, n, rows, N, has_residual, ACTIVATION >= 0)
        values = tl.where(values > limit, limit, tl.where(values < -limit, -limit, values))  # NaN stays NaN
    tl.store(out_ptr + offsets, values.to(out_ptr.dtype.element_ty), mask=mask)


def _blocks(architecture: str, phase: str, form: str, dtype: torch.dtype, sizes: str) -> dict[str, Any]:
    """Tile sizes, warps and pipeline stages of one compiled case.

    An encoding has enough rows for the largest tiles; a decode step has few, spread by small tiles. GLU has
    two accumulators in the registers of one, so its tiles are half as large. Unaligned rows are read one
    element at a time, with a register for every address.
    """
    small = phase == "decode" or dtype == torch.float32
    rows, outputs, inner = (32, 64, 64) if small else (128, 64 if form == "glu" else 128, 64)
    if dtype == torch.float32:
        inner = 32
    if sizes == "any":
        rows, outputs, inner = min(rows, 64), 32 if form == "glu" else 64, 16 if form == "glu" else 32
    return {
        "FORM": "curved" if form in CONSTANT_FORMS else form,
        "ACTIVATION": CONSTANT_FORMS.get(form, AT_RUN_TIME),
        "BLOCK_M": rows,
        "BLOCK_N": outputs,
        "BLOCK_K": min(inner, 32) if architecture == "gfx942" else inner,
        "num_warps": 8 if rows == 128 else 4,
        "num_stages": 2 if architecture == "gfx942" else 3,
    }


linear_kernel.declare_all(
    PHASES, ("plain", "curved", "glu", "parts"), DTYPES, ALIGNMENTS, blocks=_blocks, GROUP=8
)
linear_kernel.declare_all(
    ("encode",), CONSTANT_FORMS, (torch.float16, torch.bfloat16), ("aligned",), blocks=_blocks, GROUP=8
)
