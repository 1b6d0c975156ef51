"""GEMM on the CPU with weights laid out once, by oneDNN.

On AMD's processors MKL leaves AVX-512 alone: one core of a Zen 5 multiplied 1,024 x 256 by 256 x 2,048 at
94 GFLOP/s in float32 through `F.linear`, and at 231 through oneDNN.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.weight_cache import cached
from .activation import activate_, post_operation

# A single row of a long sum has other bits than any more rows; MKL's change up to 11 rows.
LEAST = 16
# oneDNN compiles code for every number of rows and keeps the last 1,024: a few sizes keep memory flat, and
# spare the 0.3 ms. Larger calls than this are cut up.
_MOST = 1024
# Intel's matrix tiles (AMX) multiply bfloat16, where oneDNN cuts a long sum depends on the number of rows.
# So every product there has so many rows: 128 run at 0.9 of the speed of 1,024, and a decode step has few.
_TILED_ROWS = {"encode": 128, "decode": 64}


def multiply(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None = None,
    phase: str = "encode",
) -> Tensor:
    """`activation(hidden @ weight.T + bias)`; a row's bits do not depend on the number of rows.

    Args:
        hidden: [rows, K].
        weight: [N, K]; kept laid out while it lives, see `cached`.
        bias: [N].
        activation: one of `ACTIVATIONS`.
        phase: as in `linear`: bits may differ between the two.

    Returns:
        [rows, N], a fresh tensor or the first rows of one.
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
    """`multiply` with a weight that `layout` made."""
    rows, outputs = hidden.shape[0], weight.shape[0]
    fixed = _TILED_ROWS[phase] if in_tiles(hidden.dtype) else None
    most = fixed or _MOST
    if rows > most:
        out = hidden.new_empty(rows, outputs)
        for part, place in zip(hidden.split(most), out.split(most), strict=True):
            place.copy_(_multiply(part, weight, bias, activation, phase))
        return out
    padded = fixed or padded_rows(rows)
    if padded == rows:
        return _product(hidden, weight, bias, activation)
    whole = rows - rows % _STEP
    if fixed or hidden.shape[1] <= outputs or not whole:
        return _product(F.pad(hidden, (0, 0, 0, padded - rows)), weight, bias, activation)[:rows]
    # The inputs are what would take long to copy.
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
    """How many rows a product of `rows` is made of."""
    step = LEAST if rows <= 8 * LEAST else _STEP
    return max(LEAST, -(-rows // step) * step)


def one_dnn(
    hidden: Tensor, weight: Tensor, bias: Tensor | None = None, post: tuple[str, str] = ("none", "")
) -> Tensor:
    """`hidden @ weight.T + bias` by oneDNN, for types that it `packs`; `weight` laid out or contiguous.

    Args:
        post: see `post_operation`; done on registers.
    """
    name, algorithm = post
    return torch.ops.mkldnn._linear_pointwise(hidden, weight, bias, name, [], algorithm)


def layout(weight: Tensor) -> Tensor:
    """`weight` [N, K] as the processor reads it fastest, with zeros for outputs up to `LEAST`."""
    return torch.ops.mkldnn._reorder_linear_weight(_widened(weight.detach()).contiguous())


def _widened(weight: Tensor) -> Tensor:
    """`weight` [N, ...] with zeros up to `LEAST` outputs: of fewer, a row's sum does not keep its order."""
    missing = LEAST - weight.shape[0]
    return weight if missing <= 0 else F.pad(weight, (0, 0) * (weight.dim() - 1) + (0, missing))


@cache
def packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies this type here; float16 needs instructions that few processors have."""
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


@cache
def in_tiles(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies this type by the processor's matrix tiles."""
    return dtype == torch.bfloat16 and packs(dtype) and torch.cpu._is_amx_tile_supported()
