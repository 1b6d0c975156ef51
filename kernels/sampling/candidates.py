"""Candidates of a beam-search step: the best or drawn tokens of each request's hypotheses."""

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import alignment, kernel
from ..runtime.optional_triton import tl
from .philox import KEY_TYPES, philox_keys, philox_uniform, uniform
from .softmax import declare_for_rows, log_softmax_reference, no_sums, total_sums, with_values
from .sortable_float import LOWEST_KEY, LOWEST_PACKED, index_of, key_of, order_key, packed, value_of


def top_candidates(
    scores: Tensor,
    count: int,
    *,
    running: Tensor | None = None,
    slots: Tensor | None = None,
    beams: int = 1,
    normalize: bool = False,
) -> tuple[Tensor, Tensor]:
    """Largest `count` scores of each request, in descending order; equal ones by ascending index.

    Args:
        scores: [requests * beams, vocabulary].
        count: number of candidates, at most beams * vocabulary.
        running: float32 [requests * beams], each hypothesis's score so far, added to its row. With `slots`
            [all slots], scores by slot.
        slots: int64 [requests * beams], the slot of each row.
        beams: number of hypotheses of a request, which are consecutive rows.
        normalize: apply log-softmax before `running` is added.

    Returns:
        values float32 [requests, count] and indices beam * vocabulary + token, int64 [requests, count].

    Raises:
        ValueError: more candidates than scores.
    """
    _check(scores, count, beams)
    return _top_candidates(scores, count, running=running, slots=slots, beams=beams, normalize=normalize)


def draw_candidates(
    scores: Tensor,
    count: int,
    seeds: Tensor,
    sequence_index: Tensor,
    steps: Tensor,
    *,
    running: Tensor | None = None,
    beams: int = 1,
) -> tuple[Tensor, Tensor]:
    """Draw `count` candidates of each request's softmax without replacement: Gumbel-top-k (arXiv 1903.06059).

    Args:
        scores, count, running, beams: as in `top_candidates`.
        seeds, sequence_index, steps: int [requests], as in `philox_uniform`.

    Returns:
        Scores float32 [requests, count] and indices int64 [requests, count], in the order drawn.

    Raises:
        ValueError: more candidates than scores.
    """
    _check(scores, count, beams)
    return _draw_candidates(scores, count, seeds, sequence_index, steps, running=running, beams=beams)


def _check(scores: Tensor, count: int, beams: int) -> None:
    total = beams * scores.shape[1]
    if count > total:
        raise ValueError(f"{count} candidates of {total} scores were asked for; ask for fewer")
    if total >= 2**31:
        raise ValueError(f"{total} scores a request are more than candidates can number (2**31 - 1)")


def top_candidates_reference(
    scores: Tensor,
    count: int,
    *,
    running: Tensor | None = None,
    slots: Tensor | None = None,
    beams: int = 1,
    normalize: bool = False,
) -> tuple[Tensor, Tensor]:
    """Reference implementation of `top_candidates` in plain torch.

    torch.topk promises no order among equal values, so a stable sort decides a tie for the last candidate.
    """
    running = running if running is None or slots is None else running[slots]
    scores = log_softmax_reference(scores) if normalize else scores
    scores = _by_request(scores, running, beams)
    values, indices = scores.topk(count, dim=-1)
    ambiguous = (scores >= values[:, -1:]).sum(-1) > count
    if bool(ambiguous.any()):
        rows = ambiguous.nonzero()[:, 0]
        sorted_values, order = scores[rows].sort(dim=-1, descending=True, stable=True)
        values[rows], indices[rows] = sorted_values[:, :count], order[:, :count]
    indices, by_index = indices.sort(dim=-1)
    values, by_value = values.gather(-1, by_index).sort(dim=-1, descending=True, stable=True)
    return values, indices.gather(-1, by_value)


def draw_candidates_reference(
    scores: Tensor,
    count: int,
    seeds: Tensor,
    sequence_index: Tensor,
    steps: Tensor,
    *,
    running: Tensor | None = None,
    beams: int = 1,
) -> tuple[Tensor, Tensor]:
    """Reference implementation of `draw_candidates` in plain torch."""
    scores = _by_request(scores, running, beams)
    uniform = philox_uniform(seeds, sequence_index, steps, scores.shape[1])
    _, indices = top_candidates_reference(scores - (-uniform.log()).log(), count)
    return scores.gather(-1, indices), indices


def _by_request(scores: Tensor, running: Tensor | None, beams: int) -> Tensor:
    """Scores plus running scores, a row for each request: [requests, beams * vocabulary]."""
    scores = scores if scores.dtype == torch.float64 else scores.float()
    total = scores if running is None else scores + running[:, None]
    return total.view(-1, beams * scores.shape[1])


def top_candidates_triton(
    scores: Tensor,
    count: int,
    *,
    running: Tensor | None = None,
    slots: Tensor | None = None,
    beams: int = 1,
    normalize: bool = False,
) -> tuple[Tensor, Tensor]:
    """Top candidates in two launches: each row's contenders, then their ranks within the request."""
    (rows, width), device = scores.shape, scores.device
    case = contenders_kernel.case(device, scores.dtype, alignment(width))
    capacity = case.block_count("BLOCK", width) * min(count, case.constant("BLOCK"))
    found = torch.empty(rows, dtype=torch.int32, device=device)
    contenders = torch.empty(rows, capacity, dtype=torch.int64, device=device)
    values = torch.empty(rows // beams, count, dtype=torch.float32, device=device)
    indices = torch.empty(rows // beams, count, dtype=torch.int64, device=device)
    flags = running is not None, slots is not None, normalize
    numbers = width, beams, count, capacity, *flags
    case.launch((rows,), scores, running, slots, contenders, found, *numbers)
    ranking_kernel.case(device).launch((rows,), contenders, found, values, indices, beams, count, capacity)
    return values, indices


def draw_candidates_triton(
    scores: Tensor,
    count: int,
    seeds: Tensor,
    sequence_index: Tensor,
    steps: Tensor,
    *,
    running: Tensor | None = None,
    beams: int = 1,
) -> tuple[Tensor, Tensor]:
    """Drawn candidates in three launches, with the noise in memory: later passes read the same bits."""
    rows, width = scores.shape
    scores = scores.float().contiguous()
    noisy = torch.empty_like(scores)
    case = gumbel_kernel.case(scores.device)
    tensors = scores, running, *philox_keys(seeds, sequence_index, steps), noisy
    case.launch((rows, case.block_count("BLOCK", width)), *tensors, width, beams, running is not None)
    _, indices = top_candidates_triton(noisy, count, beams=beams)
    values = scores.view(-1, beams * width).gather(-1, indices)
    if running is not None:
        values = values + running.view(-1, beams).gather(-1, indices // width)
    return values, indices


@kernel(sizes=("N",), outputs=("contenders_ptr", "found_ptr"))
def contenders_kernel(
    scores_ptr,  # [rows, N]
    running_ptr,  # [rows], or by slot
    slots_ptr,  # [rows]
    contenders_ptr,  # [rows, capacity], `packed` key and index
    found_ptr,  # [rows], number of contenders
    N: tl.int32,
    beams: tl.int32,
    count: tl.int32,
    capacity: tl.int32,
    has_running: tl.int32,  # 0 or 1, as the next ones
    has_slots: tl.int32,
    normalize: tl.int32,
    BLOCK: tl.constexpr,
):
    """Collect a row's contenders: all scores that can be among the `count` best, and few others.

    The count-th largest of the lanes' maxima bounds the count-th largest of the row from below. One pass
    finds that bound, a second one collects the scores not below it, usually little more than `count`.
    """
    row = tl.program_id(0)
    row_ptr = scores_ptr + row.to(tl.int64) * N
    own_ptr = contenders_ptr + row.to(tl.int64) * capacity
    lane_keys = tl.full((BLOCK,), LOWEST_KEY, tl.int32)
    peaks, sums = no_sums(BLOCK)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(row_ptr + n, mask=n < N, other=float("-inf")).to(tl.float32)
        lane_keys = tl.maximum(lane_keys, tl.where(n < N, order_key(values), LOWEST_KEY))
        peaks, sums = with_values(peaks, sums, values)
    peak, spread = total_sums(peaks, sums)
    peak = tl.where(normalize > 0, peak, 0.0)
    spread = tl.where(normalize > 0, spread, 0.0)
    slot = tl.load(slots_ptr + row, mask=has_slots > 0, other=0)
    slot = tl.where(has_slots > 0, slot, row.to(tl.int64))
    running = tl.load(running_ptr + slot, mask=has_running > 0, other=0.0)

    bound = tl.full((), LOWEST_KEY, tl.int32)  # for fewer lanes than candidates
    reached = tl.full((), 0, tl.int32)
    while reached < count:
        bound = tl.max(lane_keys, axis=0)
        highest = lane_keys == bound
        reached += tl.sum(highest.to(tl.int32), axis=0)
        lane_keys = tl.where(highest, LOWEST_KEY, lane_keys)
    # Rounding may make sums equal but never reverses them: the bound's sum is the bound of the sums.
    bound_sum = order_key(value_of(bound) - peak - spread + running)
    bound = tl.where(bound == LOWEST_KEY, LOWEST_KEY, bound_sum)

    found = tl.full((), 0, tl.int32)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(row_ptr + n, mask=n < N, other=float("-inf")).to(tl.float32)
        key = order_key(values - peak - spread + running)
        # With `count` found, a later score equal to the bound ranks after them.
        least = bound + (found >= count).to(tl.int32)
        wanted = (n < N) & (key >= least)
        left = tl.minimum(tl.sum(wanted.to(tl.int32), axis=0), count)
        packs = tl.where(wanted, packed(key, row % beams * N + n), LOWEST_PACKED)
        for _ in range(0, left):
            best = tl.max(packs, axis=0)
            tl.store(own_ptr + found, best)
            packs = tl.where(packs == best, LOWEST_PACKED, packs)
            found += 1
    tl.store(found_ptr + row, found)


@kernel(outputs=("values_ptr", "indices_ptr"))
def ranking_kernel(
    contenders_ptr,  # [rows, capacity], `packed` key and index
    found_ptr,  # [rows], number of contenders
    values_ptr,  # [requests, count]
    indices_ptr,  # [requests, count]
    beams: tl.int32,
    count: tl.int32,
    capacity: tl.int32,
    BLOCK: tl.constexpr,
):
    """Write each contender at its rank: the number of larger ones in its request."""
    row = tl.program_id(0)
    request = row // beams
    own_ptr = contenders_ptr + row.to(tl.int64) * capacity
    own_found = tl.load(found_ptr + row)
    for start in range(0, own_found, BLOCK):
        index = start + tl.arange(0, BLOCK)
        own = tl.load(own_ptr + index, mask=index < own_found, other=LOWEST_PACKED)
        rank = tl.zeros((BLOCK,), tl.int32)
        for beam in range(0, beams):
            other_row = request * beams + beam
            other_ptr = contenders_ptr + other_row.to(tl.int64) * capacity
            other_found = tl.load(found_ptr + other_row)
            for other_start in range(0, other_found, BLOCK):
                other_index = other_start + tl.arange(0, BLOCK)
                other = tl.load(other_ptr + other_index, mask=other_index < other_found, other=LOWEST_PACKED)
                rank += tl.sum((other[None, :] > own[:, None]).to(tl.int32), axis=1)
        chosen = (index < own_found) & (rank < count)
        out = request.to(tl.int64) * count + rank
        tl.store(values_ptr + out, value_of(key_of(own)), mask=chosen)
        tl.store(indices_ptr + out, index_of(own), mask=chosen)


@kernel()
def gumbel_kernel(
    scores_ptr,  # [requests * beams, N]
    running_ptr,  # [requests * beams]
    seeds_ptr,  # [requests]
    sequence_index_ptr,  # [requests]
    steps_ptr,  # [requests]
    out_ptr,  # [requests * beams, N]
    N: tl.int32,
    beams: tl.int32,
    has_running: tl.int32,  # 0 or 1
    BLOCK: tl.constexpr,
):
    """Write total scores plus Gumbel noise, the largest of which are draws without replacement."""
    row = tl.program_id(0)
    request = row // beams
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    offsets = row.to(tl.int64) * N + n
    total = tl.load(scores_ptr + offsets, mask=n < N)
    total += tl.load(running_ptr + row, mask=has_running > 0, other=0.0)
    numbers = uniform(
        tl.load(seeds_ptr + request),
        tl.load(sequence_index_ptr + request),
        tl.load(steps_ptr + request),
        row % beams * N + n,
    )
    tl.store(out_ptr + offsets, total - tl.log(-tl.log(numbers)), mask=n < N)


_top_candidates = Operation(top_candidates_reference, triton=top_candidates_triton)
_draw_candidates = Operation(draw_candidates_reference, triton=draw_candidates_triton)


_types = KEY_TYPES | dict.fromkeys(("slots_ptr", "contenders_ptr", "indices_ptr"), torch.int64)
_types["found_ptr"] = torch.int32
declare_for_rows(
    contenders_kernel, _types | dict.fromkeys(("running_ptr", "out_ptr", "values_ptr"), torch.float32)
)
ranking_kernel.declare_all(pointers=_types, BLOCK=64)
gumbel_kernel.declare_all(pointers=_types, BLOCK=1024)
