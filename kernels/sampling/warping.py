"""Warping of scores before a draw: temperature, top-k and top-p, without a sort on a GPU."""

import math

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import ALIGNMENTS, alignment, kernel
from ..runtime.optional_triton import tl, triton
from .softmax import (
    ROW_BLOCK,
    ROW_WARPS,
    log_softmax,
    log_softmax_reference,
    no_sums,
    total_sums,
    with_values,
)
from .sortable_float import LOWEST_KEY, order_key, value_of


def warp(
    scores: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    keep: int = 1,
    renormalize: bool = False,
) -> Tensor:
    """Warp scores by temperature, then top-k, then top-p, as transformers orders them.

    Args:
        scores: [rows, vocabulary].
        temperature: divides the scores.
        top_k: scores below the k-th largest become -inf; 0 for no limit.
        top_p: the least likely tokens that together have at most 1 - top_p become -inf, of equally likely
            ones the first; 1 for no limit.
        keep: minimum number of tokens that remain.
        renormalize: apply log-softmax at the end.

    Returns:
        float32 [rows, vocabulary]; `scores` itself where no option applies.
    """
    if temperature == 1.0 and not top_k and top_p >= 1.0:
        return log_softmax(scores) if renormalize else scores
    options = {"top_k": top_k, "top_p": top_p, "keep": keep, "renormalize": renormalize}
    return _warp(scores, temperature=temperature, **options)


def warp_reference(
    scores: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    keep: int = 1,
    renormalize: bool = False,
) -> Tensor:
    """Reference implementation of `warp` in plain torch."""
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if temperature != 1.0:
        scores = scores / temperature
    if top_k:
        border = scores.topk(min(max(top_k, keep), scores.shape[1]), dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < border, float("-inf"))
    if top_p < 1.0:
        ascending, order = scores.sort(dim=-1, stable=True)
        removed = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        removed[:, -keep:] = False
        scores = scores.masked_fill(removed.scatter(-1, order, removed), float("-inf"))
    return log_softmax_reference(scores) if renormalize else scores


def warp_triton(
    scores: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    keep: int = 1,
    renormalize: bool = False,
) -> Tensor:
    """Warped scores in one launch, without a sort.

    The remaining tokens are those above one score and the last of those equal to it. A search finds that
    score: each pass counts, or adds up, the tokens below a guess; rows stay in the cache.
    """
    rows, vocabulary = scores.shape
    out = torch.empty(rows, vocabulary, dtype=torch.float32, device=scores.device)
    case = warp_kernel.case(scores.device, alignment(vocabulary))
    most = min(max(top_k, keep), vocabulary) if top_k else 0
    removable = 1 - top_p if top_p < 1.0 else -math.inf
    numbers = vocabulary, temperature, most, removable, min(keep, vocabulary), renormalize
    case.launch((rows,), scores.float(), out, *numbers)
    return out


@kernel(sizes=("N",))
def warp_kernel(
    scores_ptr,  # [rows, N]
    out_ptr,  # [rows, N]; at first scores / temperature
    N: tl.int32,
    temperature: tl.float32,
    top_k: tl.int32,  # 0 for no limit
    removable: tl.float32,  # 1 - top_p, or -inf
    keep: tl.int32,
    renormalize: tl.int32,  # 0 or 1
    BLOCK: tl.constexpr,
):
    base = tl.program_id(0).to(tl.int64) * N
    row_ptr = out_ptr + base
    peaks = tl.full((BLOCK,), float("-inf"), tl.float32)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(scores_ptr + base + n, mask=n < N, other=float("-inf"))
        values = tl.div_rn(values, temperature)
        tl.store(row_ptr + n, values, mask=n < N)
        peaks = tl.maximum(peaks, values)
    peak = tl.max(peaks, axis=0)
    tl.debug_barrier()  # each thread reads what it wrote, but the compiler does not promise that
    above = order_key(peak).to(tl.int64) + 1

    # Remaining: keys above `border`, and those equal to it except the first `removed`.
    border = tl.full((), LOWEST_KEY, tl.int32)
    removed = tl.full((), 0, tl.int32)
    if top_k > 0:
        border = _searched(row_ptr, N, border, above, peak, 1.0, (N - top_k).to(tl.float32), False, BLOCK)
    if removable >= 0.0:
        border, removed = _nucleus(row_ptr, N, border, above, peak, removable, keep, BLOCK)

    seen = tl.full((), 0, tl.int32)
    peaks, sums = no_sums(BLOCK)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(row_ptr + n, mask=n < N, other=float("-inf"))
        key = order_key(values)
        equal = ((key == border) & (n < N)).to(tl.int32)
        remains = (key > border) | ((equal > 0) & (seen + tl.cumsum(equal, axis=0) > removed))
        values = tl.where(remains, values, float("-inf"))
        tl.store(row_ptr + n, values, mask=n < N)
        peaks, sums = with_values(peaks, sums, values)
        seen += tl.sum(equal, axis=0)
    if renormalize > 0:
        peak, spread = total_sums(peaks, sums)
        tl.debug_barrier()
        for start in range(0, N, BLOCK):
            n = start + tl.arange(0, BLOCK)
            values = tl.load(row_ptr + n, mask=n < N)
            tl.store(row_ptr + n, values - peak - spread, mask=n < N)


@triton.jit
def _nucleus(row_ptr, N, floor, above, peak, removable, keep, BLOCK: tl.constexpr):
    """Smallest key that top-p keeps among those from `floor` on, and number of keys equal to it to remove."""
    border = above.to(tl.int32)
    _, total, _ = _compared(row_ptr, N, floor, border, peak, BLOCK)
    if removable < 1.0:
        border = _searched(row_ptr, N, floor, above, peak, total, removable, True, BLOCK)
    lighter, below, equal = _compared(row_ptr, N, floor, border, peak, BLOCK)
    # Of the keys equal to the border the first are removed too, as many as there is room for: by a division
    # and a correction by one for its rounding. Shares are rounded where the reference rounds probabilities.
    each = tl.div_rn(tl.exp(value_of(border) - peak), total)
    below = tl.div_rn(below, total)
    count = tl.floor(tl.where(each > 0.0, (removable - below) / each, 0.0))
    count += tl.where(_share(below, count + 1.0, each) <= removable, 1.0, 0.0)
    count -= tl.where(_share(below, count, each) > removable, 1.0, 0.0)
    removed = tl.minimum(tl.maximum(count, 0.0), equal.to(tl.float32)).to(tl.int32)
    if N - lighter - removed < keep:
        least = tl.full((), LOWEST_KEY, tl.int32)
        border = _searched(row_ptr, N, least, above, peak, 1.0, (N - keep).to(tl.float32), False, BLOCK)
        lighter, _, _ = _compared(row_ptr, N, floor, border, peak, BLOCK)
        removed = tl.maximum(N - keep - lighter, 0)
    return border, removed


@triton.jit
def _share(below, count, each):
    """Cumulative share `below + count * each`, added up in float64 as in the reference."""
    return (below.to(tl.float64) + count.to(tl.float64) * each.to(tl.float64)).to(tl.float32)


@triton.jit
def _compared(row_ptr, N, floor, border, peak, BLOCK: tl.constexpr):
    """Number of keys below the border, total weight of those from `floor` on, number equal to the border."""
    lighter = tl.zeros((BLOCK,), tl.int32)
    equal = tl.zeros((BLOCK,), tl.int32)
    weight = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(row_ptr + n, mask=n < N, other=float("-inf"))
        key = order_key(values)
        below = (key < border) & (n < N)
        lighter += below.to(tl.int32)
        equal += ((key == border) & (n < N)).to(tl.int32)
        weight += tl.where(below & (key >= floor), tl.exp(values - peak), 0.0)
    return tl.sum(lighter, axis=0), tl.sum(weight, axis=0), tl.sum(equal, axis=0)


@triton.jit
def _searched(row_ptr, N, floor, above, peak, total, limit, WEIGHED: tl.constexpr, BLOCK: tl.constexpr):
    """Largest key with at most `limit` below it: a number of keys, or with WEIGHED their share of the weight.

    Args:
        floor: int32, lower end of the search; keys below it do not count.
        above: int64, a key above all.
        peak, total: maximum of the values, and sum of the weights exp(value - peak); 1 to count keys.
    """
    # Each pass has three guesses, which quarter the interval [low, high): at most `limit` lies below low and
    # more below high. The interval then shrinks to its outermost keys, so that the search ends with the last.
    low, high = floor.to(tl.int64), above
    while low + 1 < high:
        width = high - low
        first, second, third = low + width // 4, low + width // 2, low + width * 3 // 4
        first_key, second_key, third_key = first.to(tl.int32), second.to(tl.int32), third.to(tl.int32)
        low_key, high_key = low.to(tl.int32), high.to(tl.int32)
        firsts = tl.zeros((BLOCK,), tl.float32)
        seconds = tl.zeros((BLOCK,), tl.float32)
        thirds = tl.zeros((BLOCK,), tl.float32)
        least = tl.full((BLOCK,), 0x7FFFFFFF, tl.int32)
        most = tl.full((BLOCK,), LOWEST_KEY, tl.int32)
        for start in range(0, N, BLOCK):
            n = start + tl.arange(0, BLOCK)
            values = tl.load(row_ptr + n, mask=n < N, other=float("-inf"))
            key = order_key(values)
            counted = (n < N) & (key >= floor)
            weight = tl.where(counted, tl.exp(values - peak), 0.0) if WEIGHED else counted.to(tl.float32)
            firsts += tl.where(key < first_key, weight, 0.0)
            seconds += tl.where(key < second_key, weight, 0.0)
            thirds += tl.where(key < third_key, weight, 0.0)
            open_keys = (n < N) & (key >= low_key) & (key < high_key)
            least = tl.minimum(least, tl.where(open_keys, key, 0x7FFFFFFF))
            most = tl.maximum(most, tl.where(open_keys, key, LOWEST_KEY))
        low_fits = tl.div_rn(tl.sum(firsts, axis=0), total) <= limit
        middle_fits = tl.div_rn(tl.sum(seconds, axis=0), total) <= limit
        high_fits = tl.div_rn(tl.sum(thirds, axis=0), total) <= limit
        high = tl.where(low_fits, tl.where(middle_fits, tl.where(high_fits, high, third), second), first)
        low = tl.where(low_fits, tl.where(middle_fits, tl.where(high_fits, third, second), first), low)
        high = tl.maximum(tl.minimum(high, tl.max(most, axis=0).to(tl.int64) + 1), low + 1)
        low = tl.minimum(tl.maximum(low, tl.min(least, axis=0).to(tl.int64)), high - 1)
    return low.to(tl.int32)


_warp = Operation(warp_reference, triton=warp_triton)


warp_kernel.declare_all(ALIGNMENTS, num_warps=ROW_WARPS, BLOCK=ROW_BLOCK)
