"""Timestamp rule of Whisper: times in pairs that never fall, and times where they are likelier than text."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..runtime.optional_triton import tl, triton
from .softmax import no_sums, total_sums, with_values

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class TimestampRule:
    """Token ids of Whisper's timestamp rule, as of `WhisperTimeStampLogitsProcessor` in transformers 5.23.

    Args:
        first: first timestamp token, of time 0; that token and all behind it are timestamps.
        no_timestamps: token `<|notimestamps|>`, which never occurs.
        end: end token. Behind a text's closing timestamp no token before it occurs but a timestamp.
        max_initial: largest index, from `first`, of the first generated token; None for no limit.
    """

    first: int
    no_timestamps: int
    end: int
    max_initial: int | None = None


def restrict_timestamps(
    scores: Tensor, tokens: Tensor, lengths: Tensor, prompt_lengths: Tensor, rule: TimestampRule
) -> Tensor:
    """Ban, with -inf, the tokens that the timestamp rule leaves out; reference of `restrict_row`.

    Args:
        scores: float32 [rows, vocabulary].
        tokens: int [rows, longest].
        lengths: int [rows], number of tokens, at least `prompt_lengths`.
        prompt_lengths: int [rows], number of tokens before the first generated one.
        rule: token ids of the rule.
    """
    places = torch.arange(tokens.shape[1], device=tokens.device)[None]
    generated = (places >= prompt_lengths[:, None]) & (places < lengths[:, None])
    last_place = torch.where(generated & (tokens >= rule.first), places, -1).amax(-1)
    latest = tokens.gather(1, last_place.clamp(min=0)[:, None])[:, 0]
    behind_time = last_place == lengths - 1
    previous = tokens.gather(1, (lengths.long() - 2).clamp(min=0)[:, None])[:, 0]
    paired = (lengths - 2 < prompt_lengths) | (previous >= rule.first)
    closes, begins = behind_time & ~paired, lengths == prompt_lengths

    text_from = torch.where(begins, rule.first, torch.where(closes, rule.end, 0))
    times_from = torch.where(last_place < 0, rule.first, torch.where(closes, latest, latest + 1))
    times_from = torch.where(behind_time & paired, scores.shape[1], times_from)
    times_to = torch.full_like(times_from, scores.shape[1])
    if rule.max_initial is not None:
        times_to = torch.where(begins, rule.first + rule.max_initial, times_to)
    vocabulary = torch.arange(scores.shape[1], device=scores.device)[None]
    beyond = (vocabulary < times_from[:, None]) | (vocabulary > times_to[:, None])
    banned = (vocabulary < text_from[:, None]) | (vocabulary >= rule.first) & beyond
    scores = scores.masked_fill(banned | (vocabulary == rule.no_timestamps), _NEVER)

    text, times = scores[:, : rule.first], scores[:, rule.first :]
    likelier = times.logsumexp(-1) > text.amax(-1)
    return scores.masked_fill(likelier[:, None] & (vocabulary < rule.first), _NEVER)


@triton.jit
def restrict_row(
    row_ptr,  # [N], scores after all other rules, written in place
    history_ptr,  # [length], the row's tokens
    length,
    prompt_length,
    first,
    no_timestamps,
    end,
    max_initial,  # -1 for no limit
    N,
    BLOCK: tl.constexpr,
    LIST_BLOCK: tl.constexpr,
):
    """Ban the tokens that the timestamp rule leaves out of a row, in one pass or two."""
    last_places = tl.full((LIST_BLOCK,), -1, tl.int32)
    for start in range(prompt_length, length, LIST_BLOCK):
        place = start + tl.arange(0, LIST_BLOCK)
        token = tl.load(history_ptr + place, mask=place < length, other=-1)
        last_places = tl.where((place < length) & (token >= first), place, last_places)
    last_place = tl.max(last_places, axis=0)
    latest = tl.load(history_ptr + tl.maximum(last_place, 0))
    behind_time = last_place == length - 1
    alone = length - 2 < prompt_length
    previous = tl.load(history_ptr + tl.where(alone, 0, length - 2))
    paired = alone | (previous >= first)
    closes, begins = behind_time & (paired == 0), length == prompt_length

    text_from = tl.where(begins, first, tl.where(closes, end, 0))
    times_from = tl.where(last_place < 0, first, tl.where(closes, latest, latest + 1))
    times_from = tl.where(behind_time & paired, N, times_from)
    times_to = tl.where(begins & (max_initial >= 0), first + max_initial, N)
    text_peaks = tl.full((BLOCK,), float("-inf"), tl.float32)
    peaks, sums = no_sums(BLOCK)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(row_ptr + n, mask=n < N, other=float("-inf"))
        is_time = n >= first
        banned = (n < text_from) | (n == no_timestamps) | (is_time & ((n < times_from) | (n > times_to)))
        values = tl.where(banned, float("-inf"), values)
        tl.store(row_ptr + n, values, mask=banned & (n < N))
        text_peaks = tl.maximum(text_peaks, tl.where(is_time, float("-inf"), values))
        peaks, sums = with_values(peaks, sums, tl.where(is_time, values, float("-inf")))
    peak, spread = total_sums(peaks, sums)
    tl.debug_barrier()
    if peak + spread > tl.max(text_peaks, axis=0):
        for start in range(0, first, BLOCK):
            n = start + tl.arange(0, BLOCK)
            tl.store(row_ptr + n, tl.full((BLOCK,), float("-inf"), tl.float32), mask=(n < first) & (n < N))
