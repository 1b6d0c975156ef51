"""What the device remembers of the hypotheses being decoded.

Every table is indexed by row: a number that the scheduler lends to one hypothesis until its release.
Tokens and origins are double-buffered: a step reads one side and writes the other, because in a beam step
a row's new history may be another row's old one.
"""

import torch
from torch import Tensor

from .inputs import uploaded


class DecodeState:
    """Tables for `num_rows` hypotheses of at most `max_length` tokens.

    Attributes:
        tokens: int32 [2, rows, max_length].
        origin: int32 [2, rows, max_length], the hypothesis (0 to k - 1) whose page holds a position.
        length: int32 [rows], tokens so far; the same for all rows of a request.
        score: float32 [rows], sum of log-probabilities.
        done: bool [rows]: greedy search and sampling: the row has ended.
        final_tokens, final_length, final_score, final_done: beam search's best ended hypotheses, best first,
            in the rows of the request. For greedy search and sampling `final_length` is the row's own.
        request_done: bool [rows], in the request's first row.
    """

    def __init__(self, num_rows: int, max_length: int, device: torch.device) -> None:
        self.tokens = torch.zeros(2, num_rows, max_length, dtype=torch.int32, device=device)
        self.origin = torch.zeros(2, num_rows, max_length, dtype=torch.int32, device=device)
        self.length = torch.zeros(num_rows, dtype=torch.int32, device=device)
        self.score = torch.zeros(num_rows, device=device)
        self.done = torch.zeros(num_rows, dtype=torch.bool, device=device)
        self.final_tokens = torch.zeros(num_rows, max_length, dtype=torch.int32, device=device)
        self.final_length = torch.zeros(num_rows, dtype=torch.int32, device=device)
        self.final_score = torch.zeros(num_rows, device=device)
        self.final_done = torch.zeros(num_rows, dtype=torch.bool, device=device)
        self.request_done = torch.zeros(num_rows, dtype=torch.bool, device=device)
        self.side = 0

    def admit(self, rows: list[int], start_token: int, beams: bool) -> None:
        """Begin a request's hypotheses with their start token.

        In beam search only the first counts at first: the others start at -1e9, as in transformers, so that
        the first step does not choose the same token k times.
        """
        index = uploaded(torch.tensor(rows), self.tokens.device)
        self.tokens[self.side, index, 0] = start_token
        self.length[index] = 1
        self.score[index] = 0.0
        if beams:
            self.score[index[1:]] = -1e9
        self.done[index] = False
        self.final_length[index] = 0
        self.final_score[index] = -1e9
        self.final_done[index] = False
        self.request_done[index] = False

    def make_idle(self, row: int) -> None:
        """Let a row stand for a request that is over, for good: steps leave it as it is."""
        self.tokens[:, row] = 0
        self.origin[:, row] = 0
        self.length[row] = 1
        self.score[row] = 0.0
        self.final_length[row] = 0
        self.final_score[row] = -1e9
        self.final_done[row] = False
        self.done[row] = True
        self.request_done[row] = True

    def advance(self, rows: Tensor, parents: Tensor, tokens: Tensor, active: Tensor, longest: int) -> None:
        """Write every row's history and new token to the other side.

        Args:
            rows: int64 [n], all rows of the batch.
            parents: int64 [n], the row whose history each one goes on from.
            tokens: int [n], the new tokens.
            active: bool [n]: false keeps a row as it is.
            longest: tokens of the longest hypothesis so far, a bound for all rows.
        """
        there, here = 1 - self.side, self.side
        self.tokens[there, rows, :longest] = self.tokens[here, parents, :longest]
        self.origin[there, rows, :longest] = self.origin[here, parents, :longest]
        # Not by picking the active rows out, which would wait for the device to count them.
        length = self.length[rows]
        place = length.clamp(max=self.tokens.shape[2] - 1).long()
        self.tokens[there, rows, place] = torch.where(active, tokens.int(), self.tokens[there, rows, place])
        self.length[rows] = length + active.int()

    def turn(self) -> None:
        """From now on read the other side, once every running row has been written there."""
        self.side = 1 - self.side
