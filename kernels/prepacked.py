"""GEMM on the CPU with weights laid out once, by oneDNN.

On AMD's processors MKL leaves AVX-512 alone: one core of a Zen 5 multiplied 1,024 x 256 by 256 x 2,048 at
94 GFLOP/s in float32 through `F.linear`, and at 231 through oneDNN.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .derived import kept

# A single row of a long sum has other bits than any more rows; MKL's change up to 11 rows.
LEAST = 16
# oneDNN compiles code for every number of rows and keeps the last 1,024: a few sizes keep memory flat, and
# spare the 0.3 ms. Larger calls than this are cut up.
_MOST = 1024


def multiply(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`hidden @ weight.T + bias`; a row's bits do not depend on the number of rows.

    Args:
        hidden: [rows, K].
        weight: [N, K], N at least `LEAST`; kept laid out while it lives, see `kept`.
        bias: [N].

    Returns:
        [rows, N], a fresh tensor or the first rows of one.
    """
    packed = packed_weight(weight) if packs(weight.dtype) and hidden.dtype == weight.dtype else None
    return multiply_packed(hidden, weight if packed is None else packed, bias)


def multiply_packed(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`multiply` with a weight that `layout` made."""
    rows = hidden.shape[0]
    if rows > _MOST:
        return torch.cat([multiply_packed(part, weight, bias) for part in hidden.split(_MOST)])
    run = one_dnn if weight.is_mkldnn else F.linear
    padded = padded_rows(rows)
    if padded == rows:
        return run(hidden, weight, bias)
    whole = rows - rows % _STEP
    if hidden.shape[1] <= weight.shape[0] or not whole:
        return run(F.pad(hidden, (0, 0, 0, padded - rows)), weight, bias)[:rows]
    # The inputs are what would take long to copy.
    rest = F.pad(hidden[whole:], (0, 0, 0, _STEP - rows + whole))
    return torch.cat([run(hidden[:whole], weight, bias), run(rest, weight, bias)[: rows - whole]])


_STEP = 32


def padded_rows(rows: int) -> int:
    """How many rows a product of `rows` is made of."""
    step = LEAST if rows <= 8 * LEAST else _STEP
    return max(LEAST, -(-rows // step) * step)


def one_dnn(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`hidden @ weight.T + bias` by oneDNN, for types that it `packs`; `weight` laid out or contiguous."""
    # Not with its own ReLU, which turns NaN into 0.
    return torch.ops.mkldnn._linear_pointwise(hidden, weight, bias, "none", [], "")


def packed_weight(weight: Tensor) -> Tensor:
    """`layout(weight)`, kept while the weight lives and is not changed."""
    return kept(weight, layout)


def layout(weight: Tensor) -> Tensor:
    """`weight` [N, K] as the processor reads it fastest; itself where there is no such layout."""
    if not packs(weight.dtype):
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())


@cache
def packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies this type here; float16 needs instructions that few processors have."""
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32
