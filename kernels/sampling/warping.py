"""Warping of scores before a draw: temperature, top-k and top-p, without a sort on a GPU."""

import math

import torch
from torch import Tensor

from ..runtime.dispatch import choose
from ..runtime.launch import ARCHITECTURES, kernel, ready
from ..runtime.optional_triton import tl, triton
from .softmax import (
    ROW_BLOCK,
    ROW_WARPS,
    alignment,
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
    """Temperature, then top-k, then top-p, as transformers orders them, then log-softmax.

    Args:
        scores: [rows, vocabulary].
        temperature: divides the scores.
        top_k: scores below the k-th largest become -inf; 0 keeps all.
        top_p: the least likely tokens that together have at most 1 - top_p become -inf, of equally likely
            ones the first; 1 keeps all.
        keep: tokens that always stay.
        renormalize: whether the result is log-probabilities.

    Returns:
        float32 [rows, vocabulary]; `scores` itself where there is nothing to do.
    """
    if temperature == 1.0 and not top_k and top_p >= 1.0:
        return log_softmax(scores) if renormalize else scores
    run = choose(scores, reference=warp_reference, triton=warp_triton)
    return run(scores, temperature=temperature, top_k=top_k, top_p=top_p, keep=keep, renormalize=renormalize)


def warp_reference(
    scores: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    keep: int = 1,
    renormalize: bool = False,
) -> Tensor:
    """The specification, in plain torch."""
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
    """One launch. What stays is all above one score and the last of those equal to it, so that score is
    searched for, by counting or adding up what lies below a guess; a row stays in the cache meanwhile."""
    rows, vocabulary = scores.shape
    out = torch.empty(rows, vocabulary, dtype=torch.float32, device=scores.device)
    case = warp_kernel.case(scores.device, alignment(vocabulary))
    case.launch(
        (rows,),
        ready(scores.float()),
        out,
        vocabulary,
        temperature,
        min(max(top_k, keep), vocabulary) if top_k else 0,
        1 - top_p if top_p < 1.0 else -math.inf,
        min(keep, vocabulary),
        int(renormalize),
    )
    return out


@kernel(sizes=("N",))
def warp_kernel(
    scores_ptr,  # [rows, N]
    out_ptr,  # [rows, N]; holds the scores over the temperature at first
    N: tl.int32,
    temperature: tl.float32,
    top_k: tl.int32,  # 0 for all
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
    tl.debug_barrier()  # each thread reads back what it wrote, but the compiler promises no such thing
    above = order_key(peak).to(tl.int64) + 1

    # Kept in the end: keys above `border`, and those equal to it but the first `passed`.
    border = tl.full((), LOWEST_KEY, tl.int32)
    passed = tl.full((), 0, tl.int32)
    if top_k > 0:
        border = _searched(row_ptr, N, border, above, peak, 1.0, (N - top_k).to(tl.float32), False, BLOCK)
    if removable >= 0.0:
        border, passed = _nucleus(row_ptr, N, border, above, peak, removable, keep, BLOCK)

    seen = tl.full((), 0, tl.int32)
    peaks, sums = no_sums(BLOCK)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(row_ptr + n, mask=n < N, other=float("-inf"))
        key = order_key(values)
        equal = ((key == border) & (n < N)).to(tl.int32)
        kept = (key > border) | ((equal > 0) & (seen + tl.cumsum(equal, axis=0) > passed))
        values = tl.where(kept, values, float("-inf"))
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
    """What top-p keeps of the keys from `floor` on: all above a border, and those equal to it but some."""
    border = above.to(tl.int32)
    _, total, _ = _compared(row_ptr, N, floor, border, peak, BLOCK)
    if removable < 1.0:
        border = _searched(row_ptr, N, floor, above, peak, total, removable, True, BLOCK)
    lighter, below, equal = _compared(row_ptr, N, floor, border, peak, BLOCK)
    # Of those equal to the border the first go too, as many as there is room for: a division, and a step
    # either way for what it rounded. Shares are rounded where the reference rounds its probabilities.
    each = tl.div_rn(tl.exp(value_of(border) - peak), total)
    below = tl.div_rn(below, total)
    passed = tl.floor(tl.where(each > 0.0, (removable - below) / each, 0.0))
    passed += tl.where(_share(below, passed + 1.0, each) <= removable, 1.0, 0.0)
    passed -= tl.where(_share(below, passed, each) > removable, 1.0, 0.0)
    gone = tl.minimum(tl.maximum(passed, 0.0), equal.to(tl.float32)).to(tl.int32)
    if N - lighter - gone < keep:
        least = tl.full((), LOWEST_KEY, tl.int32)
        border = _searched(row_ptr, N, least, above, peak, 1.0, (N - keep).to(tl.float32), False, BLOCK)
        lighter, _, _ = _compared(row_ptr, N, floor, border, peak, BLOCK)
        gone = tl.maximum(N - keep - lighter, 0)
    return border, gone


@triton.jit
def _share(below, count, each):
    """What lies below and `count` times `each`, added up in float64 as the reference does."""
    return (below.to(tl.float64) + count.to(tl.float64) * each.to(tl.float64)).to(tl.float32)


@triton.jit
def _compared(row_ptr, N, floor, border, peak, BLOCK: tl.constexpr):
    """How many keys lie below the border, the weight of those from `floor` on, how many equal the border."""
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
    """The largest key such that at most `limit` lies below it: keys, or their share of the total weight.

    Args:
        floor: int32; keys below it do not count, and it is where the search begins.
        above: int64, a key above all.
        peak, total: of the weights exp(value - peak).
    """
    # Three guesses in a pass quarter the interval, [low, high): at most `limit` lies below low, more below
    # high. It then shrinks to the keys there are in it, which ends the search as soon as there is but one.
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
            open_still = (n < N) & (key >= low_key) & (key < high_key)
            least = tl.minimum(least, tl.where(open_still, key, 0x7FFFFFFF))
            most = tl.maximum(most, tl.where(open_still, key, LOWEST_KEY))
        low_fits = tl.div_rn(tl.sum(firsts, axis=0), total) <= limit
        middle_fits = tl.div_rn(tl.sum(seconds, axis=0), total) <= limit
        high_fits = tl.div_rn(tl.sum(thirds, axis=0), total) <= limit
        high = tl.where(low_fits, tl.where(middle_fits, tl.where(high_fits, high, third), second), first)
        low = tl.where(low_fits, tl.where(middle_fits, tl.where(high_fits, third, second), first), low)
        high = tl.maximum(tl.minimum(high, tl.max(most, axis=0).to(tl.int64) + 1), low + 1)
        low = tl.minimum(tl.maximum(low, tl.min(least, axis=0).to(tl.int64)), high - 1)
    return low.to(tl.int32)


def _declare() -> None:
    for architecture in ARCHITECTURES:
        for kind in ("aligned", "any"):
            warp_kernel.declare(
                kind,
                architecture=architecture,
                pointers={"scores_ptr": torch.float32, "out_ptr": torch.float32},
                aligned=kind == "aligned",
                num_warps=ROW_WARPS,
                BLOCK=ROW_BLOCK,
            )


_declare()
