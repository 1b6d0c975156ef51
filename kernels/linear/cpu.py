"""Linear layer on the CPU: oneDNN's GEMM with a weight that is packed once.

MKL does not use AVX-512 on AMD's processors: one core of a Zen 5 multiplies 1,024 x 256 by 256 x 2,048 at
94 GFLOP/s in float32 through `F.linear`, and at 231 through oneDNN.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.weight_cache import cached
from .activation import activate_, post_operation

# A row's bits differ between products of one row and of more, with MKL up to 11 rows. So products are padded.
MIN_ROWS = 16
# oneDNN compiles code for every number of rows, in 0.3 ms, and caches the last 1,024. Few different numbers
# keep memory flat and save that time; larger calls than this are split, and their results copied. Whisper's
# 1,500 rows are one product.
MAX_ROWS = 2048
# Where Intel's matrix tiles (AMX) multiply bfloat16, oneDNN splits a long sum by the number of rows. So all
# products there have the same number of rows: 128 run at 0.9 of the speed of 1,024; a decode step has few.
_TILED_ROWS = {"encode": 128, "decode": 64}


def multiply(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None = None,
    phase: str = "encode",
) -> Tensor:
    """Linear layer and activation, `activation(hidden @ weight.T + bias)`, on the CPU.

    A row's bits do not depend on the number of rows.

    Args:
        hidden: [rows, K].
        weight: [N, K]; packed once and cached as long as it lives.
        bias: [N].
        activation: one of `ACTIVATIONS`.
        phase: "encode" or "decode"; bits may differ between the two.

    Returns:
        [rows, N], a new tensor or a view of one.
    """
    if packs(weight.dtype) and hidden.dtype == weight.dtype:
        packed = cached(layout, weight)
    else:
        packed = _widened(weight)
    outputs = weight.shape[0]
    if outputs == packed.shape[0]:
        return _multiply(hidden, packed, bias, activation, phase)
    bias = None if bias is None else _widened(bias)
    return _multiply(hidden, packed, bias, activation, phase)[:, :outputs]


def _multiply(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, phase: str
) -> Tensor:
    """Multiply by a packed or padded weight, in products whose numbers of rows are padded."""
    rows, outputs = hidden.shape[0], weight.shape[0]
    fixed = _TILED_ROWS[phase] if in_tiles(hidden.dtype) else None
    limit = fixed or MAX_ROWS
    if rows > limit:
        out = hidden.new_empty(rows, outputs)
        for part, result in zip(hidden.split(limit), out.split(limit), strict=True):
            result.copy_(_multiply(part, weight, bias, activation, phase))
        return out
    padded = fixed or padded_rows(rows)
    if padded == rows:
        return _product(hidden, weight, bias, activation)
    whole = rows - rows % _STEP
    if fixed or hidden.shape[1] <= outputs or not whole:
        return _product(F.pad(hidden, (0, 0, 0, padded - rows)), weight, bias, activation)[:rows]
    # The inputs are the larger tensor, so pad only their last rows.
    rest = F.pad(hidden[whole:], (0, 0, 0, _STEP - rows + whole))
    last = _product(rest, weight, bias, activation)[: rows - whole]
    return torch.cat([_product(hidden[:whole], weight, bias, activation), last])


def _product(hidden: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    post = post_operation(activation) if weight.is_mkldnn else None
    if post is not None:
        return one_dnn(hidden, weight, bias, post)
    run = one_dnn if weight.is_mkldnn else F.linear
    return activate_(run(hidden, weight, bias), activation)


_STEP = 32


def padded_rows(rows: int) -> int:
    """Number of rows that a product of `rows` is padded to."""
    step = MIN_ROWS if rows <= 8 * MIN_ROWS else _STEP
    return max(MIN_ROWS, -(-rows // step) * step)


def one_dnn(
    hidden: Tensor, weight: Tensor, bias: Tensor | None = None, post: tuple[str, str] = ("none", "")
) -> Tensor:
    """Linear layer by oneDNN, `post(hidden @ weight.T + bias)`, for dtypes that it `packs`.

    Args:
        weight: packed by `layout`, or contiguous.
        post: activation fused into the GEMM, from `post_operation`.
    """
    name, algorithm = post
    return torch.ops.mkldnn._linear_pointwise(hidden, weight, bias, name, [], algorithm)


def layout(weight: Tensor) -> Tensor:
    """Weight [N, K] packed in oneDNN's order for this processor, padded to at least `MIN_ROWS` outputs."""
    return torch.ops.mkldnn._reorder_linear_weight(_widened(weight.detach()).contiguous())


def _widened(weight: Tensor) -> Tensor:
    """Weight or bias [N, ...] padded with zeros to `MIN_ROWS` outputs: for fewer, MKL sums differently."""
    missing = MIN_ROWS - weight.shape[0]
    return weight if missing <= 0 else F.pad(weight, (0, 0) * (weight.dim() - 1) + (0, missing))


@cache
def packs(dtype: torch.dtype) -> bool:
    """True if oneDNN multiplies this dtype on this processor; few have the instructions for float16."""
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


@cache
def in_tiles(dtype: torch.dtype) -> bool:
    """True if oneDNN multiplies this dtype on the processor's matrix tiles (AMX)."""
    return dtype == torch.bfloat16 and packs(dtype) and torch.cpu._is_amx_tile_supported()
