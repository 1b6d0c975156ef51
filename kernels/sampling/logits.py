"""Rules about tokens: what a sequence's own tokens, its length and lists of tokens do to its scores."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..runtime.dispatch import choose
from ..runtime.launch import ARCHITECTURES, DTYPES, kernel, ready
from ..runtime.optional_triton import tl, triton
from .softmax import ROW_BLOCK, ROW_WARPS, alignment, log_softmax_reference, row_sums

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What happens to scores, in this order; the defaults leave them alone.

    Args:
        repetition_penalty: divides positive and multiplies negative scores of tokens already there.
        ngram_size: n-grams of this size occur once at most; 0 allows any.
        banned_sequences: their last token is banned where the rest has just been said.
        min_length: no token of `ends` before so many tokens.
        ends: tokens that end a sequence.
        forced_first: the only token possible after the start token.
        forced_last: the only tokens possible at a row's greatest length.
        suppressed: never.
        begin_suppressed: not where a row has `begin` tokens.
        begin: see there.
    """

    repetition_penalty: float = 1.0
    ngram_size: int = 0
    banned_sequences: tuple[tuple[int, ...], ...] = ()
    min_length: int = 0
    ends: tuple[int, ...] = ()
    forced_first: int | None = None
    forced_last: tuple[int, ...] = ()
    suppressed: tuple[int, ...] = ()
    begin_suppressed: tuple[int, ...] = ()
    begin: int = 1

    @property
    def idle(self) -> bool:
        """Whether every score stays as it is."""
        bans = self.banned_sequences or self.suppressed or self.begin_suppressed
        forces = self.forced_first is not None or self.forced_last
        early_end = self.min_length and self.ends
        return self.repetition_penalty == 1.0 and not (self.ngram_size or bans or forces or early_end)


def apply_rules(
    scores: Tensor,
    tokens: Tensor,
    lengths: Tensor,
    max_lengths: Tensor,
    rules: TokenRules,
    *,
    min_lengths: Tensor | None = None,
    normalize: bool = False,
) -> Tensor:
    """Scores after every rule; rows share the rules but not their lengths.

    Args:
        scores: [rows, vocabulary].
        tokens: int [rows, longest], so far; the start token is one of them.
        lengths: int [rows], how many of them are there, at least 1.
        max_lengths: int [rows], where each row's request ends.
        rules: see `TokenRules`.
        min_lengths: int [rows], each row's own `min_length`; that of the rules by default. Rules that have
            none hold no end back.
        normalize: log-softmax before the first rule.

    Returns:
        float32 [rows, vocabulary].
    """
    run = choose(scores, tokens, lengths, reference=apply_rules_reference, triton=apply_rules_triton)
    return run(scores, tokens, lengths, max_lengths, rules, min_lengths=min_lengths, normalize=normalize)


def apply_rules_reference(
    scores: Tensor,
    tokens: Tensor,
    lengths: Tensor,
    max_lengths: Tensor,
    rules: TokenRules,
    *,
    min_lengths: Tensor | None = None,
    normalize: bool = False,
) -> Tensor:
    """The specification, in plain torch: one rule after the other over all scores."""
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if normalize:
        scores = log_softmax_reference(scores)
    if rules.repetition_penalty != 1.0:
        scores = penalize_repetition(scores, tokens, lengths, rules.repetition_penalty)
    if rules.ngram_size:
        scores = ban_repeated_ngrams(scores, tokens, lengths, rules.ngram_size)
    for sequence in rules.banned_sequences:
        scores = ban_sequence(scores, tokens, lengths, sequence)
    if rules.min_length and rules.ends:
        least = rules.min_length if min_lengths is None else min_lengths
        scores = _ban(scores, rules.ends, lengths < least)
    if rules.forced_first is not None:
        scores = _force(scores, (rules.forced_first,), lengths == 1)
    if rules.forced_last:
        scores = _force(scores, rules.forced_last, lengths == max_lengths - 1)
    if rules.suppressed:
        scores = _ban(scores, rules.suppressed, torch.ones_like(lengths, dtype=torch.bool))
    if rules.begin_suppressed:
        scores = _ban(scores, rules.begin_suppressed, lengths == rules.begin)
    return scores


def penalize_repetition(scores: Tensor, tokens: Tensor, lengths: Tensor, penalty: float) -> Tensor:
    """Scores of tokens already there, divided by `penalty` where positive and multiplied where negative.

    Args:
        scores: float32 [rows, vocabulary].
        tokens: int [rows, longest].
        lengths: int [rows], how many of them are there, at least 1.
    """
    places = torch.arange(tokens.shape[1], device=tokens.device)[None]
    seen = torch.where(places < lengths[:, None], tokens, tokens[:, :1]).long()
    old = scores.gather(-1, seen)
    return scores.scatter(-1, seen, torch.where(old < 0, old * penalty, old / penalty))


def ban_repeated_ngrams(scores: Tensor, tokens: Tensor, lengths: Tensor, size: int) -> Tensor:
    """-inf for every token that would complete an n-gram of `size` tokens that is already there.

    Args:
        scores: float32 [rows, vocabulary].
        tokens: int [rows, longest].
        lengths: int [rows].
    """
    longest = tokens.shape[1]
    if longest < size:
        return scores
    windows = tokens.unfold(1, size, 1).long()  # [rows, starts, size]
    offsets = lengths.long()[:, None] - (size - 1) + torch.arange(size - 1, device=tokens.device)[None]
    recent = tokens.gather(1, offsets.clamp(min=0)).long()  # the last size - 1 tokens
    starts = torch.arange(windows.shape[1], device=tokens.device)[None]
    inside = starts + size <= lengths[:, None]
    repeated = (
        (windows[:, :, : size - 1] == recent[:, None]).all(-1) & inside & (lengths[:, None] >= size - 1)
    )
    banned = torch.zeros_like(scores, dtype=torch.int32).scatter_add_(-1, windows[:, :, -1], repeated.int())
    return scores.masked_fill(banned > 0, _NEVER)


def ban_sequence(scores: Tensor, tokens: Tensor, lengths: Tensor, sequence: tuple[int, ...]) -> Tensor:
    """-inf for the last token of `sequence` in the rows that end with all of it but that.

    As transformers 5.23 does, the start token counts: a word may begin with it.
    """
    *prefix, last = sequence
    if not prefix:
        ends = torch.ones_like(lengths, dtype=torch.bool)
    else:
        offsets = (
            lengths.long()[:, None] - len(prefix) + torch.arange(len(prefix), device=tokens.device)[None]
        )
        recent = tokens.gather(1, offsets.clamp(min=0)).long()
        wanted = torch.tensor(prefix, device=tokens.device)[None]
        ends = (recent == wanted).all(-1) & (lengths >= len(prefix))
    scores = scores.clone()
    scores[:, last] = scores[:, last].masked_fill(ends, _NEVER)
    return scores


def _ban(scores: Tensor, token_ids: tuple[int, ...], where: Tensor) -> Tensor:
    """These tokens at -inf in the rows `where` [rows] is true."""
    columns = torch.tensor(token_ids, device=scores.device)
    return scores.index_fill(1, columns, _NEVER).where(where[:, None], scores)


def _force(scores: Tensor, token_ids: tuple[int, ...], where: Tensor) -> Tensor:
    """Nothing but these tokens, at 0, in the rows `where` [rows] is true."""
    columns = torch.tensor(token_ids, device=scores.device)
    forced = torch.full_like(scores, _NEVER).index_fill(1, columns, 0.0)
    return forced.where(where[:, None], scores)


def apply_rules_triton(
    scores: Tensor,
    tokens: Tensor,
    lengths: Tensor,
    max_lengths: Tensor,
    rules: TokenRules,
    *,
    min_lengths: Tensor | None = None,
    normalize: bool = False,
) -> Tensor:
    """One launch: a pass over the vocabulary (two with log-softmax), then single tokens."""
    rows, vocabulary = scores.shape
    out = torch.empty(rows, vocabulary, dtype=torch.float32, device=scores.device)
    width = max(map(len, rules.banned_sequences), default=1)
    if min_lengths is None:
        min_lengths = lengths.new_full(lengths.shape, rules.min_length)
    case = rules_kernel.case(scores.device, scores.dtype, alignment(vocabulary))
    case.launch(
        (rows,),
        ready(scores),
        ready(tokens.int()),
        ready(lengths.int()),
        ready(max_lengths.int()),
        ready(min_lengths.int()),
        _table(rules, scores.device),
        out,
        vocabulary,
        tokens.shape[1],
        int(normalize),
        rules.repetition_penalty,
        int(rules.repetition_penalty != 1.0),
        rules.ngram_size,
        len(rules.banned_sequences),
        width,
        len(rules.ends) if rules.min_length else 0,
        len(rules.ends),
        int(rules.forced_first is not None),
        len(rules.forced_last),
        len(rules.suppressed),
        len(rules.begin_suppressed),
        rules.begin,
    )
    return out


@lru_cache(maxsize=256)
def _table(rules: TokenRules, device: torch.device) -> Tensor:
    """All lists of tokens one after the other, int32, made once: a step must not wait for a copy.

    In this order: the token forced first, the ends, those forced last, suppressed, suppressed at the
    beginning, then for each banned sequence its length and its tokens, filled up to the longest.
    """
    width = max(map(len, rules.banned_sequences), default=1)
    numbers = [rules.forced_first or 0, *rules.ends, *rules.forced_last]
    numbers += [*rules.suppressed, *rules.begin_suppressed]
    for sequence in rules.banned_sequences:
        numbers += [len(sequence), *sequence, *[0] * (width - len(sequence))]
    with torch.inference_mode(False):  # kept beyond the mode that the first step runs in
        return torch.tensor(numbers, dtype=torch.int32, device=device)


@kernel(sizes=("N",))
def rules_kernel(
    scores_ptr,  # [rows, N]
    tokens_ptr,  # [rows, longest]
    lengths_ptr,  # [rows]
    max_lengths_ptr,  # [rows]
    min_lengths_ptr,  # [rows]
    table_ptr,  # see `_table`
    out_ptr,  # [rows, N]
    N: tl.int32,
    longest: tl.int32,
    normalize: tl.int32,  # 0 or 1
    penalty: tl.float32,
    penalized: tl.int32,  # 0 or 1: whether there is a penalty
    ngram_size: tl.int32,  # 0 for any
    sequences: tl.int32,  # banned ones
    sequence_width: tl.int32,  # tokens of the longest
    held_back: tl.int32,  # ends where a row has too few tokens: all of them or 0
    ends: tl.int32,  # how many in the table, as all but the last of the following
    forced_first: tl.int32,
    forced_last: tl.int32,
    suppressed: tl.int32,
    begin_suppressed: tl.int32,
    begin: tl.int32,
    BLOCK: tl.constexpr,
    LIST_BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    base = row.to(tl.int64) * N
    in_ptr, to_ptr = scores_ptr + base, out_ptr + base
    history_ptr = tokens_ptr + row.to(tl.int64) * longest
    length = tl.load(lengths_ptr + row)
    at_end = length == tl.load(max_lengths_ptr + row) - 1
    ends_ptr = table_ptr + 1
    last_ptr = ends_ptr + ends
    suppressed_ptr = last_ptr + forced_last
    begin_ptr = suppressed_ptr + suppressed
    sequences_ptr = begin_ptr + begin_suppressed
    first_forced = tl.where(length == 1, forced_first, 0)
    last_forced = tl.where(at_end, forced_last, 0)

    if first_forced + last_forced > 0:  # whatever the rules before had done would be lost
        for start in range(0, N, BLOCK):
            n = start + tl.arange(0, BLOCK)
            tl.store(to_ptr + n, tl.full((BLOCK,), float("-inf"), tl.float32), mask=n < N)
        tl.debug_barrier()
        if last_forced > 0:
            _assign(to_ptr, last_ptr, last_forced, 0.0, N, LIST_BLOCK)
        else:
            _assign(to_ptr, table_ptr, first_forced, 0.0, N, LIST_BLOCK)
    else:
        peak, spread = 0.0, 0.0
        if normalize > 0:
            peak, spread = row_sums(in_ptr, N, BLOCK)
        for start in range(0, N, BLOCK):
            n = start + tl.arange(0, BLOCK)
            values = tl.load(in_ptr + n, mask=n < N).to(tl.float32)
            tl.store(to_ptr + n, values - peak - spread, mask=n < N)
        tl.debug_barrier()  # from here on other threads write what one has written above
        _penalize(in_ptr, to_ptr, history_ptr, length * penalized, peak, spread, penalty, N, LIST_BLOCK)
        tl.debug_barrier()
        # All the bans write the same, so they need no order among themselves.
        _ban_ngrams(to_ptr, history_ptr, length, ngram_size, N, LIST_BLOCK)
        _ban_sequences(to_ptr, history_ptr, length, sequences_ptr, sequences, sequence_width, N, LIST_BLOCK)
        early = tl.where(length < tl.load(min_lengths_ptr + row), held_back, 0)
        _assign(to_ptr, ends_ptr, early, float("-inf"), N, LIST_BLOCK)
    tl.debug_barrier()
    _assign(to_ptr, suppressed_ptr, suppressed, float("-inf"), N, LIST_BLOCK)
    at_begin = tl.where(length == begin, begin_suppressed, 0)
    _assign(to_ptr, begin_ptr, at_begin, float("-inf"), N, LIST_BLOCK)


@triton.jit
def _assign(to_ptr, ids_ptr, count, value, N, BLOCK: tl.constexpr):
    """The value for each of `count` tokens."""
    for start in range(0, count, BLOCK):
        place = start + tl.arange(0, BLOCK)
        _write(to_ptr, tl.load(ids_ptr + place, mask=place < count, other=-1), value, N)


@triton.jit
def _write(to_ptr, token, value, N):
    """The value for these tokens; -1, and what is no token of this vocabulary, is passed over."""
    tl.store(to_ptr + token, value, mask=(token >= 0) & (token < N))


@triton.jit
def _penalize(in_ptr, to_ptr, history_ptr, count, peak, spread, penalty, N, BLOCK: tl.constexpr):
    """The penalty for the first `count` tokens of the history, for each distinct one once: the old score
    comes from the input, so that a token found twice is written the same twice."""
    for start in range(0, count, BLOCK):
        place = start + tl.arange(0, BLOCK)
        token = tl.load(history_ptr + place, mask=place < count, other=-1)
        there = (token >= 0) & (token < N)
        old = tl.load(in_ptr + token, mask=there, other=0.0).to(tl.float32) - peak - spread
        _write(to_ptr, token, tl.where(old < 0.0, old * penalty, tl.div_rn(old, penalty)), N)


@triton.jit
def _ban_ngrams(to_ptr, history_ptr, length, size, N, BLOCK: tl.constexpr):
    """Every token that followed the last size - 1 tokens before."""
    starts = tl.where(size > 0, length - size + 1, 0)
    for start in range(0, starts, BLOCK):
        place = start + tl.arange(0, BLOCK)
        same = place < starts
        for step in range(0, size - 1):
            said = tl.load(history_ptr + place + step, mask=place < starts, other=-1)
            same = same & (said == tl.load(history_ptr + length - size + 1 + step))
        token = tl.load(history_ptr + place + size - 1, mask=place < starts, other=-1)
        _write(to_ptr, tl.where(same, token, -1), float("-inf"), N)


@triton.jit
def _ban_sequences(to_ptr, history_ptr, length, sequences_ptr, count, width, N, BLOCK: tl.constexpr):
    """The last token of each sequence whose others the history ends with."""
    for start in range(0, count, BLOCK):
        place = start + tl.arange(0, BLOCK)
        sequence_ptr = sequences_ptr + place * (width + 1)
        before = tl.load(sequence_ptr, mask=place < count, other=0) - 1
        same = (place < count) & (before <= length)
        for step in range(0, width - 1):
            compared = (step < before) & (before <= length)
            wanted = tl.load(sequence_ptr + 1 + step, mask=compared, other=0)
            said = tl.load(history_ptr + length - before + step, mask=compared, other=0)
            same = same & (wanted == said)
        token = tl.load(sequence_ptr + 1 + before, mask=place < count, other=-1)
        _write(to_ptr, tl.where(same, token, -1), float("-inf"), N)


def _declare() -> None:
    for architecture in ARCHITECTURES:
        for dtype in DTYPES:
            for kind in ("aligned", "any"):
                rules_kernel.declare(
                    dtype,
                    kind,
                    architecture=architecture,
                    pointers=dict.fromkeys(
                        ("tokens_ptr", "lengths_ptr", "max_lengths_ptr", "min_lengths_ptr", "table_ptr"),
                        torch.int32,
                    )
                    | {"scores_ptr": dtype, "out_ptr": torch.float32},
                    aligned=kind == "aligned",
                    num_warps=ROW_WARPS,
                    BLOCK=ROW_BLOCK,
                    LIST_BLOCK=ROW_WARPS * 32,
                )


_declare()
