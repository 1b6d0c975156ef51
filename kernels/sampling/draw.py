"""From scores over the vocabulary to one token a row: the best, or a draw, with its log-probability."""

import torch
from torch import Tensor

from ..runtime.dispatch import choose
from ..runtime.launch import ARCHITECTURES, DTYPES, kernel, ready
from ..runtime.optional_triton import tl
from .philox import addresses, philox_uniform, uniform
from .softmax import ROW_BLOCK, ROW_WARPS, alignment, no_sums, row_sums, total_sums, with_values
from .sortable_float import LOWEST_KEY, index_of, order_key, packed


def greedy(logits: Tensor, scores: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Each row's best token by its scores, of equal ones the first, and its log-probability by the logits.

    Args:
        logits: [rows, vocabulary].
        scores: float32 [rows, vocabulary], what rules made of the logits; None for the logits themselves.

    Returns:
        tokens int64 [rows] and log-probabilities float32 [rows].
    """
    run = choose(logits, scores, reference=greedy_reference, triton=greedy_triton)
    return run(logits, scores)


def greedy_reference(logits: Tensor, scores: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The specification, in plain torch."""
    tokens = (logits if scores is None else scores).argmax(-1)
    return tokens, log_probability_reference(logits, tokens)


def log_probability_reference(logits: Tensor, tokens: Tensor) -> Tensor:
    """Each row's token's logarithm of its probability: float32 [rows]."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)


def categorical(scores: Tensor, seeds: Tensor, streams: Tensor, steps: Tensor) -> Tensor:
    """One draw for each row from softmax(scores): the inverse of the cumulative distribution at one uniform.

    Args:
        scores: float32 [rows, vocabulary]; -inf is never drawn.
        seeds, streams, steps: int [rows], see `philox_uniform`.

    Returns:
        int64 [rows].
    """
    run = choose(scores, seeds, reference=categorical_reference, triton=categorical_triton)
    return run(scores, seeds, streams, steps)


def draw(
    logits: Tensor, scores: Tensor, seeds: Tensor, streams: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor]:
    """`categorical` of the scores, and the drawn token's log-probability by the logits.

    Args:
        logits: [rows, vocabulary].
        scores: float32 [rows, vocabulary], what rules made of the logits.
        seeds, streams, steps: int [rows], see `philox_uniform`.

    Returns:
        tokens int64 [rows] and log-probabilities float32 [rows].
    """
    run = choose(logits, scores, seeds, reference=draw_reference, triton=draw_triton)
    return run(logits, scores, seeds, streams, steps)


def draw_reference(
    logits: Tensor, scores: Tensor, seeds: Tensor, streams: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor]:
    """The specification, in plain torch."""
    tokens = categorical_reference(scores, seeds, streams, steps)
    return tokens, log_probability_reference(logits, tokens)


def categorical_reference(scores: Tensor, seeds: Tensor, streams: Tensor, steps: Tensor) -> Tensor:
    """The specification, in plain torch."""
    cumulated = scores.double().softmax(-1).cumsum(-1)
    uniform = philox_uniform(seeds, streams, steps).double() * cumulated[:, -1:]
    drawn = torch.searchsorted(cumulated, uniform, right=True)
    # Rounding may not carry the search past the last token that can be drawn.
    places = torch.arange(scores.shape[1], device=scores.device)
    last = torch.where(scores > float("-inf"), places, 0).amax(-1)
    return torch.minimum(drawn[:, 0], last)


def greedy_triton(logits: Tensor, scores: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One launch and one pass."""
    tokens, log_probabilities = _outputs(logits)
    rows, vocabulary = logits.shape
    case = greedy_kernel.case(logits.device, logits.dtype, alignment(vocabulary))
    case.launch(
        (rows,),
        ready(logits),
        log_probabilities if scores is None else ready(scores),
        tokens,
        log_probabilities,
        vocabulary,
        int(scores is not None),
    )
    return tokens, log_probabilities


def draw_triton(
    logits: Tensor, scores: Tensor, seeds: Tensor, streams: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor]:
    """One launch: two passes over the scores, one over the logits, and the scores again up to the token."""
    tokens, log_probabilities = _outputs(logits)
    rows, vocabulary = logits.shape
    case = draw_kernel.case(logits.device, logits.dtype, alignment(vocabulary))
    case.launch(
        (rows,),
        ready(logits),
        ready(scores.float()),
        *addresses(seeds, streams, steps),
        tokens,
        log_probabilities,
        vocabulary,
    )
    return tokens, log_probabilities


def categorical_triton(scores: Tensor, seeds: Tensor, streams: Tensor, steps: Tensor) -> Tensor:
    """As `draw_triton`, whose log-probability is hardly more work."""
    return draw_triton(scores, scores, seeds, streams, steps)[0]


def _outputs(logits: Tensor) -> tuple[Tensor, Tensor]:
    rows = logits.shape[0]
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    return tokens, torch.empty(rows, dtype=torch.float32, device=logits.device)


@kernel(sizes=("N",))
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
    # Every lane keeps its best and the first place of it, so that lanes meet once, at the end.
    best = tl.full((BLOCK,), LOWEST_KEY, tl.int32)
    best_place = tl.zeros((BLOCK,), tl.int32)
    peaks, sums = no_sums(BLOCK)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(logits_ptr + base + n, mask=n < N, other=float("-inf")).to(tl.float32)
        peaks, sums = with_values(peaks, sums, values)
        values = tl.where(
            has_scores > 0, tl.load(scores_ptr + base + n, mask=n < N * has_scores, other=0.0), values
        )
        key = tl.where(n < N, order_key(values), LOWEST_KEY)
        best_place = tl.where(key > best, n, best_place)
        best = tl.maximum(best, key)
    token = index_of(tl.max(packed(best, best_place), axis=0))
    peak, spread = total_sums(peaks, sums)
    logit = tl.load(logits_ptr + base + token).to(tl.float32)
    tl.store(tokens_ptr + row, token)
    tl.store(log_probabilities_ptr + row, logit - peak - spread)


@kernel(sizes=("N",))
def draw_kernel(
    logits_ptr,  # [rows, N]
    scores_ptr,  # [rows, N]
    seeds_ptr,  # [rows]
    streams_ptr,  # [rows]
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

    # Sums in float64: in float32 the last of many tokens would have no room between two sums.
    total = tl.full((), 0.0, tl.float64)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(scores_ptr + base + n, mask=n < N, other=float("-inf"))
        total += tl.sum(tl.exp(values - peak).to(tl.float64), axis=0)
    index = tl.zeros((1,), tl.int32)
    number = uniform(tl.load(seeds_ptr + row), tl.load(streams_ptr + row), tl.load(steps_ptr + row), index)
    target = tl.sum(number.to(tl.float64), axis=0) * total

    token = tl.full((), 0, tl.int32)  # the last possible one so far, until one is drawn
    before = tl.full((), 0.0, tl.float64)
    start = tl.full((), 0, tl.int32)
    while (start < N) & (before <= target):
        n = start + tl.arange(0, BLOCK)
        values = tl.load(scores_ptr + base + n, mask=n < N, other=float("-inf"))
        weights = tl.exp(values - peak).to(tl.float64)
        # Rounding may not carry the search past the last token that can be drawn.
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
    tl.store(log_probabilities_ptr + row, logit - peak - spread)


def _declare() -> None:
    numbers = ("seeds_ptr", "streams_ptr", "steps_ptr", "tokens_ptr")
    floats = ("scores_ptr", "log_probabilities_ptr")
    types = dict.fromkeys(numbers, torch.int64) | dict.fromkeys(floats, torch.float32)
    for architecture in ARCHITECTURES:
        for dtype in DTYPES:
            for kind in ("aligned", "any"):
                for declared in (greedy_kernel, draw_kernel):
                    declared.declare(
                        dtype,
                        kind,
                        architecture=architecture,
                        pointers=types | {"logits_ptr": dtype},
                        aligned=kind == "aligned",
                        num_warps=ROW_WARPS,
                        BLOCK=ROW_BLOCK,
                    )


_declare()
