"""Selection of the next tokens: greedy search, sampling and beam search as transformers defines them.

Each works on a group of requests that share their rules, with the hypotheses in consecutive rows.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...kernels.sampling.append import append
from ...kernels.sampling.beams import BeamRules, advance_beams
from ...kernels.sampling.candidates import draw_candidates, top_candidates
from ...kernels.sampling.draw import draw, greedy
from ...kernels.sampling.logits import TokenRules
from ...kernels.sampling.softmax import log_softmax
from ..request import GenerationOptions
from ..state import DecodeState
from .score_rules import beam_rules, leaves_scores, process_scores, token_rules


@dataclass(frozen=True, slots=True)
class SamplingGroup:
    """Sampling group: n requests of a batch that share their rules, with k hypotheses each."""

    options: GenerationOptions  # shared rules; those of `batch._OWN` are each request's own
    rows: slice  # rows of the group in the batch
    slots: Tensor  # int64 [n * k], sequence slots
    max_lengths: Tensor  # int32 [n * k], as the next three
    min_lengths: Tensor
    forced_first: Tensor  # each request's forced_bos_token_id, where the rules have one
    prompt_lengths: Tensor
    seeds: Tensor  # int64 [n * k]
    sequence_index: Tensor  # int64 [n * k], a row's index among its request's hypotheses
    # Rules of the options. A recorded step reads their tables on the device, which they keep.
    rules: TokenRules = field(init=False)
    beam_rules: BeamRules = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", token_rules(self.options))
        object.__setattr__(self, "beam_rules", beam_rules(self.options))


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
    options, rules, slots = group.options, group.beam_rules, group.slots
    current, beams = state.current, rules.beams
    # Without rules, log-softmax is part of the search for candidates.
    normalize = leaves_scores(options) and not options.do_sample
    scores, lengths = logits, None
    if not normalize:
        lengths = current.length[slots]
        scores = _processed(group, logits, state, longest, lengths, normalize=True)
    if lengths is not None and options.do_sample:
        drawing = (
            group.seeds.view(-1, beams)[:, 0],
            torch.zeros_like(slots.view(-1, beams)[:, 0]),
            lengths.view(-1, beams)[:, 0],
        )
        candidates = draw_candidates(
            scores, rules.candidates, *drawing, running=current.score[slots], beams=beams
        )
    else:
        candidates = top_candidates(
            scores, rules.candidates, running=current.score, slots=slots, beams=beams, normalize=normalize
        )
    advance_beams(
        current,
        state.following,
        slots,
        *candidates,
        group.max_lengths,
        group.prompt_lengths,
        rules,
        vocabulary=logits.shape[1],
        longest=longest,
    )
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
        return logits
    tokens = None if group.rules.idle else state.current.tokens[group.slots, :longest]
    return process_scores(
        logits,
        tokens,
        lengths,
        group.max_lengths,
        group.options,
        min_lengths=group.min_lengths,
        forced_first=group.forced_first,
        prompt_lengths=group.prompt_lengths,
        normalize=normalize,
        rules=group.rules,
    )
