"""What the generation options do to scores over the vocabulary, in transformers' order."""

import torch
from torch import Tensor

from ..kernels.sampling import ban_repeated_ngrams, ban_sequence, penalise_repetition, warp
from .request import GenerationOptions

_NEVER = float("-inf")


def process_scores(
    scores: Tensor, tokens: Tensor, lengths: Tensor, max_lengths: Tensor, options: GenerationOptions
) -> Tensor:
    """Scores after every rule of `options`; rows share the options but not their lengths.

    Greedy search and sampling give raw logits, beam search log-probabilities, as in transformers.

    Args:
        scores: float32 [rows, vocabulary].
        tokens: int [rows, longest], so far.
        lengths: int [rows], how many of them there are.
        max_lengths: int [rows], where each row's request ends.
        options: whose max_length and seed are not looked at.

    Returns:
        float32 [rows, vocabulary].
    """
    if options.repetition_penalty != 1.0:
        scores = penalise_repetition(scores, tokens, lengths, options.repetition_penalty)
    if options.no_repeat_ngram_size:
        scores = ban_repeated_ngrams(scores, tokens, lengths, options.no_repeat_ngram_size)
    for word in options.bad_words_ids:
        if word not in [(token,) for token in options.eos_token_ids]:  # transformers never bans the end
            scores = ban_sequence(scores, tokens, lengths, word)
    if options.min_length and options.eos_token_ids:
        scores = _ban(scores, options.eos_token_ids, lengths < options.min_length)
    if options.forced_bos_token_id is not None:
        scores = _force(scores, (options.forced_bos_token_id,), lengths == 1)
    if options.forced_eos_token_ids:
        scores = _force(scores, options.forced_eos_token_ids, lengths == max_lengths - 1)
    if options.suppress_tokens:
        scores = _ban(scores, options.suppress_tokens, torch.ones_like(lengths, dtype=torch.bool))
    if options.begin_suppress_tokens:
        begin = 1 if options.forced_bos_token_id is None else 2
        scores = _ban(scores, options.begin_suppress_tokens, lengths == begin)
    if options.do_sample:
        keep = 1 if options.num_beams == 1 else max(2, len(options.eos_token_ids) + 1)
        scores = warp(
            scores, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, keep=keep
        )
    return scores.log_softmax(-1) if options.renormalize_logits else scores


def _ban(scores: Tensor, token_ids: tuple[int, ...], where: Tensor) -> Tensor:
    """These tokens at -inf in the rows `where` [rows] is true."""
    columns = torch.tensor(token_ids, device=scores.device)
    return scores.index_fill(1, columns, _NEVER).where(where[:, None], scores)


def _force(scores: Tensor, token_ids: tuple[int, ...], where: Tensor) -> Tensor:
    """Nothing but these tokens, at 0, in the rows `where` [rows] is true."""
    columns = torch.tensor(token_ids, device=scores.device)
    forced = torch.full_like(scores, _NEVER).index_fill(1, columns, 0.0)
    return forced.where(where[:, None], scores)
