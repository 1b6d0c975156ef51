"""Token selection over the vocabulary: the best token of each row or a draw, with its log-probability."""

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import alignment, kernel
from ..runtime.optional_triton import tl, triton
from .philox import KEY_TYPES, philox_keys, philox_uniform, uniform
from .softmax import declare_for_rows, no_sums, row_sums, total_sums, with_values
from .sortable_float import LOWEST_KEY, index_of, order_key, packed


def greedy(logits: Tensor, scores: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Token with the highest score in each row, the first of equal ones, and its log-probability.

    Args:
        logits: [rows, vocabulary], for the log-probabilities.
        scores: float32 [rows, vocabulary], the logits after all rules; None for the logits themselves.

    Returns:
        tokens int64 [rows] and log-probabilities float32 [rows]: -inf in a row whose scores are all -inf, NaN
        in one whose logits hold NaN or infinity.
    """
    return _greedy(logits, scores)


def greedy_reference(logits: Tensor, scores: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Reference implementation of `greedy` in plain torch."""
    tokens = (logits if scores is None else scores).argmax(-1)
    return tokens, log_probability_reference(logits, tokens) + _nothing_left(scores, tokens)


def log_probability_reference(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of each row's token: float32 [rows]; NaN in a row that holds NaN or infinity."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    total = logits.logsumexp(-1)
    # Infinite for an infinite logit, beside which another token's log-probability would be -inf, not NaN.
    total += total - total
    return logits.gather(-1, tokens[:, None])[:, 0] - total


def _nothing_left(scores: Tensor | None, tokens: Tensor) -> Tensor | float:
    """Penalty of rows whose rules leave no token: the chosen token's score where that is -inf or NaN, else 0.

    It is NaN where such a row was renormalized.
    """
    if scores is None:
        return 0.0
    chosen = scores.gather(-1, tokens[:, None])[:, 0]
    return torch.where(chosen > float("-inf"), 0.0, chosen)


def categorical(scores: Tensor, seeds: Tensor, sequence_index: Tensor, steps: Tensor) -> Tensor:
    """Draw one token for each row from softmax(scores), by inverting the cumulative distribution.

    Args:
        scores: float32 [rows, vocabulary]; -inf is never drawn.
        seeds, sequence_index, steps: int [rows], as in `philox_uniform`.

    Returns:
        int64 [rows].
    """
    return _categorical(scores, seeds, sequence_index, steps)


def draw(
    logits: Tensor, scores: Tensor, seeds: Tensor, sequence_index: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw one token for each row from softmax(scores), with its log-probability under the logits.

    Args:
        logits: [rows, vocabulary].
        scores: float32 [rows, vocabulary], the logits after all rules.
        seeds, sequence_index, steps: int [rows], as in `philox_uniform`.

    Returns:
        tokens int64 [rows] and log-probabilities float32 [rows], as of `greedy`.
    """
    return _draw(logits, scores, seeds, sequence_index, steps)


def draw_reference(
    logits: Tensor, scores: Tensor, seeds: Tensor, sequence_index: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor]:
    """Reference implementation of `draw` in plain torch."""
    tokens = categorical_reference(scores, seeds, sequence_index, steps)
    return tokens, log_probability_reference(logits, tokens) + _nothing_left(scores, tokens)


def categorical_reference(scores: Tensor, seeds: Tensor, sequence_index: Tensor, steps: Tensor) -> Tensor:
    """Reference implementation of `categorical` in plain torch."""
    cumulated = scores.double().softmax(-1).cumsum(-1)
    uniform = philox_uniform(seeds, sequence_index, steps).double() * cumulated[:, -1:]
    drawn = torch.searchsorted(cumulated, uniform, right=True)
    # Rounding must not carry the search past the last token that can be drawn.
    tokens = torch.arange(scores.shape[1], device=scores.device)
    last = torch.where(scores > float("-inf"), tokens, 0).amax(-1)
    return torch.minimum(drawn[:, 0], last)


def greedy_triton(logits: Tensor, scores: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Greedy tokens and their log-probabilities in one launch, which reads each row once."""
    tokens, log_probabilities = _outputs(logits)
    rows, vocabulary = logits.shape
    case = greedy_kernel.case(logits.device, logits.dtype, alignment(vocabulary))
    case.launch((rows,), logits, scores, tokens, log_probabilities, vocabulary, scores is not None)
    return tokens, log_probabilities


def draw_triton(
    logits: Tensor, scores: Tensor, seeds: Tensor, sequence_index: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor]:
    """Drawn tokens and their log-probabilities in one launch.

    It makes two passes over the scores, one up to the drawn token, and one over the logits.
    """
    tokens, log_probabilities = _outputs(logits)
    rows, vocabulary = logits.shape
    case = draw_kernel.case(logits.device, logits.dtype, alignment(vocabulary))
    keys = philox_keys(seeds, sequence_index, steps)
    case.launch((rows,), logits, scores.float(), *keys, tokens, log_probabilities, vocabulary)
    return tokens, log_probabilities


def categorical_triton(scores: Tensor, seeds: Tensor, sequence_index: Tensor, steps: Tensor) -> Tensor:
    """Drawn tokens by `draw_triton`, whose log-probability takes little more work."""
    return draw_triton(scores, scores, seeds, sequence_index, steps)[0]


def _outputs(logits: Tensor) -> tuple[Tensor, Tensor]:
    rows = logits.shape[0]
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    return tokens, torch.empty(rows, dtype=torch.float32, device=logits.device)


_greedy = Operation(greedy_reference, triton=greedy_triton)
_draw = Operation(draw_reference, triton=draw_triton)
_categorical = Operation(categorical_reference, triton=categorical_triton)


@kernel(sizes=("N",), outputs=("tokens_ptr", "log_probabilities_ptr"))
def greedy_kernel(
    logits_ptr,  # [rows, N]
    scores_ptr,  # [rows, N]
    tokens_ptr,  # [rows]
    log_probabilities_ptr,  # [rows]
    N: tl.int32,
    has_scores: tl.int32,  # 0 or 1
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    base = row.to(tl.int64) * N
    # Each lane has its best key and the first token with it; lanes are compared once, at the end.
    best = tl.full((BLOCK,), LOWEST_KEY, tl.int32)
    best_token = tl.zeros((BLOCK,), tl.int32)
    peaks, sums = no_sums(BLOCK)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(logits_ptr + base + n, mask=n < N, other=float("-inf")).to(tl.float32)
        peaks, sums = with_values(peaks, sums, values)
        values = tl.where(
            has_scores > 0, tl.load(scores_ptr + base + n, mask=n < N * has_scores, other=0.0), values
        )
        key = tl.where(n < N, order_key(values), LOWEST_KEY)
        best_token = tl.where(key > best, n, best_token)
        best = tl.maximum(best, key)
    token = index_of(tl.max(packed(best, best_token), axis=0))
    peak, spread = total_sums(peaks, sums)
    logit = tl.load(logits_ptr + base + token).to(tl.float32)
    chosen = tl.load(scores_ptr + base + token, mask=has_scores > 0, other=0.0)
    tl.store(tokens_ptr + row, token)
    tl.store(log_probabilities_ptr + row, logit - peak - spread + _nothing_left_in(chosen))


@kernel(sizes=("N",), outputs=("tokens_ptr", "log_probabilities_ptr"))
def draw_kernel(
    logits_ptr,  # [rows, N]
    scores_ptr,  # [rows, N]
    seeds_ptr,  # [rows]
    sequence_index_ptr,  # [rows]
    steps_ptr,  # [rows]
    tokens_ptr,  # [rows]
    log_probabilities_ptr,  # [rows]
    N: tl.int32,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    base = row.to(tl.int64) * N
    peaks = tl.full((BLOCK,), float("-inf"), tl.float32)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        peaks = tl.maximum(peaks, tl.load(scores_ptr + base + n, mask=n < N, other=float("-inf")))
    peak = tl.max(peaks, axis=0)

    # Sums in float64: in float32 the last of many tokens would vanish between two sums.
    total = tl.full((), 0.0, tl.float64)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(scores_ptr + base + n, mask=n < N, other=float("-inf"))
        total += tl.sum(tl.exp(values - peak).to(tl.float64), axis=0)
    index = tl.zeros((1,), tl.int32)
    number = uniform(
        tl.load(seeds_ptr + row), tl.load(sequence_index_ptr + row), tl.load(steps_ptr + row), index
    )
    target = tl.sum(number.to(tl.float64), axis=0) * total

    token = tl.full((), 0, tl.int32)  # the last one so far that can be drawn
    before = tl.full((), 0.0, tl.float64)
    start = tl.full((), 0, tl.int32)
    while (start < N) & (before <= target):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(scores_ptr + base + n, mask=n < N, other=float("-inf"))
        weights = tl.exp(values - peak).to(tl.float64)
        # Rounding must not carry the search past the last token that can be drawn.
        last = tl.max(tl.where(values > float("-inf"), n, -1), axis=0)
        reached = before + tl.sum(weights, axis=0)
        if reached > target:
            beyond = before + tl.cumsum(weights, axis=0) > target
            last = tl.minimum(last, tl.min(tl.where(beyond, n, N - 1), axis=0))
        token = tl.maximum(token, last)
        before = reached
        start += BLOCK
    tl.store(tokens_ptr + row, token.to(tl.int64))

    peak, spread = row_sums(logits_ptr + base, N, BLOCK)
    logit = tl.load(logits_ptr + base + token).to(tl.float32)
    chosen = tl.load(scores_ptr + base + token)
    tl.store(log_probabilities_ptr + row, logit - peak - spread + _nothing_left_in(chosen))


@triton.jit
def _nothing_left_in(chosen):
    """Penalty of a row whose rules leave no token, as of `_nothing_left`."""
    return tl.where(chosen > float("-inf"), 0.0, chosen)


_types = KEY_TYPES | {
    "tokens_ptr": torch.int64,
    "scores_ptr": torch.float32,
    "log_probabilities_ptr": torch.float32,
}
declare_for_rows(greedy_kernel, _types)
declare_for_rows(draw_kernel, _types)
