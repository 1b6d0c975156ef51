"""End of a step without beams: every sequence's new token, written to the tables of a decode state."""

from typing import Protocol

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import kernel
from ..runtime.optional_triton import tl

_MAX_ENDS = 4  # end tokens that fit the kernel's arguments


class SequenceTables(Protocol):
    """Tables that are indexed by a sequence's slot, all contiguous."""

    @property
    def tokens(self) -> Tensor:
        """int32 [slots, longest], the tokens of each sequence."""

    @property
    def origin(self) -> Tensor:
        """int32 [slots, longest], the hypothesis whose page holds a position."""

    @property
    def log_probabilities(self) -> Tensor:
        """float32 [slots, longest], those of each sequence's tokens; of `following` only."""

    @property
    def length(self) -> Tensor:
        """int32 [slots], number of tokens."""

    @property
    def score(self) -> Tensor:
        """float32 [slots], sum of log-probabilities."""

    @property
    def done(self) -> Tensor:
        """bool [slots], true for a sequence that has ended."""

    @property
    def final_length(self) -> Tensor:
        """int32 [slots], number of tokens of an ended sequence."""

    @property
    def final_done(self) -> Tensor:
        """bool [slots], true for a sequence that has ended with an end token."""

    @property
    def request_done(self) -> Tensor:
        """bool [slots], true in the first slot of a request whose sequences have all ended."""


def append(
    current: SequenceTables,
    following: SequenceTables,
    slots: Tensor,
    tokens: Tensor,
    log_probabilities: Tensor,
    max_lengths: Tensor,
    *,
    hypotheses: int,
    end_tokens: tuple[int, ...],
    pad_token: int,
) -> None:
    """Append a token to each sequence, and mark those that end; reads `current` and writes `following`.

    A sequence that had ended gets the padding token, as long as others of its request go on. Of its earlier
    tokens only the last is copied: those before it stand in `following` from the step before, since only
    such steps have written the slot since its admission.

    Args:
        slots: int64 [rows], those of a request next to each other.
        tokens: int64 [rows], the new tokens.
        log_probabilities: float32 [rows], of these tokens.
        max_lengths: int32 [rows].
        hypotheses: sequences of each request.
        end_tokens: tokens that end a sequence.
        pad_token: token behind the end of a sequence.
    """
    rows = slots, tokens, log_probabilities, max_lengths
    _append(current, following, *rows, hypotheses=hypotheses, end_tokens=end_tokens, pad_token=pad_token)


def append_reference(
    current: SequenceTables,
    following: SequenceTables,
    slots: Tensor,
    tokens: Tensor,
    log_probabilities: Tensor,
    max_lengths: Tensor,
    *,
    hypotheses: int,
    end_tokens: tuple[int, ...],
    pad_token: int,
) -> None:
    """Reference implementation of `append` in plain torch, which never waits for the device."""
    lengths, ended = current.length[slots], current.done[slots]
    first_slots = slots.view(-1, hypotheses)[:, 0]
    was_done = current.request_done[first_slots]
    tokens = torch.where(ended, pad_token, tokens)
    stops = torch.zeros_like(ended)
    for token in end_tokens:
        stops |= tokens == token
    stops &= ~ended
    ends = (stops | (lengths + 1 >= max_lengths)) & ~ended
    done = ended | ends
    following.score[slots] = current.score[slots] + torch.where(ended, 0.0, log_probabilities)
    following.final_length[slots] = torch.where(ends, lengths + 1, current.final_length[slots])
    following.final_done[slots] = current.final_done[slots] | stops
    following.done[slots] = done
    following.request_done[first_slots] = done.view(-1, hypotheses).all(-1)

    last = lengths.long() - 1
    following.tokens[slots, last] = current.tokens[slots, last]
    following.origin[slots, last] = current.origin[slots, last]
    # torch.where, since indexing by the active rows would wait for the device to count them.
    active = ~was_done[:, None].expand(-1, hypotheses).flatten()
    position = lengths.clamp(max=following.tokens.shape[1] - 1).long()
    following.tokens[slots, position] = torch.where(active, tokens.int(), following.tokens[slots, position])
    kept = following.log_probabilities
    kept[slots, position] = torch.where(active, log_probabilities, kept[slots, position])
    following.length[slots] = lengths + active.int()


def append_triton(
    current: SequenceTables,
    following: SequenceTables,
    slots: Tensor,
    tokens: Tensor,
    log_probabilities: Tensor,
    max_lengths: Tensor,
    *,
    hypotheses: int,
    end_tokens: tuple[int, ...],
    pad_token: int,
) -> None:
    """`append` in one launch; end tokens are arguments of it, so that a recorded step depends on no table."""
    rows = slots, tokens, log_probabilities, max_lengths
    if len(end_tokens) > _MAX_ENDS:
        named = {"hypotheses": hypotheses, "end_tokens": end_tokens, "pad_token": pad_token}
        append_reference(current, following, *rows, **named)  # type: ignore[arg-type]
        return
    tables = [getattr(group, name) for group in (current, following) for name in _TABLES]
    requests = slots.shape[0] // hypotheses
    case = append_kernel.case(slots.device)
    ends = [*end_tokens, *[-1] * (_MAX_ENDS - len(end_tokens))]
    numbers = requests, hypotheses, current.tokens.shape[1], pad_token, *ends
    written = *tables, following.log_probabilities
    case.launch((case.block_count("BLOCK", requests),), *rows, *written, *numbers)


_append = Operation(append_reference, triton=append_triton)

_TABLES = ("tokens", "origin", "length", "score", "done", "final_length", "final_done", "request_done")


@kernel(outputs=tuple(f"new_{name}_ptr" for name in (*_TABLES, "log_probabilities")))
def append_kernel(
    slots_ptr,  # [rows]
    chosen_ptr,  # [rows], the new tokens
    log_probabilities_ptr,  # [rows]
    max_lengths_ptr,  # [rows]
    tokens_ptr,  # [slots, longest]; this and the next ones are of `current`
    origin_ptr,  # [slots, longest]
    length_ptr,  # [slots], as the others
    score_ptr,
    done_ptr,
    final_length_ptr,
    final_done_ptr,
    request_done_ptr,
    new_tokens_ptr,  # [slots, longest]; this and the next ones are of `following`
    new_origin_ptr,
    new_length_ptr,
    new_score_ptr,
    new_done_ptr,
    new_final_length_ptr,
    new_final_done_ptr,
    new_request_done_ptr,
    new_log_probabilities_ptr,  # [slots, longest]
    requests: tl.int32,
    hypotheses: tl.int32,
    longest: tl.int32,
    pad_token: tl.int32,
    end_0: tl.int32,  # -1 for none, as the next ones
    end_1: tl.int32,
    end_2: tl.int32,
    end_3: tl.int32,
    BLOCK: tl.constexpr,
):
    request = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = request < requests
    first_row = request.to(tl.int64) * hypotheses
    first_slot = tl.load(slots_ptr + first_row, mask=inside, other=0)
    active = inside & (tl.load(request_done_ptr + first_slot, mask=inside, other=1) == 0)
    open_sequences = tl.zeros((BLOCK,), tl.int32)
    for index in range(0, hypotheses):
        row = first_row + index
        slot = tl.load(slots_ptr + row, mask=inside, other=0)
        length = tl.load(length_ptr + slot, mask=inside, other=1)
        ended = tl.load(done_ptr + slot, mask=inside, other=1).to(tl.int32)
        token = tl.load(chosen_ptr + row, mask=inside, other=0).to(tl.int32)
        token = tl.where(ended != 0, pad_token, token)
        is_end = (token == end_0) | (token == end_1) | (token == end_2) | (token == end_3)
        stops = tl.where(is_end & (ended == 0), 1, 0)
        at_limit = length + 1 >= tl.load(max_lengths_ptr + row, mask=inside, other=0)
        ends = tl.where(((stops != 0) | at_limit) & (ended == 0), 1, 0)
        open_sequences += tl.where((ended | ends) != 0, 0, 1)

        added = tl.load(log_probabilities_ptr + row, mask=inside, other=0.0)
        score = tl.load(score_ptr + slot, mask=inside, other=0.0) + tl.where(ended != 0, 0.0, added)
        tl.store(new_score_ptr + slot, score, mask=inside)
        final_length = tl.load(final_length_ptr + slot, mask=inside, other=0)
        tl.store(new_final_length_ptr + slot, tl.where(ends != 0, length + 1, final_length), mask=inside)
        final_done = tl.load(final_done_ptr + slot, mask=inside, other=0).to(tl.int32) | stops
        tl.store(new_final_done_ptr + slot, final_done != 0, mask=inside)
        tl.store(new_done_ptr + slot, (ended | ends) != 0, mask=inside)

        last = slot * longest + length - 1
        tl.store(new_tokens_ptr + last, tl.load(tokens_ptr + last, mask=inside, other=0), mask=inside)
        tl.store(new_origin_ptr + last, tl.load(origin_ptr + last, mask=inside, other=0), mask=inside)
        tl.store(new_tokens_ptr + last + 1, token, mask=active & (length < longest))
        tl.store(new_log_probabilities_ptr + last + 1, added, mask=active & (length < longest))
        tl.store(new_length_ptr + slot, length + tl.where(active, 1, 0), mask=inside)
    tl.store(new_request_done_ptr + first_slot, open_sequences == 0, mask=inside)


_types = {
    f"{before}{name}_ptr": dtype
    for before in ("", "new_")
    for name, dtype in (
        *((name, torch.int32) for name in ("tokens", "origin", "length", "final_length")),
        *((name, torch.bool) for name in ("done", "final_done", "request_done")),
        ("score", torch.float32),
    )
} | {
    "slots_ptr": torch.int64,
    "chosen_ptr": torch.int64,
    "log_probabilities_ptr": torch.float32,
    "new_log_probabilities_ptr": torch.float32,
    "max_lengths_ptr": torch.int32,
}
append_kernel.declare_all(pointers=_types, num_stages=1, num_warps=1, BLOCK=32)
