"""End of a beam-search step: hypotheses that go on and that have ended, in the tables of a decode state."""

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.upload import upload
from .append import SequenceTables
from .beams_triton import UNREACHABLE, advance_beams_kernel, candidates_block

_MAX_ENDS = 4  # end tokens that fit the kernel's arguments


class BeamTables(SequenceTables, Protocol):
    """Tables of sequences and of the best ended hypotheses of each request, in the slots of the request."""

    @property
    def final_tokens(self) -> Tensor:
        """int32 [slots, longest], the tokens of an ended hypothesis."""

    @property
    def final_score(self) -> Tensor:
        """float32 [slots], its score."""

    @property
    def ended_count(self) -> Tensor:
        """int32 [slots], number of hypotheses that have ended, in the first slot of the request."""


@dataclass(frozen=True, slots=True)
class BeamRules:
    """Rules of beam search, as transformers defines them, and CTranslate2's patience."""

    beams: int
    end_tokens: tuple[int, ...] = ()
    length_penalty: float = 1.0  # exponent of the length by which the score of an ended hypothesis is divided
    early_stopping: bool | str = False  # True, False or "never": when a request ends with open beams
    patience: float | None = None  # ends a request by the number of its ended hypotheses, and by nothing else
    # Tables on devices: a recorded launch holds the address of one, so who records it keeps these rules.
    _tables: dict[tuple[torch.device, int], Tensor] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @property
    def candidates(self) -> int:
        """Candidates of a step, of which k do not end even if all end tokens are among each beam's best."""
        return max(2, 1 + len(self.end_tokens)) * self.beams

    @property
    def hopes(self) -> bool:
        """True where an open beam counts as if it would reach its maximum length with the score it has."""
        return self.early_stopping == "never" and self.length_penalty > 0

    @property
    def enough(self) -> int:
        """Number of ended hypotheses that ends a request; 0 where `early_stopping` says when."""
        # Halves away from 0, as C++ rounds, where openai's Python rounds them to even.
        return 0 if self.patience is None else max(math.floor(self.beams * self.patience + 0.5), 1)

    def penalties(self, longest: int, device: torch.device) -> Tensor:
        """Divisors of scores by length, 0 to `longest`, float32; made once, and kept as long as these rules.

        Powers are computed on the host, so that they have the same bits on every device.
        """
        table = self._tables.get((device, longest))
        if table is None:
            with torch.inference_mode(False):  # outlives the inference mode of the first step
                lengths = torch.arange(longest + 1, dtype=torch.float64)
                table = upload((lengths**self.length_penalty).float(), device)
            self._tables[device, longest] = table
        return table


def advance_beams(
    current: BeamTables,
    following: BeamTables,
    slots: Tensor,
    values: Tensor,
    indices: Tensor,
    max_lengths: Tensor,
    prompt_lengths: Tensor,
    rules: BeamRules,
    *,
    vocabulary: int,
    longest: int,
) -> None:
    """Continue each request with its best open candidates, and merge those that end into its ended ones.

    Reads `current` and writes `following`. A request that had ended keeps its results, scores and length;
    its open histories are of no use any more.

    Args:
        slots: int64 [requests * beams], those of a request next to each other.
        values, indices: float32 and int64 [requests, candidates], as from `top_candidates`.
        max_lengths: int32 [requests * beams].
        prompt_lengths: int32 [requests * beams], number of tokens before the first generated one.
        rules: rules that all requests share.
        vocabulary: number of tokens, which divides an index into beam and token.
        longest: upper bound of the lengths so far.
    """
    rows = slots, values, indices, max_lengths, prompt_lengths
    _advance_beams(current, following, *rows, rules, vocabulary=vocabulary, longest=longest)


def advance_beams_reference(
    current: BeamTables,
    following: BeamTables,
    slots: Tensor,
    values: Tensor,
    indices: Tensor,
    max_lengths: Tensor,
    prompt_lengths: Tensor,
    rules: BeamRules,
    *,
    vocabulary: int,
    longest: int,
) -> None:
    """Reference implementation of `advance_beams` in plain torch, which never waits for the device."""
    beams = rules.beams
    by_request = slots.view(-1, beams)
    parents, tokens = by_request.gather(1, indices // vocabulary), indices % vocabulary
    length = current.length[by_request[:, :1]]
    max_length, prompt = (given.view(-1, beams)[:, :1] for given in (max_lengths, prompt_lengths))
    hits = length + 1 >= max_length
    for token in rules.end_tokens:
        hits = hits | (tokens == token)
    hits = hits.expand_as(tokens)
    was_done = current.request_done[by_request[:, :1]]
    penalties = rules.penalties(current.tokens.shape[1], slots.device)

    scores, best = _best(values + hits.float() * UNREACHABLE, beams)
    added = _with_token(
        current.tokens, parents.gather(1, best), tokens.gather(1, best), length, longest, ~was_done
    )
    following.tokens[by_request, : added.shape[2]] = added
    following.origin[by_request, :longest] = current.origin[parents.gather(1, best), :longest]
    following.length[by_request] = (length + (~was_done).int()).expand_as(by_request)
    following.score[by_request] = torch.where(was_done, current.score[by_request], scores)

    # Only the first k candidates may end a hypothesis; with the others k can continue.
    ended = hits & (torch.arange(values.shape[1], device=values.device) < beams)
    candidates = values / penalties[(length + 1 - prompt).long()] + (~ended).float() * UNREACHABLE
    merged = torch.cat([current.final_score[by_request], candidates], 1)
    final_score, best = _best(merged, beams)
    final_done = torch.cat([current.final_done[by_request], ended], 1).gather(1, best)
    # The length counts the new token, that of a penalty generated tokens alone.
    lengths = torch.cat([current.final_length[by_request], (length + 1).expand_as(tokens)], 1)
    place = (best - beams).clamp(min=0)
    histories = _with_token(
        current.tokens, parents.gather(1, place), tokens.gather(1, place), length, longest, ~was_done
    )
    width = histories.shape[2]
    earlier = current.final_tokens[by_request.gather(1, best.clamp(max=beams - 1)), :width]
    histories = torch.where((best < beams)[:, :, None], earlier, histories)
    for table, old, new in (
        (following.final_score, current.final_score, final_score),
        (following.final_done, current.final_done, final_done),
        (following.final_length, current.final_length, lengths.gather(1, best)),
    ):
        # torch.where, since indexing by the active rows would wait for the device to count them.
        table[by_request] = torch.where(was_done, old[by_request], new)
    kept = current.final_tokens[by_request, :width]
    following.final_tokens[by_request, :width] = torch.where(was_done[:, :, None], kept, histories)

    count = current.ended_count[by_request[:, :1]]
    count = torch.where(was_done, count, count + ended.sum(-1, keepdim=True).int())
    following.ended_count[by_request[:, :1]] = count
    if rules.enough:
        over = (count >= rules.enough) | hits.all(-1, keepdim=True)
        following.request_done[by_request[:, :1]] = was_done | over
        return
    # Over where no open beam can improve on the ended ones, by transformers' estimate.
    hopeful = (max_length if rules.hopes else length + 1) - prompt
    best_possible = scores[:, :1] / penalties[hopeful.long()]
    worst_ended = torch.where(final_done, final_score.amin(-1, keepdim=True), UNREACHABLE)
    over = ~(best_possible > worst_ended).any(-1, keepdim=True) | hits.all(-1, keepdim=True)
    if rules.early_stopping is True:
        over = over | final_done.all(-1, keepdim=True)
    following.request_done[by_request[:, :1]] = was_done | over


def _best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Best `count` scores of each row with their indices; equal scores keep their order."""
    values, order = scores.sort(dim=-1, descending=True, stable=True)
    return values[:, :count], order[:, :count]


def _with_token(
    table: Tensor, parents: Tensor, tokens: Tensor, length: Tensor, longest: int, active: Tensor
) -> Tensor:
    """Histories of `parents` [requests, n], extended by a token at `length` [requests, 1] where active.

    Returns:
        int32 [requests, n, longest + 1], or less where the table is narrower.
    """
    histories = table[parents, : longest + 1]
    position = torch.arange(histories.shape[2], device=length.device)
    is_new = (position == length)[:, None] & active[:, :, None]
    return torch.where(is_new, tokens[:, :, None].int(), histories)


def advance_beams_triton(
    current: BeamTables,
    following: BeamTables,
    slots: Tensor,
    values: Tensor,
    indices: Tensor,
    max_lengths: Tensor,
    prompt_lengths: Tensor,
    rules: BeamRules,
    *,
    vocabulary: int,
    longest: int,
) -> None:
    """`advance_beams` in one launch, which copies histories no further than their lengths.

    End tokens are arguments of it, so that a recorded step depends on no table but that of penalties.
    """
    (requests, count), width = values.shape, current.tokens.shape[1]
    block, ends = candidates_block(count), rules.end_tokens
    if block is None or len(ends) > _MAX_ENDS:
        rows = slots, values, indices, max_lengths, prompt_lengths
        advance_beams_reference(current, following, *rows, rules, vocabulary=vocabulary, longest=longest)
        return
    case = advance_beams_kernel.case(slots.device, block)
    tables = [getattr(group, name) for group in (current, following) for name in _TABLES]
    given = values, slots, indices, max_lengths, prompt_lengths, rules.penalties(width, slots.device)
    numbers = rules.beams, count, vocabulary, width, rules.early_stopping is True, rules.hopes, rules.enough
    grid = requests, case.block_count("BLOCK_N", longest + 1)
    case.launch(grid, *given, *tables, *numbers, *ends, *[-1] * (_MAX_ENDS - len(ends)))


_advance_beams = Operation(advance_beams_reference, triton=advance_beams_triton)

_TABLES = (
    *("tokens", "origin", "length", "score"),
    *("final_tokens", "final_length", "final_score", "final_done", "ended_count", "request_done"),
)
