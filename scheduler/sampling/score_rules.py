"""Logits processing by the generation options, in transformers' order."""

from functools import lru_cache

from torch import Tensor

from ...kernels.sampling.beams import BeamRules
from ...kernels.sampling.logits import TokenRules, apply_rules
from ...kernels.sampling.softmax import log_softmax
from ...kernels.sampling.warping import warp
from ..request import GenerationOptions


def process_scores(
    scores: Tensor,
    tokens: Tensor | None,
    lengths: Tensor,
    max_lengths: Tensor,
    options: GenerationOptions,
    *,
    min_lengths: Tensor | None = None,
    forced_first: Tensor | None = None,
    prompt_lengths: Tensor | None = None,
    normalize: bool = False,
    rules: TokenRules | None = None,
) -> Tensor:
    """Process next-token scores by all rules of `options`, such as penalties, banned tokens and top-p.

    Rows share the options but not their lengths. As in transformers, the scores to give are raw logits for
    greedy search and sampling, log-probabilities for beam search.

    Args:
        scores: [rows, vocabulary].
        tokens: int [rows, longest], the token ids of each row so far; None where no rule reads them.
        lengths: int [rows], the number of those tokens.
        max_lengths: int [rows], the maximum length of each row's request.
        options: options of all rows; max_length and seed are not used.
        min_lengths: int [rows], min_length of each row if `options` has one; by default that one for all.
        forced_first: int [rows], forced_bos_token_id of each row if `options` has one; as min_lengths.
        prompt_lengths: int [rows], number of tokens before the first generated one; 1 by default.
        normalize: True applies log-softmax before the first rule.
        rules: `token_rules` of the options, where the caller keeps them.

    Returns:
        float32 [rows, vocabulary]; `scores` itself where no rule applies.
    """
    rules = rules or token_rules(options)
    if not rules.idle:
        if tokens is None:
            raise ValueError("rules on tokens were given without the tokens of each row; give them")
        own = {"min_lengths": min_lengths, "forced_first": forced_first, "prompt_lengths": prompt_lengths}
        scores = apply_rules(scores, tokens, lengths, max_lengths, rules, **own, normalize=normalize)
    elif normalize:
        scores = log_softmax(scores)
    if options.do_sample:
        return warp(
            scores,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            keep=1 if options.num_beams == 1 else max(2, len(options.eos_token_ids) + 1),
            renormalize=options.renormalize_logits,
        )
    return log_softmax(scores) if options.renormalize_logits else scores


def leaves_scores(options: GenerationOptions) -> bool:
    """Check whether `process_scores` leaves scores unchanged under these options."""
    warped = options.temperature != 1.0 or options.top_k or options.top_p < 1.0
    sampling = options.do_sample and warped
    return token_rules(options).idle and not sampling and not options.renormalize_logits


@lru_cache(maxsize=256)
def token_rules(options: GenerationOptions) -> TokenRules:
    """Token rules of generation options, such as banned and forced tokens; cached for use in every step."""
    ends = [(token,) for token in options.eos_token_ids]
    return TokenRules(
        repetition_penalty=options.repetition_penalty,
        ngram_size=options.no_repeat_ngram_size,
        # transformers never bans an end token.
        banned_sequences=tuple(word for word in options.bad_words_ids if word not in ends),
        min_length=options.min_length,
        ends=options.eos_token_ids,
        forced_first=options.forced_bos_token_id,
        forced_last=options.forced_eos_token_ids,
        suppressed=options.suppress_tokens,
        begin_suppressed=options.begin_suppress_tokens,
        timestamps=options.timestamps,
    )


@lru_cache(maxsize=256)
def beam_rules(options: GenerationOptions) -> BeamRules:
    """Rules of beam search from generation options; cached for use in every step."""
    return BeamRules(
        options.num_beams,
        options.eos_token_ids,
        options.length_penalty,
        options.early_stopping,
        options.patience,
    )
