"""Log-softmax over the vocabulary, and the sums in it, which other kernels take along in a pass of theirs."""

import torch
from torch import Tensor

from ..runtime.dispatch import choose
from ..runtime.launch import ARCHITECTURES, DTYPES, kernel, ready
from ..runtime.optional_triton import tl, triton

# A pass over a row goes by blocks of this size, by 8 warps: 8 numbers a thread, two vectors of 16 bytes. Rows
# are many, so a row has one program; its sums then have one order, whatever else is in the launch.
ROW_BLOCK = 2048
ROW_WARPS = 8


def log_softmax(scores: Tensor) -> Tensor:
    """Log-probabilities of every row's tokens.

    Args:
        scores: [rows, vocabulary].

    Returns:
        float32 [rows, vocabulary].
    """
    return choose(scores, reference=log_softmax_reference, triton=log_softmax_triton)(scores)


def log_softmax_reference(scores: Tensor) -> Tensor:
    """The specification, in plain torch."""
    return (scores if scores.dtype == torch.float64 else scores.float()).log_softmax(-1)


def log_softmax_triton(scores: Tensor) -> Tensor:
    """One launch: a pass for the sums and one to write."""
    rows, vocabulary = scores.shape
    out = torch.empty(rows, vocabulary, dtype=torch.float32, device=scores.device)
    case = log_softmax_kernel.case(scores.device, scores.dtype, alignment(vocabulary))
    case.launch((rows,), ready(scores), out, vocabulary)
    return out


def alignment(vocabulary: int) -> str:
    """Part of a case's key: whether rows of this width can be read by vectors."""
    return "aligned" if vocabulary % 16 == 0 else "any"


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
    """A row's largest value and the logarithm of its sum of exp(value - largest)."""
    peaks, sums = no_sums(BLOCK)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(row_ptr + n, mask=n < N, other=float("-inf")).to(tl.float32)
        peaks, sums = with_values(peaks, sums, values)
    return total_sums(peaks, sums)


@triton.jit
def no_sums(BLOCK: tl.constexpr):
    """Every lane's largest value and its sum of exp(value - largest), before the first block."""
    return tl.full((BLOCK,), float("-inf"), tl.float32), tl.zeros((BLOCK,), tl.float32)


@triton.jit
def with_values(peaks, sums, values):
    """A block more. Every lane for itself: adding up across lanes in every block would take far longer."""
    highest = tl.maximum(peaks, values)
    anchor = tl.where(highest == float("-inf"), 0.0, highest)  # -inf - -inf would be NaN
    return highest, sums * tl.exp(peaks - anchor) + tl.exp(values - anchor)


@triton.jit
def total_sums(peaks, sums):
    """The largest value of all lanes, and the logarithm of the sum of exp(value - largest)."""
    peak = tl.max(peaks, axis=0)
    anchor = tl.where(peak == float("-inf"), 0.0, peak)
    return peak, tl.log(tl.sum(sums * tl.exp(peaks - anchor), axis=0))


def _declare() -> None:
    for architecture in ARCHITECTURES:
        for dtype in DTYPES:
            for kind in ("aligned", "any"):
                log_softmax_kernel.declare(
                    dtype,
                    kind,
                    architecture=architecture,
                    pointers={"scores_ptr": dtype, "out_ptr": torch.float32},
                    aligned=kind == "aligned",
                    num_warps=ROW_WARPS,
                    BLOCK=ROW_BLOCK,
                )


_declare()
