"""Selection of the next tokens: greedy search, sampling and beam search as transformers defines them.

Each works on a group of requests that share their rules, with the hypotheses in consecutive rows.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...kernels.sampling.append import append
from ...kernels.sampling.candidates import draw_candidates, top_candidates
from ...kernels.sampling.draw import draw, greedy
from ...kernels.sampling.logits import TokenRules
from ...kernels.sampling.softmax import log_softmax
from ..request import GenerationOptions
from ..state import UNREACHABLE, DecodeState, StateTables
from .score_rules import leaves_scores, process_scores, token_rules


@dataclass(frozen=True, slots=True)
class SamplingGroup:
    """Sampling group: n requests of a batch that share their rules, with k hypotheses each."""

    options: GenerationOptions  # shared rules; lengths, seed and prompt are each request's own
    rows: slice  # rows of the group in the batch
    slots: Tensor  # int64 [n * k], sequence slots
    max_lengths: Tensor  # int32 [n * k], as the next two
    min_lengths: Tensor
    prompt_lengths: Tensor
    seeds: Tensor  # int64 [n * k]
    sequence_index: Tensor  # int64 [n * k], a row's index among its request's hypotheses
    # Token rules of the options. A recorded step reads their table on the device, which they keep.
    rules: TokenRules = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", token_rules(self.options))


@dataclass(frozen=True, slots=True)
class StepScores:
    """Scores that the next tokens of a sampling group were chosen by."""

    processed: Tensor  # [rows, vocabulary], scores after the rules of the options
    normalize: bool = False  # True where log-softmax of `processed` has not been computed: no kernel needs it

    def final(self) -> Tensor:
        """Scores after the rules of the options, float32 [rows, vocabulary]."""
        return log_softmax(self.processed) if self.normalize else self.processed.float()


def select(group: SamplingGroup, logits: Tensor, state: DecodeState, longest: int) -> StepScores:
    """Choose the next tokens of a sampling group, and write its rows of `state.following`.

    Args:
        logits: [rows, vocabulary].
        longest: upper bound of the lengths in the group.
    """
    if group.options.num_beams > 1:
        return _beam_search(group, logits, state, longest)
    return _single(group, logits, state, longest)


def _single(group: SamplingGroup, logits: Tensor, state: DecodeState, longest: int) -> StepScores:
    """Next tokens by greedy search or sampling, where rows are independent."""
    options = group.options
    scores, lengths = logits, None
    if options.do_sample or not leaves_scores(options):
        lengths = state.current.length[group.slots]
        scores = _processed(group, logits, state, longest, lengths)
    if options.score_after_rules:
        logits = scores * options.temperature if options.do_sample else scores
    if lengths is not None and options.do_sample:
        tokens, log_probability = draw(logits, scores, group.seeds, group.sequence_index, lengths)
    else:
        tokens, log_probability = greedy(logits, None if scores is logits else scores)
    append(
        state.current,
        state.following,
        group.slots,
        tokens,
        log_probability,
        group.max_lengths,
        hypotheses=options.hypotheses,
        end_tokens=options.eos_token_ids,
        pad_token=options.pad_token_id,
    )
    return StepScores(scores)


def _beam_search(group: SamplingGroup, logits: Tensor, state: DecodeState, longest: int) -> StepScores:
    """Next tokens by transformers' beam search, each request as if it were alone in its batch."""
    options, slots, beams = group.options, group.slots, group.options.num_beams
    current, following = state.current, state.following
    lengths = current.length[slots]
    by_request = slots.view(-1, beams)
    first_slots = by_request[:, 0]
    count = max(2, 1 + len(options.eos_token_ids)) * beams
    # Without rules, log-softmax is part of the search for candidates.
    normalize = leaves_scores(options) and not options.do_sample
    scores = logits if normalize else _processed(group, logits, state, longest, lengths, normalize=True)
    running, vocabulary = current.score[slots], logits.shape[1]
    if options.do_sample:
        drawing = (
            group.seeds.view(-1, beams)[:, 0],
            torch.zeros_like(first_slots),
            lengths.view(-1, beams)[:, 0],
        )
        values, indices = draw_candidates(scores, count, *drawing, running=running, beams=beams)
    else:
        values, indices = top_candidates(scores, count, running=running, beams=beams, normalize=normalize)
    parents, tokens = by_request.gather(1, indices // vocabulary), indices % vocabulary

    length = lengths.view(-1, beams)[:, :1]
    max_length = group.max_lengths.view(-1, beams)[:, :1]
    hits = _is_end(tokens, options) | (length + 1 >= max_length)
    was_done = current.request_done[first_slots]
    active = ~was_done

    open_scores = values + hits.float() * UNREACHABLE
    new_scores, best = _best(open_scores, beams)
    new_parents, new_tokens = parents.gather(1, best), tokens.gather(1, best)

    _keep_finished(group, state, active, values, parents, tokens, hits, longest)
    following.score[slots] = torch.where(active[:, None], new_scores, current.score[by_request]).flatten()
    prompt_length = group.prompt_lengths.view(-1, beams)[:, :1]
    lengths_over = length - prompt_length, max_length - prompt_length
    over = _is_over(options, following, by_request, new_scores, *lengths_over) | hits.all(-1)
    following.request_done[first_slots] = was_done | over
    rows_active = active[:, None].expand(-1, beams).flatten()
    state.advance(slots, new_parents.flatten(), new_tokens.flatten(), rows_active, longest)
    return StepScores(scores, normalize)


def _processed(
    group: SamplingGroup,
    logits: Tensor,
    state: DecodeState,
    longest: int,
    lengths: Tensor,
    *,
    normalize: bool = False,
) -> Tensor:
    """Scores after the rules of a group; `logits` themselves where no rule applies."""
    if leaves_scores(group.options) and not normalize:
        return logits  # saves a copy of the token histories
    tokens = state.current.tokens[group.slots, :longest]
    return process_scores(
        logits,
        tokens,
        lengths,
        group.max_lengths,
        group.options,
        min_lengths=group.min_lengths,
        prompt_lengths=group.prompt_lengths,
        normalize=normalize,
        rules=group.rules,
    )


def _keep_finished(
    group: SamplingGroup,
    state: DecodeState,
    active: Tensor,  # [requests]
    values: Tensor,  # [requests, candidates]
    parents: Tensor,  # [requests, candidates]
    tokens: Tensor,  # [requests, candidates]
    hits: Tensor,  # [requests, candidates]
    longest: int,
) -> None:
    """Merge the candidates that have ended into each request's best ended hypotheses."""
    options, beams = group.options, group.options.num_beams
    slots = group.slots.view(-1, beams)
    current, following = state.current, state.following
    length = current.length[slots[:, :1]]
    # Only the first k candidates may end a hypothesis; with the others k can continue.
    among_first = torch.arange(values.shape[1], device=values.device) < beams
    finished = hits & among_first
    # The length counts the new token and not the prompt.
    generated = length + 1 - group.prompt_lengths.view(-1, beams)[:, :1]
    penalty = (generated.double() ** options.length_penalty).float()
    candidate_scores = values / penalty + (~finished).float() * UNREACHABLE
    merged_scores = torch.cat([current.final_score[slots], candidate_scores], 1)
    merged_done = torch.cat([current.final_done[slots], finished], 1)
    merged_length = torch.cat([current.final_length[slots], (length + 1).expand_as(tokens)], 1)
    best_scores, best = _best(merged_scores, beams)
    had_ended = best < beams
    old_slots = slots.gather(1, best.clamp(max=beams - 1))
    candidates = (best - beams).clamp(min=0)
    histories = torch.where(
        had_ended[:, :, None],
        current.final_tokens[old_slots, : longest + 1],
        _with_token(current, parents.gather(1, candidates), tokens.gather(1, candidates), length, longest),
    )
    # torch.where, since indexing by the active rows would wait for the device to count them.
    update = active[:, None]
    following.final_tokens[slots, : longest + 1] = torch.where(
        update[:, :, None], histories, current.final_tokens[slots, : longest + 1]
    )
    following.final_score[slots] = torch.where(update, best_scores, current.final_score[slots])
    merged_done, merged_length = merged_done.gather(1, best), merged_length.gather(1, best)
    following.final_done[slots] = torch.where(update, merged_done, current.final_done[slots])
    following.final_length[slots] = torch.where(update, merged_length, current.final_length[slots])


def _with_token(tables: StateTables, parents: Tensor, tokens: Tensor, length: Tensor, longest: int) -> Tensor:
    """Histories of `parents` [requests, n] extended by a token at `length` [requests, 1].

    Returns:
        int32 [requests, n, longest + 1], or less where the state's tables are narrower.
    """
    histories = tables.tokens[parents, : longest + 1].clone()
    position = length[:, :, None].expand(-1, parents.shape[1], 1).long()
    position = position.clamp(max=histories.shape[2] - 1)  # an ended request may stand at the very end
    return histories.scatter_(2, position, tokens[:, :, None].int())


def _is_over(
    options: GenerationOptions,
    tables: StateTables,  # with the hypotheses that ended in this step
    slots: Tensor,  # [requests, beams]
    scores: Tensor,  # [requests, beams], of the open beams, best first
    length: Tensor,  # [requests, 1], generated before the new token
    max_length: Tensor,  # [requests, 1], of generated tokens
) -> Tensor:
    """Flag requests whose open beams cannot improve on the ended ones, by transformers' estimate."""
    finished, final = tables.final_done[slots], tables.final_score[slots]
    hopeful = max_length if options.early_stopping == "never" and options.length_penalty > 0 else length + 1
    best_possible = scores[:, :1] / (hopeful.double() ** options.length_penalty).float()
    worst_finished = torch.where(finished, final.amin(-1, keepdim=True), UNREACHABLE)
    over = ~(best_possible > worst_finished).any(-1)
    return over | finished.all(-1) if options.early_stopping is True else over


def _best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Best `count` scores of each row with their indices; equal scores keep their order."""
    values, order = scores.sort(dim=-1, descending=True, stable=True)
    return values[:, :count], order[:, :count]


def _is_end(tokens: Tensor, options: GenerationOptions) -> Tensor:
    ends = torch.zeros_like(tokens, dtype=torch.bool)
    for token in options.eos_token_ids:
        ends |= tokens == token
    return ends
