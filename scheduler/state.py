"""Decode state: tokens, lengths and scores of the decoded hypotheses, in tables on the device.

Every table is indexed by sequence slot, a number that the scheduler lends to one hypothesis until its
release. Tokens and origins are double-buffered: a step reads one buffer and writes the other, because in
beam search a slot's new history may be another slot's old one.
"""

import torch
from torch import Tensor

from .inputs import uploaded

UNREACHABLE = -1.0e9  # transformers' score of a hypothesis that must not be chosen


class DecodeState:
    """State of up to `num_slots` hypotheses of at most `max_length` tokens.

    Attributes:
        tokens: int32 [2, slots, max_length], token ids of each hypothesis, in two buffers.
        origin: int32 [2, slots, max_length], the hypothesis (0 to k - 1) whose page holds a position.
        length: int32 [slots], number of tokens so far; the same for all slots of a request.
        score: float32 [slots], sum of log-probabilities.
        done: bool [slots], true where a sequence of greedy search or sampling has ended.
        final_tokens, final_length, final_score, final_done: best ended hypotheses of beam search, best first,
            in the slots of the request. In greedy search and sampling, `final_length` is the slot's own.
        request_done: bool [slots], true in the first slot of a request that has ended.
        buffer: 0 or 1, the buffer that the next step reads.
    """

    def __init__(self, num_slots: int, max_length: int, device: torch.device) -> None:
        self.tokens = torch.zeros(2, num_slots, max_length, dtype=torch.int32, device=device)
        self.origin = torch.zeros(2, num_slots, max_length, dtype=torch.int32, device=device)
        self.length = torch.zeros(num_slots, dtype=torch.int32, device=device)
        self.score = torch.zeros(num_slots, device=device)
        self.done = torch.zeros(num_slots, dtype=torch.bool, device=device)
        self.final_tokens = torch.zeros(num_slots, max_length, dtype=torch.int32, device=device)
        self.final_length = torch.zeros(num_slots, dtype=torch.int32, device=device)
        self.final_score = torch.zeros(num_slots, device=device)
        self.final_done = torch.zeros(num_slots, dtype=torch.bool, device=device)
        self.request_done = torch.zeros(num_slots, dtype=torch.bool, device=device)
        self.buffer = 0

    def admit(self, slots: tuple[int, ...], start_token: int, beams: bool) -> None:
        """Initialize the slots of a request's hypotheses with the start token.

        In beam search the scores of all hypotheses but the first start at -1e9, as in transformers, so that
        the first step does not choose the same token k times.
        """
        index = uploaded(torch.tensor(slots), self.tokens.device)
        self.tokens[self.buffer, index, 0] = start_token
        self.length[index] = 1
        self.score[index] = 0.0
        if beams:
            self.score[index[1:]] = UNREACHABLE
        self.done[index] = False
        self.final_length[index] = 0
        self.final_score[index] = UNREACHABLE
        self.final_done[index] = False
        self.request_done[index] = False

    def make_idle(self, slot: int) -> None:
        """Reserve a slot as that of an ended request, which decode steps leave unchanged."""
        self.tokens[:, slot] = 0
        self.origin[:, slot] = 0
        self.length[slot] = 1
        self.score[slot] = 0.0
        self.final_length[slot] = 0
        self.final_score[slot] = UNREACHABLE
        self.final_done[slot] = False
        self.done[slot] = True
        self.request_done[slot] = True

    def advance(self, slots: Tensor, parents: Tensor, tokens: Tensor, active: Tensor, longest: int) -> None:
        """Write every slot's history and new token to the other buffer.

        Args:
            slots: int64 [n], all slots of the batch.
            parents: int64 [n], the slot whose history each one continues.
            tokens: int [n], the new tokens.
            active: bool [n], false where no token is added.
            longest: upper bound of the number of tokens in any slot so far.
        """
        write, read = 1 - self.buffer, self.buffer
        self.tokens[write, slots, :longest] = self.tokens[read, parents, :longest]
        self.origin[write, slots, :longest] = self.origin[read, parents, :longest]
        # torch.where, since indexing by the active slots would wait for the device to count them.
        length = self.length[slots]
        position = length.clamp(max=self.tokens.shape[2] - 1).long()
        self.tokens[write, slots, position] = torch.where(
            active, tokens.int(), self.tokens[write, slots, position]
        )
        self.length[slots] = length + active.int()

    def swap(self) -> None:
        """Switch to reading the other buffer, once every running slot has been written there."""
        self.buffer = 1 - self.buffer
