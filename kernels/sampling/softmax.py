"""Log-softmax over the vocabulary, and its online sums (arXiv 1805.02867), which other kernels share."""

from typing import Any

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import ALIGNMENTS, DTYPES, Kernel, alignment, kernel
from ..runtime.optional_triton import tl, triton

# A pass over a row goes by blocks of this size, with 8 warps: 8 elements a thread, two vectors of 16 bytes.
# There are many rows, so each has one program, and the order of its sums does not depend on the launch.
ROW_BLOCK = 2048
ROW_WARPS = 8


def log_softmax(scores: Tensor) -> Tensor:
    """Log-softmax of each row over the vocabulary.

    Args:
        scores: [rows, vocabulary].

    Returns:
        float32 [rows, vocabulary].
    """
    return _log_softmax(scores)


def log_softmax_reference(scores: Tensor) -> Tensor:
    """Reference implementation of `log_softmax` in plain torch, in float32 at least."""
    return (scores if scores.dtype == torch.float64 else scores.float()).log_softmax(-1)


def log_softmax_triton(scores: Tensor) -> Tensor:
    """Log-softmax in one launch: a pass for the sums and a pass that writes."""
    rows, vocabulary = scores.shape
    out = torch.empty(rows, vocabulary, dtype=torch.float32, device=scores.device)
    case = log_softmax_kernel.case(scores.device, scores.dtype, alignment(vocabulary))
    case.launch((rows,), scores, out, vocabulary)
    return out


_log_softmax = Operation(log_softmax_reference, triton=log_softmax_triton)


@kernel(sizes=("N",))
def log_softmax_kernel(
    scores_ptr,  # [rows, N]
    out_ptr,  # [rows, N]
    N: tl.int32,
    BLOCK: tl.constexpr,
):
    base = tl.program_id(0).to(tl.int64) * N
    peak, spread = row_sums(scores_ptr + base, N, BLOCK)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(scores_ptr + base + n, mask=n < N).to(tl.float32)
        tl.store(out_ptr + base + n, values - peak - spread, mask=n < N)


@triton.jit
def row_sums(row_ptr, N, BLOCK: tl.constexpr):
    """Maximum of a row and log of its sum of exp(value - maximum), both float32."""
    peaks, sums = no_sums(BLOCK)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(row_ptr + n, mask=n < N, other=float("-inf")).to(tl.float32)
        peaks, sums = with_values(peaks, sums, values)
    return total_sums(peaks, sums)


@triton.jit
def no_sums(BLOCK: tl.constexpr):
    """Initial maximum and sum of exp(value - maximum) of each lane, before the first block; float32."""
    return tl.full((BLOCK,), float("-inf"), tl.float32), tl.zeros((BLOCK,), tl.float32)


@triton.jit
def with_values(peaks, sums, values):
    """Update each lane's maximum and sum with one more block; merging lanes once, at the end, is faster."""
    highest = tl.maximum(peaks, values)
    anchor = tl.where(highest == float("-inf"), 0.0, highest)  # -inf - -inf would be NaN
    return highest, sums * tl.exp(peaks - anchor) + tl.exp(values - anchor)


@triton.jit
def total_sums(peaks, sums):
    """Maximum of a row and log of its sum, merged from those of the lanes."""
    peak = tl.max(peaks, axis=0)
    anchor = tl.where(peak == float("-inf"), 0.0, peak)
    return peak, tl.log(tl.sum(sums * tl.exp(peaks - anchor), axis=0))


def declare_for_rows(declared: Kernel, pointers: dict[str, torch.dtype], **constants: Any) -> None:
    """Declare a kernel with one program per row, for every dtype and alignment.

    Args:
        pointers: element types of the pointers that do not have the case's dtype.
        constants: compile-time constants besides BLOCK.
    """
    declared.declare_all(
        DTYPES, ALIGNMENTS, pointers=pointers, num_warps=ROW_WARPS, BLOCK=ROW_BLOCK, **constants
    )


declare_for_rows(log_softmax_kernel, {"out_ptr": torch.float32})
