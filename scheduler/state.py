"""Decode state: tokens, lengths and scores of the decoded hypotheses, in tables on the device.

Every table is indexed by sequence slot, a number that the scheduler lends to one hypothesis until its
release. Tables are double-buffered: a step reads one buffer and writes the other, because in beam search a
slot's new history may be another slot's old one, and so that a step that fails can be repeated.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..kernels.sampling.beams_triton import UNREACHABLE


@dataclass(frozen=True, slots=True)
class StateTables:
    """Tables of a decode state in one of its buffers.

    Attributes:
        tokens: int32 [slots, max_length], token ids of each hypothesis.
        origin: int32 [slots, max_length], the hypothesis (0 to k - 1) whose page holds a position.
        log_probabilities: float32 [slots, max_length], of the generated tokens of greedy search and sampling;
            one table for both buffers, since steps only write it, at the new position.
        length: int32 [slots], number of tokens so far; the same for all slots of a request.
        score: float32 [slots], sum of log-probabilities.
        done: bool [slots], true where a sequence of greedy search or sampling has ended.
        final_tokens, final_length, final_score, final_done: best ended hypotheses of beam search, best first,
            in the slots of the request. In greedy search and sampling, `final_length` is the slot's own.
        ended_count: int32 [slots], number of hypotheses that have ended in beam search, of those too that
            are no longer among the best; in the first slot of the request.
        request_done: bool [slots], true in the first slot of a request that has ended.
    """

    tokens: Tensor
    origin: Tensor
    log_probabilities: Tensor
    length: Tensor
    score: Tensor
    done: Tensor
    final_tokens: Tensor
    final_length: Tensor
    final_score: Tensor
    final_done: Tensor
    ended_count: Tensor
    request_done: Tensor

    @classmethod
    def zeros(cls, num_slots: int, max_length: int, device: torch.device) -> "StateTables":
        """Create tables filled with zeros."""

        def table(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            tokens=table(num_slots, max_length),
            origin=table(num_slots, max_length),
            log_probabilities=table(num_slots, max_length, dtype=torch.float32),
            length=table(num_slots),
            score=table(num_slots, dtype=torch.float32),
            done=table(num_slots, dtype=torch.bool),
            final_tokens=table(num_slots, max_length),
            final_length=table(num_slots),
            final_score=table(num_slots, dtype=torch.float32),
            final_done=table(num_slots, dtype=torch.bool),
            ended_count=table(num_slots),
            request_done=table(num_slots, dtype=torch.bool),
        )


class DecodeState:
    """State of up to `num_slots` hypotheses of at most `max_length` tokens.

    A step reads `current`, writes every row of its batch to `following`, and counts once `swap` has been
    called. Until then it changes in `current` only origins at the new position, to the same values each time,
    so that a step that failed half-way can be repeated, as a whole or in parts.

    Attributes:
        buffers: the tables in both buffers.
        buffer: 0 or 1, the buffer that the next step reads.
        current: tables that the next step reads.
        following: tables that the next step writes.
    """

    def __init__(self, num_slots: int, max_length: int, device: torch.device) -> None:
        self.num_slots, self.max_length, self.device = num_slots, max_length, device
        first, second = (StateTables.zeros(num_slots, max_length, device) for _ in range(2))
        self.buffers = first, replace(second, log_probabilities=first.log_probabilities)
        self.buffer = 0
        self.current, self.following = self.buffers

    def begin(
        self,
        slots: Tensor,
        lengths: Tensor,
        token_slots: Tensor,
        positions: Tensor,
        tokens: Tensor,
        owners: Tensor,
    ) -> None:
        """Begin sequences that have been admitted with their prompts.

        Both buffers get the prompts: a step copies no more than the newest token where no beams are searched.

        Args:
            slots: int64 [n].
            lengths: int32 [n], tokens of each prompt.
            token_slots, positions: int64 [tokens], slot and position of each token.
            tokens: int32 [tokens], the prompts.
            owners: int32 [tokens], the hypothesis of each slot, whose pages hold its prompt.
        """
        for tables in self.buffers:
            tables.tokens.index_put_((token_slots, positions), tokens)
            tables.origin.index_put_((token_slots, positions), owners)
        self.current.length.index_copy_(0, slots, lengths)

    def replace(self, slots: Tensor, positions: Tensor, tokens: Tensor) -> None:
        """Replace tokens of prompts, int32 [n], by their slots and positions, int64 [n]."""
        for tables in self.buffers:
            tables.tokens.index_put_((slots, positions), tokens)

    def make_idle(self, slot: int) -> None:
        """Reserve a slot as that of an ended request, which decode steps leave unchanged."""
        for tables in self.buffers:
            tables.tokens[slot] = 0
            tables.origin[slot] = 0
            tables.length[slot] = 1
            tables.score[slot] = 0.0
            tables.final_length[slot] = 0
            tables.final_score[slot] = UNREACHABLE
            tables.final_done[slot] = False
            tables.ended_count[slot] = 0
            tables.done[slot] = True
            tables.request_done[slot] = True

    def swap(self) -> None:
        """Make a step count, once it has written every running slot: the next one reads what it wrote."""
        self.buffer = 1 - self.buffer
        self.current, self.following = self.following, self.current
