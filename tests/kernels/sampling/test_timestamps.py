"""Whisper's timestamp rule, against transformers' processor on histories of every kind."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from tritone.kernels.sampling.logits import TokenRules, apply_rules
from tritone.kernels.sampling.timestamps import TimestampRule

VOCABULARY, END, NO_TIMESTAMPS, FIRST = 60, 30, 33, 34
# Generated tokens behind the prompt: texts, times, and all ways that the two can meet.
HISTORIES = {
    "nothing": [],
    "a first time": [34],
    "a first text": [5],
    "a time and a text": [36, 5],
    "a closing time": [36, 5, 40],
    "a pair of times": [36, 5, 40, 40],
    "a pair and a text": [36, 5, 40, 41, 7, 8],
    "texts alone": [5, 6, 7],
    "the last time of all": [34, 9, VOCABULARY - 1],
    "a time behind a special token": [36, 32, 40],
    "more than a block of texts": [36, *range(20)] * 15,
}
PROMPTS = [[31], [31, 50, 32], [50, 4, 40, 31]]  # times in a prompt do not count


def rule(limit: int | None = None) -> TimestampRule:
    return TimestampRule(first=FIRST, no_timestamps=NO_TIMESTAMPS, end=END, max_initial=limit)


def theirs(scores: Tensor, history: list[int], prompt: list[int], limit: int | None) -> Tensor:
    config = SimpleNamespace(
        no_timestamps_token_id=NO_TIMESTAMPS,
        eos_token_id=END,
        bos_token_id=None,
        max_initial_timestamp_index=limit,
    )
    processor = WhisperTimeStampLogitsProcessor(config, begin_index=len(prompt))
    return processor(torch.tensor([prompt + history]), scores)


@pytest.mark.parametrize("times", [-3.0, 0.0, 3.0], ids="{} added to times".format)
@pytest.mark.parametrize("limit", [None, 0, 5])
def test_every_history_has_the_scores_of_transformers(limit, times, device):
    cases = [(prompt, history) for prompt in PROMPTS for history in HISTORIES.values()]
    scores = torch.randn(len(cases), VOCABULARY, generator=torch.Generator().manual_seed(3)) * 2
    scores[:, FIRST:] += times
    longest = max(len(prompt + history) for prompt, history in cases)
    tokens = torch.full((len(cases), longest), -(2**31), dtype=torch.int32)
    for row, (prompt, history) in enumerate(cases):
        tokens[row, : len(prompt + history)] = torch.tensor(prompt + history)
    lengths = torch.tensor([len(prompt + history) for prompt, history in cases], dtype=torch.int32)
    prompts = torch.tensor([len(prompt) for prompt, _ in cases], dtype=torch.int32)
    given = [one.to(device) for one in (scores, tokens, lengths, lengths + 9)]
    rules = TokenRules(timestamps=rule(limit))
    found = apply_rules(*given, rules, prompt_lengths=prompts.to(device)).cpu()
    for row, (prompt, history) in enumerate(cases):
        wanted = theirs(scores[row : row + 1], history, prompt, limit)
        assert torch.equal(found[row : row + 1], wanted), (prompt, history)


def test_times_come_after_all_other_rules(device):
    """A suppressed text token counts no more against the times."""
    scores = torch.zeros(1, VOCABULARY, device=device)
    scores[0, 7] = 9.0
    history = torch.tensor([[31, 5]], dtype=torch.int32, device=device)
    length = torch.tensor([2], dtype=torch.int32, device=device)
    plain = apply_rules(scores, history, length, length + 9, TokenRules(timestamps=rule()))
    assert plain[0, 7] == 9.0
    rules = TokenRules(timestamps=rule(), suppressed=(7,))
    found = apply_rules(scores, history, length, length + 9, rules)
    assert found[0, :FIRST].isneginf().all(), "26 times together are likelier than any text"
    assert (found[0, FIRST:] == 0).all()


def test_begin_suppress_tokens_count_from_the_prompt(device):
    """A forced first token stands behind a start token alone."""
    scores = torch.zeros(4, 9, device=device)
    tokens = torch.full((4, 5), 3, dtype=torch.int32, device=device)
    lengths = torch.tensor([1, 2, 3, 4], dtype=torch.int32, device=device)
    prompts = torch.tensor([1, 1, 3, 3], dtype=torch.int32, device=device)

    def suppressed(rules: TokenRules) -> list[bool]:
        found = apply_rules(scores, tokens, lengths, lengths + 9, rules, prompt_lengths=prompts)
        return found[:, 5].isneginf().tolist()

    assert suppressed(TokenRules(begin_suppressed=(5,))) == [True, False, True, False]
    forced = TokenRules(begin_suppressed=(5,), forced_first=6)
    assert suppressed(forced) == [True, True, True, False], "the first of them since another is forced"
