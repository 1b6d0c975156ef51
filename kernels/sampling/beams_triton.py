"""Triton kernel of `advance_beams`: open and ended hypotheses from a step's candidates."""

from typing import Any

import torch

from ..runtime.launch import kernel
from ..runtime.optional_triton import tl, triton
from .sortable_float import LOWEST_PACKED, order_key, packed

UNREACHABLE = -1.0e9  # transformers' score of a hypothesis that must not be chosen
_UNREACHABLE = tl.constexpr(UNREACHABLE)
_BLOCKS = (16, 64)  # candidates of a request; there are at least two for each beam


def candidates_block(count: int) -> int | None:
    """Smallest block that holds a request's candidates; None where there are too many."""
    return next((block for block in _BLOCKS if count <= block), None)


@triton.jit
def number_before(packs, others):
    """Number of `others` [n] that are larger, for each of `packs` [m]: int32 [m]."""
    return tl.sum((others[None, :] > packs[:, None]).to(tl.int32), axis=1)


@triton.jit
def chosen_by(ranks, k, values):
    """Value [n] at each rank `k` [m], the sum of one; 0 at ranks that none of `ranks` [n] has."""
    return tl.sum(tl.where(ranks[None, :] == k[:, None], values[None, :], 0), axis=1)


@kernel(
    outputs=(
        *("new_tokens_ptr", "new_origin_ptr", "new_length_ptr", "new_score_ptr", "new_final_tokens_ptr"),
        *("new_final_length_ptr", "new_final_score_ptr", "new_final_done_ptr"),
        *("new_ended_count_ptr", "new_request_done_ptr"),
    )
)
def advance_beams_kernel(
    values_ptr,  # [requests, count], scores of candidates
    slots_ptr,  # [requests * beams]
    indices_ptr,  # [requests, count], beam * vocabulary + token
    max_lengths_ptr,  # [requests * beams]
    prompt_lengths_ptr,  # [requests * beams]
    penalties_ptr,  # [longest + 1], divisors by length
    tokens_ptr,  # [slots, longest]; this and the next ones are of `current`
    origin_ptr,  # [slots, longest]
    length_ptr,  # [slots], as the others
    score_ptr,
    final_tokens_ptr,  # [slots, longest]
    final_length_ptr,
    final_score_ptr,
    final_done_ptr,
    ended_count_ptr,
    request_done_ptr,
    new_tokens_ptr,  # [slots, longest]; this and the next ones are of `following`
    new_origin_ptr,
    new_length_ptr,
    new_score_ptr,
    new_final_tokens_ptr,
    new_final_length_ptr,
    new_final_score_ptr,
    new_final_done_ptr,
    new_ended_count_ptr,
    new_request_done_ptr,
    beams: tl.int32,
    count: tl.int32,
    vocabulary: tl.int32,
    longest: tl.int32,
    early: tl.int32,  # 1 ends a request with as many ended hypotheses as beams
    hopes: tl.int32,  # 1 rates open beams by their maximum length
    enough: tl.int32,  # ended hypotheses that end a request by themselves; 0 for the other rules
    end_0: tl.int32,  # -1 for none, as the next ones
    end_1: tl.int32,
    end_2: tl.int32,
    end_3: tl.int32,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Rank a request's candidates, and copy a block of positions of the histories that were chosen.

    Each block's program ranks anew, which costs less than a launch between ranking and copying.
    """
    request, begin = tl.program_id(0), tl.program_id(1) * BLOCK_N
    first_row = request.to(tl.int64) * beams
    first_slot = tl.load(slots_ptr + first_row)
    length = tl.load(length_ptr + first_slot)
    if begin > length:
        return
    max_length = tl.load(max_lengths_ptr + first_row)
    was_done = tl.load(request_done_ptr + first_slot).to(tl.int32)
    prompt_length = tl.load(prompt_lengths_ptr + first_row)
    penalty = tl.load(penalties_ptr + length + 1 - prompt_length)

    k = tl.arange(0, BLOCK_K)
    is_beam = k < beams
    slot = tl.load(slots_ptr + first_row + k, mask=is_beam, other=0)
    c = tl.arange(0, BLOCK_C)
    known = c < count
    before = request.to(tl.int64) * count
    value = tl.load(values_ptr + before + c, mask=known, other=0.0)
    index = tl.load(indices_ptr + before + c, mask=known, other=0).to(tl.int32)
    token = index % vocabulary
    parent = tl.load(slots_ptr + first_row + index // vocabulary, mask=known, other=0)
    is_end = (token == end_0) | (token == end_1) | (token == end_2) | (token == end_3)
    hits = tl.where(is_end, 1, tl.where(length + 1 >= max_length, 1, 0))

    # A pack sorts by score, equal ones by index, as a stable sort leaves them.
    open_score = value + tl.where(hits != 0, _UNREACHABLE, 0.0)
    packs = tl.where(known, packed(order_key(open_score), c), LOWEST_PACKED)
    rank = number_before(packs, packs)
    rank = tl.where(known, rank, BLOCK_C)

    # Only the first k candidates may end a hypothesis; with the others k can continue.
    ends = tl.where(c < beams, hits, 0)
    candidate = tl.div_rn(value, penalty) + tl.where(ends != 0, 0.0, _UNREACHABLE)
    old_score = tl.load(final_score_ptr + slot, mask=is_beam, other=0.0)
    old_packs = tl.where(is_beam, packed(order_key(old_score), k), LOWEST_PACKED)
    packs = tl.where(known, packed(order_key(candidate), beams + c), LOWEST_PACKED)
    old_rank = number_before(old_packs, old_packs) + number_before(old_packs, packs)
    new_rank = number_before(packs, old_packs) + number_before(packs, packs)
    # The results of a request that had ended stay as they are.
    old_rank = tl.where(is_beam, tl.where(was_done != 0, k, old_rank), BLOCK_C)
    new_rank = tl.where(known, tl.where(was_done != 0, BLOCK_C, new_rank), BLOCK_C)
    stays, joins = old_rank < beams, new_rank < beams

    if begin == 0:
        goes_on = rank < beams
        to = tl.load(slots_ptr + first_row + rank, mask=goes_on, other=0)
        score = tl.load(score_ptr + to, mask=goes_on, other=0.0)
        tl.store(new_score_ptr + to, tl.where(was_done != 0, score, open_score), mask=goes_on)
        tl.store(new_length_ptr + slot, tl.zeros((BLOCK_K,), tl.int32) + length + 1 - was_done, mask=is_beam)

        old_done = tl.load(final_done_ptr + slot, mask=is_beam, other=0).to(tl.int32)
        old_length = tl.load(final_length_ptr + slot, mask=is_beam, other=0)
        to = tl.load(slots_ptr + first_row + old_rank, mask=stays, other=0)
        tl.store(new_final_score_ptr + to, old_score, mask=stays)
        tl.store(new_final_done_ptr + to, old_done != 0, mask=stays)
        tl.store(new_final_length_ptr + to, old_length, mask=stays)
        to = tl.load(slots_ptr + first_row + new_rank, mask=joins, other=0)
        tl.store(new_final_score_ptr + to, candidate, mask=joins)
        tl.store(new_final_done_ptr + to, ends != 0, mask=joins)
        tl.store(new_final_length_ptr + to, tl.zeros((BLOCK_C,), tl.int32) + length + 1, mask=joins)

        count_ended = tl.load(ended_count_ptr + first_slot)
        count_ended += tl.where(was_done != 0, 0, tl.sum(ends, axis=0))
        tl.store(new_ended_count_ptr + first_slot, count_ended)

        # Over where no open beam can improve on the ended ones, by transformers' estimate.
        hopeful = tl.where(hopes != 0, max_length, length + 1) - prompt_length
        best = tl.sum(tl.where(rank == 0, open_score, 0.0), axis=0)
        best = tl.div_rn(best, tl.load(penalties_ptr + hopeful))
        worst = tl.minimum(
            tl.min(tl.where(stays, old_score, float("inf")), axis=0),
            tl.min(tl.where(joins, candidate, float("inf")), axis=0),
        )
        ended = tl.sum(tl.where(stays, old_done, 0), axis=0) + tl.sum(tl.where(joins, ends, 0), axis=0)
        improves = tl.where(best > worst, tl.minimum(ended, 1), 0)
        improves += tl.where(best > _UNREACHABLE, beams - ended, 0)
        all_end = tl.min(tl.where(known, hits, 1), axis=0)
        over = tl.where(improves > 0, 0, 1) | tl.where(ended == beams, early, 0)
        over = tl.where(enough > 0, tl.where(count_ended >= enough, 1, 0), over) | all_end | was_done
        tl.store(new_request_done_ptr + first_slot, over != 0)

    n = begin + tl.arange(0, BLOCK_N)
    written = is_beam[:, None] & (n < length)[None, :]
    # A row may be full where its request had ended.
    extended = is_beam[:, None] & (n < tl.minimum(length + 1 - was_done, longest))[None, :]
    to = slot[:, None] * longest + n[None, :]
    source = chosen_by(rank, k, parent)[:, None] * longest + n[None, :]
    new_token = chosen_by(rank, k, token)[:, None]
    history = tl.load(tokens_ptr + source, mask=written, other=0)
    is_new = (n == length)[None, :]
    tl.store(new_tokens_ptr + to, tl.where(is_new, new_token, history), mask=extended)
    tl.store(new_origin_ptr + to, tl.load(origin_ptr + source, mask=written, other=0), mask=written)

    # Of the two kinds of ended hypotheses one has the rank; an ended request may hold one of full length.
    final = is_beam[:, None] & (n < tl.minimum(length + 1, longest))[None, :]
    had_ended = (chosen_by(old_rank, k, tl.full((BLOCK_K,), 1, tl.int32)) > 0)[:, None]
    source = chosen_by(old_rank, k, slot)[:, None] * longest + n[None, :]
    earlier = tl.load(final_tokens_ptr + source, mask=final & had_ended, other=0)
    source = chosen_by(new_rank, k, parent)[:, None] * longest + n[None, :]
    new_token = chosen_by(new_rank, k, token)[:, None]
    history = tl.load(tokens_ptr + source, mask=written, other=0)
    history = tl.where(is_new, new_token, history)
    tl.store(new_final_tokens_ptr + to, tl.where(had_ended, earlier, history), mask=final)


def _blocks(architecture: str, block: int) -> dict[str, Any]:
    return {"BLOCK_C": block, "BLOCK_K": block // 2, "num_warps": 4 if block == 16 else 8}


_types = {
    f"{before}{name}_ptr": dtype
    for before in ("", "new_")
    for name, dtype in (
        *((name, torch.int32) for name in ("tokens", "origin", "length", "final_tokens")),
        *((name, torch.int32) for name in ("final_length", "ended_count")),
        *((name, torch.float32) for name in ("score", "final_score")),
        *((name, torch.bool) for name in ("final_done", "request_done")),
    )
} | {
    "values_ptr": torch.float32,
    "slots_ptr": torch.int64,
    "indices_ptr": torch.int64,
    "max_lengths_ptr": torch.int32,
    "prompt_lengths_ptr": torch.int32,
    "penalties_ptr": torch.float32,
}
advance_beams_kernel.declare_all(_BLOCKS, pointers=_types, blocks=_blocks, num_stages=1, BLOCK_N=64)
