"""The kernel that applies rules about tokens, and log-softmax, against the references in float64."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tritone.kernels.sampling.logits import TokenRules, apply_rules
from tritone.kernels.sampling.softmax import log_softmax
from tritone.kernels.sampling.timestamps import TimestampRule
from tritone.scheduler.request import GenerationOptions
from tritone.scheduler.sampling.score_rules import leaves_scores, process_scores

INF = float("inf")
VOCABULARIES = [5, 14, 1000]
TOLERANCE = 2e-5  # of float32 arithmetic, whatever the type of the logits: they are widened first
PLAIN = GenerationOptions(max_length=0, top_k=0, eos_token_ids=(2,))
MAX_TOKENS = 300  # beyond one block of tokens

RULES = {
    "repetition_penalty": {"repetition_penalty": 1.7},
    "repetition_penalty below 1": {"repetition_penalty": 0.6},
    "no_repeat_ngram_size 1": {"no_repeat_ngram_size": 1},
    "no_repeat_ngram_size 3": {"no_repeat_ngram_size": 3},
    "bad_words_ids": {"bad_words_ids": ((3,), (4, 1), (0, 0, 4), (2,), (1, 2, 3, 4, 0))},
    "min_length": {"min_length": 6, "eos_token_ids": (2, 4)},
    "forced_bos_token_id": {"forced_bos_token_id": 3},
    "forced_eos_token_ids": {"forced_eos_token_ids": (2, 4)},
    "both forced, at the same place too": {"forced_bos_token_id": 0, "forced_eos_token_ids": (2, 4)},
    "suppress_tokens": {"suppress_tokens": (0, 4)},
    "begin_suppress_tokens": {"begin_suppress_tokens": (1, 3)},
    "begin_suppress_tokens after a forced one": {"begin_suppress_tokens": (1,), "forced_bos_token_id": 3},
    "timestamps": {"timestamps": TimestampRule(first=3, no_timestamps=1, end=2, max_initial=1)},
    "timestamps after others": {
        "timestamps": TimestampRule(first=4, no_timestamps=1, end=2),
        "repetition_penalty": 1.3,
        "suppress_tokens": (0,),
        "do_sample": True,
        "temperature": 0.6,
    },
    "renormalize_logits": {"renormalize_logits": True, "suppress_tokens": (1,)},
    "sampling": {"do_sample": True, "temperature": 0.7, "top_k": 9, "top_p": 0.8},
    "beam sampling": {"do_sample": True, "num_beams": 3, "top_k": 1, "top_p": 0.01, "eos_token_ids": (2, 4)},
    "everything": {
        "repetition_penalty": 0.6,
        "no_repeat_ngram_size": 3,
        "bad_words_ids": ((4,), (0, 1)),
        "min_length": 4,
        "forced_bos_token_id": 3,
        "forced_eos_token_ids": (2, 1),
        "suppress_tokens": (0,),
        "begin_suppress_tokens": (3,),
        "do_sample": True,
        "temperature": 1.3,
        "top_k": 12,
        "top_p": 0.9,
        "renormalize_logits": True,
    },
}


def rows(vocabulary: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores and histories of several lengths; some rows are one token before their end, row 6 at its
    beginning too. Tokens behind a row's length do not count."""
    generator = torch.Generator().manual_seed(vocabulary)
    lengths = torch.tensor([1, 2, 3, 5, 8, 11, 1, 4, MAX_TOKENS, 6], dtype=torch.int32)
    max_lengths = torch.tensor([12, 3, 20, 6, 12, 12, 2, 30, MAX_TOKENS + 1, 7], dtype=torch.int32)
    tokens = torch.randint(0, 5, (10, MAX_TOKENS), generator=generator, dtype=torch.int32)
    tokens[4, 3:8] = torch.tensor([0, 1, 2, 3, 4], dtype=torch.int32)
    tokens.masked_fill_(torch.arange(MAX_TOKENS)[None] >= lengths[:, None], -(2**31))
    scores = torch.randn(10, vocabulary, generator=generator) * 3
    return scores.to(device, dtype), tokens.to(device), lengths.to(device), max_lengths.to(device)


def wanted_scores(scores, tokens, lengths, max_lengths, options, normalize=False) -> Tensor:
    """The reference, which float64 goes to, on histories whose rest can be looked up."""
    return process_scores(
        scores.double(), tokens.clamp(min=0), lengths, max_lengths, options, normalize=normalize
    )


def check(found: Tensor, wanted: Tensor) -> None:
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("name", RULES)
def test_every_rule_alone_and_all_together_equal_the_reference(name, vocabulary, dtype, kernels_on):
    options = replace(PLAIN, **RULES[name])
    given = rows(vocabulary, dtype, kernels_on)
    before = given[0].clone()
    normalize = options.num_beams > 1
    found = process_scores(*given, options, normalize=normalize)
    check(found, wanted_scores(*given, options, normalize))
    assert torch.equal(given[0], before), "the scores given are not written to"
    assert not torch.equal(found.isneginf(), before.isneginf()) or "penalty" in name


def test_rules_after_log_softmax_equal_the_reference(dtype, kernels_on):
    """In that order as beam search has them; only with a penalty does the order show."""
    options = replace(PLAIN, repetition_penalty=1.5, suppress_tokens=(1,), forced_eos_token_ids=(2,))
    given = rows(1000, dtype, kernels_on)
    check(process_scores(*given, options, normalize=True), wanted_scores(*given, options, True))


def test_many_rules_go_beyond_a_block_of_them(kernels_on):
    scores, tokens, lengths, max_lengths = rows(1000, torch.float32, kernels_on)
    tokens = torch.where(tokens < 0, 0, tokens * 199)  # spread, so that the lists below meet them
    rules = TokenRules(
        repetition_penalty=1.2,
        banned_sequences=tuple((token % 5 * 199, token) for token in range(0, 1000, 3)),
        min_length=3,
        ends=tuple(range(600)),
        suppressed=tuple(range(1, 999, 2)),
    )
    found = apply_rules(scores, tokens, lengths, max_lengths, rules)
    check(found, apply_rules(scores.double(), tokens, lengths, max_lengths, rules))


def test_tokens_outside_the_vocabulary_write_nowhere(kernels_on):
    scores = torch.randn(3, 7).to(kernels_on)
    tokens = torch.tensor([[99, 1], [99, 99], [2, 7]], device=kernels_on)
    lengths = torch.full((3,), 2, device=kernels_on)
    rules = TokenRules(repetition_penalty=2.0, suppressed=(-1, 7, 50), ngram_size=1)
    found = apply_rules(scores, tokens, lengths, lengths + 9, rules)
    banned = torch.tensor([[0, 1, 0, 0, 0, 0, 0], [0] * 7, [0, 0, 1, 0, 0, 0, 0]]).bool().to(kernels_on)
    assert torch.equal(found, scores.masked_fill(banned, -INF))


@pytest.mark.parametrize("name", ["everything", "bad_words_ids", "timestamps"])
@pytest.mark.parametrize("vocabulary", [14, 1000])
def test_a_row_has_the_same_bits_alone_and_in_any_batch(name, vocabulary, dtype, kernels_on):
    options = replace(PLAIN, **RULES[name])
    given = rows(vocabulary, dtype, kernels_on)
    whole = process_scores(*given, options, normalize=True)
    for one in (slice(0, 1), slice(8, 9), slice(3, 5)):
        longest = int(given[2][one].max())
        alone = [given[0][one], given[1][one, :longest], given[2][one], given[3][one]]
        assert torch.equal(process_scores(*alone, options, normalize=True), whole[one])
    others = [row for row in range(10) if row != 4]
    given[0][others] = float("nan")
    assert torch.equal(process_scores(*given, options, normalize=True)[4], whole[4])


@pytest.mark.parametrize("vocabulary", [*VOCABULARIES, 10_007])
def test_log_softmax_equals_the_reference(vocabulary, dtype, kernels_on):
    generator = torch.Generator().manual_seed(vocabulary)
    scores = (torch.randn(3, vocabulary, generator=generator) * 10).to(kernels_on, dtype)
    scores[1, 1:] = -INF
    scores[2, 0] = -INF
    found = log_softmax(scores)
    check(found, scores.double().log_softmax(-1))
    assert torch.equal(log_softmax(scores[2:]), found[2:])


def test_rows_of_no_number_or_without_any_probability_are_so_afterwards(kernels_on):
    scores = torch.zeros(3, 9, device=kernels_on)
    scores[0, 4] = float("nan")
    scores[1] = -INF
    found = log_softmax(scores)
    assert bool(found[:2].isnan().all())
    torch.testing.assert_close(found[2], scores[2].log_softmax(-1))


def test_no_rules_leave_the_very_scores_and_no_rows_give_no_rows(kernels_on):
    given = rows(14, torch.float32, kernels_on)
    assert leaves_scores(PLAIN)
    assert process_scores(*given, PLAIN) is given[0]
    for name, fields in RULES.items():
        options = replace(PLAIN, **fields)
        assert not leaves_scores(options), name
        none = [tensor[:0] for tensor in given]
        assert process_scores(*none, options).shape == (0, 14)


@pytest.mark.parametrize("normalize", [False, True])
def test_each_row_may_have_a_minimum_of_its_own(normalize, kernels_on):
    generator = torch.Generator().manual_seed(5)
    scores = torch.randn(6, 14, generator=generator).to(kernels_on)
    tokens = torch.randint(0, 14, (6, 8), generator=generator).to(kernels_on)
    lengths = torch.tensor([1, 3, 5, 5, 8, 8], dtype=torch.int32, device=kernels_on)
    minima = torch.tensor([1, 4, 5, 6, 1, 9], dtype=torch.int32, device=kernels_on)
    rules = TokenRules(min_length=1, ends=(2, 7), suppressed=(3,))
    found = apply_rules(scores, tokens, lengths, lengths + 9, rules, min_lengths=minima, normalize=normalize)
    assert found[:, 2].isinf().tolist() == [False, True, False, True, False, True]
    for row, least in enumerate(minima.tolist()):
        one = slice(row, row + 1)
        own = TokenRules(min_length=least, ends=(2, 7), suppressed=(3,))
        given = scores[one], tokens[one], lengths[one], lengths[one] + 9
        assert torch.equal(found[one], apply_rules(*given, own, normalize=normalize))
    none = TokenRules(ends=(2, 7), suppressed=(3,))
    found = apply_rules(scores, tokens, lengths, lengths + 9, none, min_lengths=minima, normalize=normalize)
    assert not found[:, 2].isinf().any(), "rules without a minimum hold nothing back"
