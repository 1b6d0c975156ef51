"""Sequences that have ended, read from the tables by slot in one launch, for one copy to the host."""

from typing import Protocol

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import kernel
from ..runtime.optional_triton import tl

BEFORE = 2  # columns of a sequence before its tokens: its length and its score


class EndedTables(Protocol):
    """Tables by sequence slot of sequences that have ended, all contiguous."""

    @property
    def tokens(self) -> Tensor:
        """int32 [slots, longest], without beam search."""

    @property
    def score(self) -> Tensor:
        """float32 [slots], without beam search."""

    @property
    def final_tokens(self) -> Tensor:
        """int32 [slots, longest], of beam search."""

    @property
    def final_score(self) -> Tensor:
        """float32 [slots], of beam search."""

    @property
    def final_length(self) -> Tensor:
        """int32 [slots], of both."""


def finished(tables: EndedTables, ended: Tensor, longest: int) -> Tensor:
    """Length, score and tokens of sequences that have ended.

    Args:
        tables: tables of the sequences.
        ended: int32 [rows, 2], slot of each, and 1 for beam search, else 0.
        longest: upper bound of their lengths.

    Returns:
        int32 [rows, 2 + longest], the length, the float32 score's bits, and the tokens.
    """
    out: Tensor = _finished(tables, ended, longest)
    return out


def finished_reference(tables: EndedTables, ended: Tensor, longest: int) -> Tensor:
    """Reference implementation of `finished` in plain torch."""
    index, searched = ended[:, 0].long(), ended[:, 1] > 0
    scores = torch.where(searched, tables.final_score[index], tables.score[index])
    tokens = torch.where(
        searched[:, None], tables.final_tokens[index, :longest], tables.tokens[index, :longest]
    )
    columns = tables.final_length[index][:, None], scores.view(torch.int32)[:, None], tokens
    return torch.cat(columns, dim=1)


def finished_triton(tables: EndedTables, ended: Tensor, longest: int) -> Tensor:
    """`finished` in one launch."""
    rows = ended.shape[0]
    out = ended.new_empty(rows, BEFORE + longest)
    case = finished_kernel.case(ended.device)
    given = tables.final_length, tables.score, tables.tokens, tables.final_score, tables.final_tokens
    case.launch((rows,), ended, *given, out, tables.tokens.shape[1], longest)
    return out


_finished = Operation(finished_reference, triton=finished_triton)


@kernel()
def finished_kernel(
    ended_ptr,  # [rows, 2]
    final_length_ptr,  # [slots]
    score_ptr,  # [slots]
    tokens_ptr,  # [slots, width]
    final_score_ptr,  # [slots]
    final_tokens_ptr,  # [slots, width]
    out_ptr,  # [rows, BEFORE + longest]
    width: tl.int32,
    longest: tl.int32,
    BEFORE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    slot, searched = tl.load(ended_ptr + 2 * row).to(tl.int64), tl.load(ended_ptr + 2 * row + 1)
    to_ptr = out_ptr + row * (BEFORE + longest)
    tl.store(to_ptr, tl.load(final_length_ptr + slot))
    if searched != 0:
        score = tl.load(final_score_ptr + slot)
        tl.store(to_ptr + 1, score.to(tl.int32, bitcast=True))
    else:
        score = tl.load(score_ptr + slot)
        tl.store(to_ptr + 1, score.to(tl.int32, bitcast=True))
    plain_end = tl.where(searched != 0, 0, longest)
    final_end = longest - plain_end
    for start in range(0, longest, BLOCK):
        place = start + tl.arange(0, BLOCK)
        plain = tl.load(tokens_ptr + slot * width + place, mask=place < plain_end, other=0)
        final = tl.load(final_tokens_ptr + slot * width + place, mask=place < final_end, other=0)
        tl.store(to_ptr + BEFORE + place, plain | final, mask=place < longest)


_types = dict.fromkeys(("score_ptr", "final_score_ptr"), torch.float32) | dict.fromkeys(
    ("ended_ptr", "final_length_ptr", "tokens_ptr", "final_tokens_ptr", "out_ptr"), torch.int32
)
finished_kernel.declare_all(pointers=_types, num_stages=1, num_warps=1, BEFORE=BEFORE, BLOCK=128)
