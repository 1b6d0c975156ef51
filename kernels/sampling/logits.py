"""Logits processors over token ids: penalties, bans and forced tokens, as in transformers 5.23."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import alignment, kernel
from ..runtime.optional_triton import tl, triton
from ..runtime.upload import upload
from .softmax import ROW_WARPS, declare_for_rows, log_softmax_reference, row_sums
from .timestamps import TimestampRule, restrict_row, restrict_timestamps

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Rules that penalize, ban or force tokens, applied in this order; the defaults change nothing."""

    repetition_penalty: float = 1.0  # divides positive, multiplies negative scores of earlier tokens
    ngram_size: int = 0  # n-grams of this size occur at most once; 0 for no limit
    banned_sequences: tuple[tuple[int, ...], ...] = ()  # the last token of each is banned after the others
    min_length: int = 0  # tokens before which none of `ends` is allowed
    ends: tuple[int, ...] = ()  # tokens that end a sequence
    forced_first: int | None = None  # the only token allowed after the start token
    forced_last: tuple[int, ...] = ()  # the only tokens allowed at a row's maximum length
    suppressed: tuple[int, ...] = ()  # tokens that are never allowed
    # Tokens that are not allowed first behind the prompt, or behind a forced first token.
    begin_suppressed: tuple[int, ...] = ()
    timestamps: TimestampRule | None = None
    # Tables on devices: a recorded launch holds the address of one, so who records it keeps these rules.
    _tables: dict[torch.device, Tensor] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def idle(self) -> bool:
        """True if no rule changes a score."""
        bans = self.banned_sequences or self.suppressed or self.begin_suppressed
        forces = self.forced_first is not None or self.forced_last
        early_end = self.min_length and self.ends
        some = self.ngram_size or bans or forces or early_end or self.timestamps is not None
        return self.repetition_penalty == 1.0 and not some

    def table(self, device: torch.device) -> Tensor:
        """Table of every rule's tokens, concatenated, int32; made once, and kept as long as these rules.

        In this order: ends, forced last tokens, suppressed, suppressed at the beginning; then each banned
        sequence: its length and its tokens, padded to the longest. A single 0 where there are none.
        """
        table = self._tables.get(device)
        if table is None:
            with torch.inference_mode(False):  # outlives the inference mode of the first step
                table = upload(torch.tensor(self._numbers(), dtype=torch.int32), device)
            self._tables[device] = table
        return table

    def _numbers(self) -> list[int]:
        width = max(map(len, self.banned_sequences), default=1)
        numbers = [*self.ends, *self.forced_last, *self.suppressed, *self.begin_suppressed]
        for sequence in self.banned_sequences:
            numbers += [len(sequence), *sequence, *[0] * (width - len(sequence))]
        return numbers or [0]


def apply_rules(
    scores: Tensor,
    tokens: Tensor,
    lengths: Tensor,
    max_lengths: Tensor,
    rules: TokenRules,
    *,
    min_lengths: Tensor | None = None,
    forced_first: Tensor | None = None,
    prompt_lengths: Tensor | None = None,
    normalize: bool = False,
) -> Tensor:
    """Apply token rules to the scores of rows that share the rules but not their lengths.

    Args:
        scores: [rows, vocabulary].
        tokens: int [rows, longest], each row's tokens so far with the start token.
        lengths: int [rows], number of tokens so far, at least 1.
        max_lengths: int [rows], maximum length of each row's request.
        rules: rules, applied in the order of their fields.
        min_lengths: int [rows], each row's own `min_length` in place of the rules'. Without effect where the
            rules have none.
        forced_first: int [rows], likewise each row's own `forced_first`.
        prompt_lengths: int [rows], number of tokens before the first generated one; 1 by default.
        normalize: apply log-softmax before the first rule.

    Returns:
        float32 [rows, vocabulary].
    """
    own = {"min_lengths": min_lengths, "forced_first": forced_first, "prompt_lengths": prompt_lengths}
    return _apply_rules(scores, tokens, lengths, max_lengths, rules, **own, normalize=normalize)  # type: ignore[no-any-return]


def apply_rules_reference(
    scores: Tensor,
    tokens: Tensor,
    lengths: Tensor,
    max_lengths: Tensor,
    rules: TokenRules,
    *,
    min_lengths: Tensor | None = None,
    forced_first: Tensor | None = None,
    prompt_lengths: Tensor | None = None,
    normalize: bool = False,
) -> Tensor:
    """Reference implementation of `apply_rules` in plain torch, one rule after the other over all scores."""
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if prompt_lengths is None:
        prompt_lengths = torch.ones_like(lengths)
    if normalize:
        scores = log_softmax_reference(scores)
    if rules.repetition_penalty != 1.0:
        scores = penalize_repetition(scores, tokens, lengths, rules.repetition_penalty)
    if rules.ngram_size:
        scores = ban_repeated_ngrams(scores, tokens, lengths, rules.ngram_size)
    for sequence in rules.banned_sequences:
        scores = ban_sequence(scores, tokens, lengths, sequence)
    if rules.min_length and rules.ends:
        min_length = rules.min_length if min_lengths is None else min_lengths
        scores = _ban(scores, rules.ends, lengths < min_length)
    if rules.forced_first is not None:
        if forced_first is None:
            forced_first = lengths.new_full(lengths.shape, rules.forced_first)
        scores = _force(scores, forced_first[:, None], lengths == 1)
    if rules.forced_last:
        forced_last = torch.tensor(rules.forced_last, device=scores.device).expand(len(scores), -1)
        scores = _force(scores, forced_last, lengths == max_lengths - 1)
    if rules.suppressed:
        scores = _ban(scores, rules.suppressed, torch.ones_like(lengths, dtype=torch.bool))
    if rules.begin_suppressed:
        forced = (prompt_lengths == 1) & (rules.forced_first is not None)
        scores = _ban(scores, rules.begin_suppressed, lengths == prompt_lengths + forced)
    if rules.timestamps is not None:
        scores = restrict_timestamps(scores, tokens, lengths, prompt_lengths, rules.timestamps)
    return scores


def penalize_repetition(scores: Tensor, tokens: Tensor, lengths: Tensor, penalty: float) -> Tensor:
    """Divide positive scores of tokens that already occur by `penalty`, multiply negative ones by it.

    Args:
        scores: float32 [rows, vocabulary].
        tokens: int [rows, longest].
        lengths: int [rows], at least 1.
    """
    positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
    seen = torch.where(positions < lengths[:, None], tokens, tokens[:, :1]).long()
    old = scores.gather(-1, seen)
    return scores.scatter(-1, seen, torch.where(old < 0, old * penalty, old / penalty))


def ban_repeated_ngrams(scores: Tensor, tokens: Tensor, lengths: Tensor, size: int) -> Tensor:
    """Ban, with -inf, every token that would complete an n-gram of `size` tokens that already occurs.

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
    """Ban, with -inf, the last token of `sequence` in rows that end with its other tokens.

    The start token counts, as in transformers 5.23: a sequence may begin with it.
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


def _ban(scores: Tensor, token_ids: tuple[int, ...], mask: Tensor) -> Tensor:
    """Set the scores of `token_ids` to -inf in rows where the mask [rows] is true."""
    columns = torch.tensor(token_ids, device=scores.device)
    return scores.index_fill(1, columns, _NEVER).where(mask[:, None], scores)


def _force(scores: Tensor, token_ids: Tensor, mask: Tensor) -> Tensor:
    """Set scores of `token_ids` [rows, n] to 0 and all others to -inf in the rows of the mask [rows]."""
    forced = torch.full_like(scores, _NEVER).scatter(1, token_ids.long(), 0.0)
    return forced.where(mask[:, None], scores)


def apply_rules_triton(
    scores: Tensor,
    tokens: Tensor,
    lengths: Tensor,
    max_lengths: Tensor,
    rules: TokenRules,
    *,
    min_lengths: Tensor | None = None,
    forced_first: Tensor | None = None,
    prompt_lengths: Tensor | None = None,
    normalize: bool = False,
) -> Tensor:
    """Scores after all token rules, in one launch.

    It makes one pass over the vocabulary, or two with log-softmax, then visits the tokens of each rule. The
    timestamp rule takes one more pass or two.
    """
    rows, vocabulary = scores.shape
    out = torch.empty(rows, vocabulary, dtype=torch.float32, device=scores.device)
    width = max(map(len, rules.banned_sequences), default=1)
    if min_lengths is None:
        min_lengths = lengths.new_full(lengths.shape, rules.min_length)
    if forced_first is None:
        forced_first = lengths.new_full(lengths.shape, rules.forced_first or 0)
    if prompt_lengths is None:
        prompt_lengths = torch.ones_like(lengths)
    case = rules_kernel.case(scores.device, scores.dtype, alignment(vocabulary))
    own = min_lengths, forced_first, prompt_lengths
    histories = [tensor.int() for tensor in (tokens, lengths, max_lengths, *own)]
    penalty = rules.repetition_penalty, rules.repetition_penalty != 1.0
    bans = rules.ngram_size, len(rules.banned_sequences), width
    ends = len(rules.ends) if rules.min_length else 0, len(rules.ends)
    forced = rules.forced_first is not None, len(rules.forced_last)
    suppressed = len(rules.suppressed), len(rules.begin_suppressed)
    times = -1, 0, 0, -1  # no timestamp rule
    if (rule := rules.timestamps) is not None:
        limit = -1 if rule.max_initial is None else rule.max_initial
        times = rule.first, rule.no_timestamps, rule.end, limit
    tensors = scores, *histories, rules.table(scores.device), out
    numbers = vocabulary, tokens.shape[1], normalize, *penalty, *bans, *ends, *forced, *suppressed, *times
    case.launch((rows,), *tensors, *numbers)
    return out


@kernel(sizes=("N",))
def rules_kernel(
    scores_ptr,  # [rows, N]
    tokens_ptr,  # [rows, longest]
    lengths_ptr,  # [rows]
    max_lengths_ptr,  # [rows]
    min_lengths_ptr,  # [rows]
    forced_first_ptr,  # [rows]
    prompt_lengths_ptr,  # [rows]
    table_ptr,  # every rule's tokens, from `TokenRules.table`
    out_ptr,  # [rows, N]
    N: tl.int32,
    longest: tl.int32,
    normalize: tl.int32,  # 0 or 1
    penalty: tl.float32,
    penalized: tl.int32,  # 0 or 1
    ngram_size: tl.int32,  # 0 for no limit
    sequences: tl.int32,  # number of banned ones
    sequence_width: tl.int32,  # tokens of the longest
    banned_ends: tl.int32,  # number of ends that a short row may not have: all or 0
    ends: tl.int32,  # number in the table, as forced_last, suppressed and begin_suppressed
    forced_first: tl.int32,  # 0 or 1
    forced_last: tl.int32,
    suppressed: tl.int32,
    begin_suppressed: tl.int32,
    first_timestamp: tl.int32,  # -1 for no timestamp rule
    no_timestamps: tl.int32,
    timestamp_end: tl.int32,
    max_initial: tl.int32,  # -1 for no limit
    BLOCK: tl.constexpr,
    LIST_BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    base = row.to(tl.int64) * N
    in_ptr, to_ptr = scores_ptr + base, out_ptr + base
    history_ptr = tokens_ptr + row.to(tl.int64) * longest
    length = tl.load(lengths_ptr + row)
    prompt_length = tl.load(prompt_lengths_ptr + row)
    at_end = length == tl.load(max_lengths_ptr + row) - 1
    last_ptr = table_ptr + ends
    suppressed_ptr = last_ptr + forced_last
    begin_ptr = suppressed_ptr + suppressed
    sequences_ptr = begin_ptr + begin_suppressed
    first_forced = tl.where(length == 1, forced_first, 0)
    last_forced = tl.where(at_end, forced_last, 0)

    if first_forced + last_forced > 0:  # forcing overrides all earlier rules
        for start in range(0, N, BLOCK):
            n = start + tl.arange(0, BLOCK)
            tl.store(to_ptr + n, tl.full((BLOCK,), float("-inf"), tl.float32), mask=n < N)
        tl.debug_barrier()
        if last_forced > 0:
            _assign(to_ptr, last_ptr, last_forced, 0.0, N, LIST_BLOCK)
        else:
            _assign(to_ptr, forced_first_ptr + row, first_forced, 0.0, N, LIST_BLOCK)
    else:
        peak, spread = 0.0, 0.0
        if normalize > 0:
            peak, spread = row_sums(in_ptr, N, BLOCK)
        for start in range(0, N, BLOCK):
            n = start + tl.arange(0, BLOCK)
            values = tl.load(in_ptr + n, mask=n < N).to(tl.float32)
            tl.store(to_ptr + n, values - peak - spread, mask=n < N)
        tl.debug_barrier()  # from here on threads overwrite what others have written above
        _penalize(in_ptr, to_ptr, history_ptr, length * penalized, peak, spread, penalty, N, LIST_BLOCK)
        tl.debug_barrier()
        # All bans write -inf, so they need no order among themselves.
        _ban_ngrams(to_ptr, history_ptr, length, ngram_size, N, LIST_BLOCK)
        _ban_sequences(to_ptr, history_ptr, length, sequences_ptr, sequences, sequence_width, N, LIST_BLOCK)
        early = tl.where(length < tl.load(min_lengths_ptr + row), banned_ends, 0)
        _assign(to_ptr, table_ptr, early, float("-inf"), N, LIST_BLOCK)
    tl.debug_barrier()
    _assign(to_ptr, suppressed_ptr, suppressed, float("-inf"), N, LIST_BLOCK)
    begin = prompt_length + tl.where(prompt_length == 1, forced_first, 0)
    at_begin = tl.where(length == begin, begin_suppressed, 0)
    _assign(to_ptr, begin_ptr, at_begin, float("-inf"), N, LIST_BLOCK)
    if first_timestamp >= 0:
        tl.debug_barrier()
        restrict_row(
            to_ptr,
            history_ptr,
            length,
            prompt_length,
            first_timestamp,
            no_timestamps,
            timestamp_end,
            max_initial,
            N,
            BLOCK,
            LIST_BLOCK,
        )


@triton.jit
def _assign(to_ptr, ids_ptr, count, value, N, BLOCK: tl.constexpr):
    """Write one value as the score of each of `count` tokens in a list."""
    for start in range(0, count, BLOCK):
        index = start + tl.arange(0, BLOCK)
        _write(to_ptr, tl.load(ids_ptr + index, mask=index < count, other=-1), value, N)


@triton.jit
def _write(to_ptr, token, value, N):
    """Write values as the scores of tokens; -1 and other ids outside of the vocabulary are skipped."""
    tl.store(to_ptr + token, value, mask=(token >= 0) & (token < N))


@triton.jit
def _penalize(in_ptr, to_ptr, history_ptr, count, peak, spread, penalty, N, BLOCK: tl.constexpr):
    """Penalize the scores of the first `count` tokens of the history, each distinct token once.

    The old score is read from the input, so that a repeated token writes the same value twice.
    """
    for start in range(0, count, BLOCK):
        index = start + tl.arange(0, BLOCK)
        token = tl.load(history_ptr + index, mask=index < count, other=-1)
        mask = (token >= 0) & (token < N)
        old = tl.load(in_ptr + token, mask=mask, other=0.0).to(tl.float32) - peak - spread
        _write(to_ptr, token, tl.where(old < 0.0, old * penalty, tl.div_rn(old, penalty)), N)


@triton.jit
def _ban_ngrams(to_ptr, history_ptr, length, size, N, BLOCK: tl.constexpr):
    """Ban every token that would complete an n-gram of `size` tokens that the history already has."""
    starts = tl.where(size > 0, length - size + 1, 0)
    for start in range(0, starts, BLOCK):
        index = start + tl.arange(0, BLOCK)
        same = index < starts
        for step in range(0, size - 1):
            earlier = tl.load(history_ptr + index + step, mask=index < starts, other=-1)
            same = same & (earlier == tl.load(history_ptr + length - size + 1 + step))
        token = tl.load(history_ptr + index + size - 1, mask=index < starts, other=-1)
        _write(to_ptr, tl.where(same, token, -1), float("-inf"), N)


@triton.jit
def _ban_sequences(to_ptr, history_ptr, length, sequences_ptr, count, width, N, BLOCK: tl.constexpr):
    """Ban the last token of each banned sequence whose other tokens end the history."""
    for start in range(0, count, BLOCK):
        index = start + tl.arange(0, BLOCK)
        sequence_ptr = sequences_ptr + index * (width + 1)
        before = tl.load(sequence_ptr, mask=index < count, other=0) - 1
        same = (index < count) & (before <= length)
        for step in range(0, width - 1):
            compared = (step < before) & (before <= length)
            wanted = tl.load(sequence_ptr + 1 + step, mask=compared, other=0)
            given = tl.load(history_ptr + length - before + step, mask=compared, other=0)
            same = same & (wanted == given)
        token = tl.load(sequence_ptr + 1 + before, mask=index < count, other=-1)
        _write(to_ptr, tl.where(same, token, -1), float("-inf"), N)


_apply_rules = Operation(apply_rules_reference, triton=apply_rules_triton)

_int32 = (
    "tokens_ptr",
    "lengths_ptr",
    "max_lengths_ptr",
    "min_lengths_ptr",
    "forced_first_ptr",
    "prompt_lengths_ptr",
    "table_ptr",
)
declare_for_rows(
    rules_kernel,
    dict.fromkeys(_int32, torch.int32) | {"out_ptr": torch.float32},
    LIST_BLOCK=ROW_WARPS * 32,
)
