"""Rules of the generation options, against transformers' processors in transformers' order."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import (
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    LogitNormalization,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tritone.scheduler.batch import rules_of
from tritone.scheduler.request import GenerationOptions
from tritone.scheduler.sampling.score_rules import process_scores

VOCABULARY, MAX_LENGTH = 23, 12
PLAIN = GenerationOptions(max_length=0, top_k=0, eos_token_ids=(2,))


def theirs(options: GenerationOptions, max_length: int) -> LogitsProcessorList:
    """transformers' processors for these options, in the order of its `_get_logits_processor`."""
    rules = LogitsProcessorList()
    eos = list(options.eos_token_ids)
    if options.repetition_penalty != 1.0:
        rules.append(RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if options.no_repeat_ngram_size:
        rules.append(NoRepeatNGramLogitsProcessor(options.no_repeat_ngram_size))
    if options.bad_words_ids:
        rules.append(NoBadWordsLogitsProcessor([list(word) for word in options.bad_words_ids], eos))
    if options.min_length:
        rules.append(MinLengthLogitsProcessor(options.min_length, eos))
    if options.forced_bos_token_id is not None:
        rules.append(ForcedBOSTokenLogitsProcessor(options.forced_bos_token_id))
    if options.forced_eos_token_ids:
        rules.append(ForcedEOSTokenLogitsProcessor(max_length, list(options.forced_eos_token_ids)))
    if options.suppress_tokens:
        rules.append(SuppressTokensLogitsProcessor(list(options.suppress_tokens)))
    if options.begin_suppress_tokens:
        begin = 1 if options.forced_bos_token_id is None else 2
        rules.append(SuppressTokensAtBeginLogitsProcessor(list(options.begin_suppress_tokens), begin))
    if options.do_sample:
        keep = 1 if options.num_beams == 1 else len(eos) + 1
        if options.temperature != 1.0:
            rules.append(TemperatureLogitsWarper(options.temperature))
        if options.top_k:
            rules.append(TopKLogitsWarper(options.top_k, min_tokens_to_keep=keep))
        if options.top_p < 1.0:
            rules.append(TopPLogitsWarper(options.top_p, min_tokens_to_keep=keep))
    if options.renormalize_logits:
        rules.append(LogitNormalization())
    return rules


def rows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores and histories of several lengths; row 9 is one token before its end."""
    generator = torch.Generator().manual_seed(7)
    lengths = torch.tensor([1, 2, 3, 5, 8, 11, 1, 4, 12, 6], dtype=torch.int32)
    max_lengths = torch.tensor([12, 3, 20, 6, 12, 12, 2, 30, 13, 7], dtype=torch.int32)
    tokens = torch.randint(3, 8, (10, MAX_LENGTH), generator=generator, dtype=torch.int32)
    return torch.randn(10, VOCABULARY, generator=generator) * 3, tokens, lengths, max_lengths


RULES = {
    "nothing": {},
    "repetition_penalty": {"repetition_penalty": 1.7},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
    "bad_words_ids": {"bad_words_ids": ((3,), (4, 5), (6, 6, 7), (2,))},
    "min_length": {"min_length": 6, "eos_token_ids": (2, 9)},
    "forced_bos_token_id": {"forced_bos_token_id": 11},
    "forced_eos_token_ids": {"forced_eos_token_ids": (2, 13)},
    "suppress_tokens": {"suppress_tokens": (0, 5, 22)},
    "begin_suppress_tokens": {"begin_suppress_tokens": (2, 8)},
    "begin_suppress_tokens after a forced one": {"begin_suppress_tokens": (2, 8), "forced_bos_token_id": 11},
    "renormalize_logits": {"renormalize_logits": True, "suppress_tokens": (1,)},
    "warping without sampling": {"temperature": 0.5, "top_k": 3, "top_p": 0.5},
    "sampling": {"do_sample": True, "temperature": 0.7, "top_k": 9, "top_p": 0.8},
    "beam sampling keeps a candidate for each end token and one": {
        "do_sample": True,
        "num_beams": 3,
        "top_k": 1,
        "top_p": 0.01,
        "eos_token_ids": (2, 9, 10),
    },
    "everything": {
        "repetition_penalty": 0.6,
        "no_repeat_ngram_size": 3,
        "bad_words_ids": ((4,), (5, 6)),
        "min_length": 4,
        "forced_bos_token_id": 11,
        "forced_eos_token_ids": (2,),
        "suppress_tokens": (0,),
        "begin_suppress_tokens": (7,),
        "do_sample": True,
        "temperature": 1.3,
        "top_k": 12,
        "top_p": 0.9,
        "renormalize_logits": True,
    },
}


@pytest.mark.parametrize("name", RULES)
def test_scores_after_the_rules_equal_transformers_row_by_row(name):
    options = replace(PLAIN, **RULES[name])
    scores, tokens, lengths, max_lengths = rows()
    found = process_scores(scores.clone(), tokens, lengths, max_lengths, options)
    for row in range(len(scores)):
        history = tokens[row : row + 1, : int(lengths[row])].long()
        wanted = theirs(options, int(max_lengths[row]))(history, scores[row : row + 1].clone())
        torch.testing.assert_close(found[row : row + 1], wanted, rtol=1e-6, atol=1e-6)
    if name not in ("nothing", "warping without sampling"):
        assert not torch.equal(found, scores), "the rule did something"


@pytest.mark.parametrize("name", RULES)
def test_a_rows_scores_have_the_same_bits_alone_and_in_company(name):
    options = replace(PLAIN, **RULES[name])
    scores, tokens, lengths, max_lengths = rows()
    whole = process_scores(scores.clone(), tokens, lengths, max_lengths, options)
    for row in range(len(scores)):
        one = slice(row, row + 1)
        shorter = tokens[one, : int(lengths[row])]  # alone it also is the longest
        alone = process_scores(scores[one].clone(), shorter, lengths[one], max_lengths[one], options)
        assert torch.equal(alone, whole[one])


@pytest.mark.parametrize("name", RULES)
def test_what_lies_behind_a_rows_length_is_never_read(name):
    options = replace(PLAIN, **RULES[name])
    scores, tokens, lengths, max_lengths = rows()
    first = process_scores(scores.clone(), tokens, lengths, max_lengths, options)
    behind = torch.arange(MAX_LENGTH)[None] >= lengths[:, None]
    second = process_scores(scores.clone(), tokens.masked_fill(behind, 3), lengths, max_lengths, options)
    assert torch.equal(first, second)


def test_requests_that_differ_in_their_minimum_alone_are_one_group():
    plain = GenerationOptions(max_length=9, eos_token_ids=(2,))
    with_minimum = [replace(plain, min_length=least, max_length=8 + least, seed=least) for least in (1, 4, 7)]
    assert len({rules_of(options) for options in with_minimum}) == 1
    # A request without one spares itself the rules, alone and in company.
    assert rules_of(plain) not in {rules_of(options) for options in with_minimum}
