"""The best tokens of every request's hypotheses, for a beam step: candidates in order, or drawn ones."""

import torch
from torch import Tensor

from ..runtime.dispatch import choose
from ..runtime.launch import ARCHITECTURES, DTYPES, kernel, ready
from ..runtime.optional_triton import tl, triton
from .philox import addresses, philox_uniform, uniform
from .softmax import ROW_BLOCK, ROW_WARPS, alignment, log_softmax_reference, no_sums, total_sums, with_values
from .sortable_float import LOWEST_KEY, LOWEST_PACKED, index_of, key_of, order_key, packed, value_of


def top_candidates(
    scores: Tensor,
    count: int,
    *,
    running: Tensor | None = None,
    beams: int = 1,
    normalize: bool = False,
) -> tuple[Tensor, Tensor]:
    """The `count` largest of each request, in descending order; equal ones by the lowest index.

    Args:
        scores: [requests * beams, n].
        count: how many, at most beams * n.
        running: float32 [requests * beams], what is added to each row.
        beams: rows of a request, next to each other.
        normalize: log-softmax before anything is added.

    Returns:
        values float32 [requests, count] and indices int64 [requests, count], of beam * n + place in the row.

    Raises:
        ValueError: more than there are.
    """
    _check(scores, count, beams)
    run = choose(scores, running, reference=top_candidates_reference, triton=top_candidates_triton)
    return run(scores, count, running=running, beams=beams, normalize=normalize)


def draw_candidates(
    scores: Tensor,
    count: int,
    seeds: Tensor,
    streams: Tensor,
    steps: Tensor,
    *,
    running: Tensor | None = None,
    beams: int = 1,
) -> tuple[Tensor, Tensor]:
    """`count` draws without replacement from each request's softmax, by the Gumbel-top-k trick.

    Args:
        scores, count, running, beams: see `top_candidates`.
        seeds, streams, steps: int [requests], see `philox_uniform`.

    Returns:
        their scores float32 [requests, count] and indices int64 [requests, count], in the order drawn.

    Raises:
        ValueError: more than there are.
    """
    _check(scores, count, beams)
    run = choose(scores, seeds, running, reference=draw_candidates_reference, triton=draw_candidates_triton)
    return run(scores, count, seeds, streams, steps, running=running, beams=beams)


def _check(scores: Tensor, count: int, beams: int) -> None:
    there = beams * scores.shape[1]
    if count > there:
        raise ValueError(f"{count} candidates of {there} scores were asked for; ask for fewer")
    if there >= 2**31:
        raise ValueError(f"{there} scores a request are more than candidates can number (2**31 - 1)")


def top_candidates_reference(
    scores: Tensor,
    count: int,
    *,
    running: Tensor | None = None,
    beams: int = 1,
    normalize: bool = False,
) -> tuple[Tensor, Tensor]:
    """The specification, in plain torch.

    torch.topk promises no order among equal values, so a tie at the border is settled by a stable sort.
    """
    scores = log_softmax_reference(scores) if normalize else scores
    scores = _by_request(scores, running, beams)
    values, indices = scores.topk(count, dim=-1)
    border = values[:, -1:]
    ambiguous = (scores >= border).sum(-1) > count
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
    streams: Tensor,
    steps: Tensor,
    *,
    running: Tensor | None = None,
    beams: int = 1,
) -> tuple[Tensor, Tensor]:
    """The specification, in plain torch."""
    scores = _by_request(scores, running, beams)
    uniform = philox_uniform(seeds, streams, steps, scores.shape[1])
    _, indices = top_candidates_reference(scores - (-uniform.log()).log(), count)
    return scores.gather(-1, indices), indices


def _by_request(scores: Tensor, running: Tensor | None, beams: int) -> Tensor:
    """Total scores, a row for each request."""
    scores = scores if scores.dtype == torch.float64 else scores.float()
    total = scores if running is None else scores + running[:, None]
    return total.view(-1, beams * scores.shape[1])


def top_candidates_triton(
    scores: Tensor,
    count: int,
    *,
    running: Tensor | None = None,
    beams: int = 1,
    normalize: bool = False,
) -> tuple[Tensor, Tensor]:
    """Two launches: what can be among the best of each row, then their ranks in each request."""
    (rows, width), device = scores.shape, scores.device
    case = winners_kernel.case(device, scores.dtype, alignment(width))
    block = case.constant("BLOCK")
    slots = triton.cdiv(width, block) * min(count, block)
    found = torch.empty(rows, dtype=torch.int32, device=device)
    winners = torch.empty(rows, slots, dtype=torch.int64, device=device)
    values = torch.empty(rows // beams, count, dtype=torch.float32, device=device)
    indices = torch.empty(rows // beams, count, dtype=torch.int64, device=device)
    case.launch(
        (rows,),
        ready(scores),
        values if running is None else ready(running),
        winners,
        found,
        width,
        beams,
        count,
        slots,
        int(running is not None),
        int(normalize),
    )
    ranking_kernel.case(device).launch((rows,), winners, found, values, indices, beams, count, slots)
    return values, indices


def draw_candidates_triton(
    scores: Tensor,
    count: int,
    seeds: Tensor,
    streams: Tensor,
    steps: Tensor,
    *,
    running: Tensor | None = None,
    beams: int = 1,
) -> tuple[Tensor, Tensor]:
    """Three launches: the noise is written to memory, so that all that look at it see the same bits."""
    rows, width = scores.shape
    scores = ready(scores.float())
    noisy = torch.empty_like(scores)
    case = gumbel_kernel.case(scores.device)
    case.launch(
        (rows, triton.cdiv(width, case.constant("BLOCK"))),
        scores,
        noisy if running is None else ready(running),
        *addresses(seeds, streams, steps),
        noisy,
        width,
        beams,
        int(running is not None),
    )
    _, indices = top_candidates_triton(noisy, count, beams=beams)
    values = scores.view(-1, beams * width).gather(-1, indices)
    if running is not None:
        values = values + running.view(-1, beams).gather(-1, indices // width)
    return values, indices


@kernel(sizes=("N",))
def winners_kernel(
    scores_ptr,  # [rows, N]
    running_ptr,  # [rows]
    winners_ptr,  # [rows, slots], see `packed`
    found_ptr,  # [rows], how many slots are filled
    N: tl.int32,
    beams: tl.int32,
    count: tl.int32,
    slots: tl.int32,
    has_running: tl.int32,  # 0 or 1, as the next one
    normalize: tl.int32,
    BLOCK: tl.constexpr,
):
    """Everything of a row that can be among the `count` best, and little besides.

    The count-th largest of the lanes' maxima bounds the count-th largest of the row from below: a pass finds
    it, and a second one picks out what is not below it, hardly more than `count` of a usual row.
    """
    row = tl.program_id(0)
    row_ptr = scores_ptr + row.to(tl.int64) * N
    slots_ptr = winners_ptr + row.to(tl.int64) * slots
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
    running = tl.load(running_ptr + row, mask=has_running > 0, other=0.0)

    bound = tl.full((), LOWEST_KEY, tl.int32)  # where there are fewer lanes than candidates
    reached = tl.full((), 0, tl.int32)
    while reached < count:
        bound = tl.max(lane_keys, axis=0)
        highest = lane_keys == bound
        reached += tl.sum(highest.to(tl.int32), axis=0)
        lane_keys = tl.where(highest, LOWEST_KEY, lane_keys)
    # Rounding makes equal what was not, but turns no order around: the bound of the sums is the bound's sum.
    bound_sum = order_key(value_of(bound) - peak - spread + running)
    bound = tl.where(bound == LOWEST_KEY, LOWEST_KEY, bound_sum)

    found = tl.full((), 0, tl.int32)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(row_ptr + n, mask=n < N, other=float("-inf")).to(tl.float32)
        key = order_key(values - peak - spread + running)
        # Once there are enough, those equal to the bound come too late.
        least = bound + (found >= count).to(tl.int32)
        wanted = (n < N) & (key >= least)
        left = tl.minimum(tl.sum(wanted.to(tl.int32), axis=0), count)
        packs = tl.where(wanted, packed(key, row % beams * N + n), LOWEST_PACKED)
        for _ in range(0, left):
            best = tl.max(packs, axis=0)
            tl.store(slots_ptr + found, best)
            packs = tl.where(packs == best, LOWEST_PACKED, packs)
            found += 1
    tl.store(found_ptr + row, found)


@kernel()
def ranking_kernel(
    winners_ptr,  # [rows, slots], see `packed`
    found_ptr,  # [rows], how many slots are filled
    values_ptr,  # [requests, count]
    indices_ptr,  # [requests, count]
    beams: tl.int32,
    count: tl.int32,
    slots: tl.int32,
    BLOCK: tl.constexpr,
):
    """Each winner to its place: as many are before it as there are larger ones in its request."""
    row = tl.program_id(0)
    request = row // beams
    own_ptr = winners_ptr + row.to(tl.int64) * slots
    own_found = tl.load(found_ptr + row)
    for start in range(0, own_found, BLOCK):
        place = start + tl.arange(0, BLOCK)
        own = tl.load(own_ptr + place, mask=place < own_found, other=LOWEST_PACKED)
        rank = tl.zeros((BLOCK,), tl.int32)
        for beam in range(0, beams):
            other_row = request * beams + beam
            other_ptr = winners_ptr + other_row.to(tl.int64) * slots
            other_found = tl.load(found_ptr + other_row)
            for other_start in range(0, other_found, BLOCK):
                other_place = other_start + tl.arange(0, BLOCK)
                other = tl.load(other_ptr + other_place, mask=other_place < other_found, other=LOWEST_PACKED)
                rank += tl.sum((other[None, :] > own[:, None]).to(tl.int32), axis=1)
        chosen = (place < own_found) & (rank < count)
        out = request.to(tl.int64) * count + rank
        tl.store(values_ptr + out, value_of(key_of(own)), mask=chosen)
        tl.store(indices_ptr + out, index_of(own), mask=chosen)


@kernel()
def gumbel_kernel(
    scores_ptr,  # [requests * beams, N]
    running_ptr,  # [requests * beams]
    seeds_ptr,  # [requests]
    streams_ptr,  # [requests]
    steps_ptr,  # [requests]
    out_ptr,  # [requests * beams, N]
    N: tl.int32,
    beams: tl.int32,
    has_running: tl.int32,  # 0 or 1
    BLOCK: tl.constexpr,
):
    """Total scores and Gumbel noise: the largest of them are draws without replacement."""
    row = tl.program_id(0)
    request = row // beams
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    places = row.to(tl.int64) * N + n
    total = tl.load(scores_ptr + places, mask=n < N)
    total += tl.load(running_ptr + row, mask=has_running > 0, other=0.0)
    numbers = uniform(
        tl.load(seeds_ptr + request),
        tl.load(streams_ptr + request),
        tl.load(steps_ptr + request),
        row % beams * N + n,
    )
    tl.store(out_ptr + places, total - tl.log(-tl.log(numbers)), mask=n < N)


def _declare() -> None:
    numbers = ("seeds_ptr", "streams_ptr", "steps_ptr", "winners_ptr", "indices_ptr")
    floats = ("scores_ptr", "running_ptr", "out_ptr", "values_ptr")
    types = dict.fromkeys(numbers, torch.int64) | dict.fromkeys(floats, torch.float32)
    types["found_ptr"] = torch.int32
    for architecture in ARCHITECTURES:
        for dtype in DTYPES:
            for kind in ("aligned", "any"):
                winners_kernel.declare(
                    dtype,
                    kind,
                    architecture=architecture,
                    pointers=types | {"scores_ptr": dtype},
                    aligned=kind == "aligned",
                    num_warps=ROW_WARPS,
                    BLOCK=ROW_BLOCK,
                )
        ranking_kernel.declare(architecture=architecture, pointers=types, BLOCK=64)
        gumbel_kernel.declare(architecture=architecture, pointers=types, BLOCK=1024)


_declare()
