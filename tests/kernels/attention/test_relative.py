"""Attention relative to distances and segments: definition, CPU version, kernel, gradients, refusals."""

from typing import Any

import pytest
import torch
from attention_operands import relative_operands as operands
from kernel_checks import close, near, wide

from tritone.kernels.attention import diagonals
from tritone.kernels.attention.flash import flash_attention_reference
from tritone.kernels.attention.relative import (
    relative_attention,
    relative_attention_cpu,
    relative_attention_reference,
)
from tritone.kernels.runtime.packing import cumulative, spans

SCALE = 0.3
# Visible keys: causal, window.
SIGHTS = [(False, None), (True, None), (True, 1), (True, 9)]
RUNS = [relative_attention_reference, relative_attention_cpu]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 3e-2}
# Blocks are of 16 or 32 queries and as many keys.
LENGTHS = [[1], [2, 1], [13, 0, 5], [0, 7], [16, 15, 17], [32, 31, 33], [65, 3]]


def by_loops(given, *, scale, causal=False, window=None):
    """The definition, pair by pair, in float64."""
    query, key, value, cu_tokens, position_key, content_bias, position_bias, segments, *rest = given
    segment_bias, segment_key = rest
    out = torch.zeros(query.shape, dtype=torch.float64)
    limit = len(position_key) // 2
    for start, end in spans(cu_tokens):
        for head in range(query.shape[1]):
            for i in range(start, end):
                seen, scores = [], []
                for j in range(start, end):
                    if causal and (j > i or (window is not None and i - j >= window)):
                        continue
                    one = query[i, head].double()
                    row = position_key[max(-limit, min(limit, i - j)) + limit, head].double()
                    score = (one + content_bias[head].double()) @ key[j, head].double()
                    score = score + (one + position_bias[head].double()) @ row
                    if segments is not None:
                        which = int(segments[i] != segments[j])
                        score = (
                            score + (one + segment_bias[head].double()) @ segment_key[which, head].double()
                        )
                    seen.append(j)
                    scores.append(score * scale)
                weights = torch.stack(scores).softmax(0)
                out[i, head] = weights @ value[seen, head].double()
    return out


def check(given: list[Any], scale: float = 0.2, **options: Any) -> None:
    """The operation equals the reference in float64, which is compared with loops on the CPU."""
    wanted = relative_attention_reference(*wide(*given), scale=scale, **options)
    near(relative_attention(*given, scale=scale, **options), wanted, given[0].dtype, TOLERANCE)


@pytest.mark.parametrize("segmented", [True, False], ids=["segments", "none"])
@pytest.mark.parametrize("sight", SIGHTS, ids=str)
@pytest.mark.parametrize("limit", [0, 3, 20])
@pytest.mark.parametrize("run", RUNS)
def test_it_is_the_definition_pair_by_pair(run, limit, sight, segmented):
    given = operands([14, 0, 1, 5], limit=limit, segmented=segmented)
    options = {"scale": SCALE, "causal": sight[0], "window": sight[1]}
    close(run(*given, **options), by_loops(given, **options), 2e-6)


@pytest.mark.parametrize("limit", [5, 299, 400])
@pytest.mark.parametrize("sight", SIGHTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_the_tuned_path_is_the_definition_also_where_blocks_end(dtype, sight, limit):
    given = operands([127, 1, 128, 129, 0, 300], dtype=dtype, limit=limit)
    tolerance = {torch.float32: 5e-6, torch.float64: 1e-12, torch.float16: 2e-3}[dtype]
    options = {"scale": SCALE, "causal": sight[0], "window": sight[1]}
    out = relative_attention_cpu(*given, **options)
    assert out.dtype == dtype
    expected = relative_attention_reference(*given, **options)
    torch.testing.assert_close(out, expected, atol=tolerance, rtol=tolerance)


def test_few_heads_at_a_time_give_what_all_of_them_do(monkeypatch):
    given = operands([50, 9], heads=5)
    together = relative_attention(*given, scale=SCALE)
    monkeypatch.setattr(diagonals, "_MAX_SCORES", 5000)
    torch.testing.assert_close(relative_attention(*given, scale=SCALE), together, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("run", RUNS)
def test_with_terms_of_zero_it_is_plain_attention(run, causal):
    query, key, value, cu_tokens, *terms = operands([9, 30], segmented=False)
    terms = [None if term is None else torch.zeros_like(term) for term in terms]
    plain = flash_attention_reference(query, key, value, cu_tokens, cu_tokens, scale=SCALE, causal=causal)
    out = run(query, key, value, cu_tokens, *terms, scale=SCALE, causal=causal)
    torch.testing.assert_close(out, plain, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("run", RUNS)
def test_segments_matter_by_equality_alone(run):
    given = operands([20, 7])
    renamed = [*given[:7], given[7] * 1000 - 5, *given[8:]]
    assert torch.equal(run(*given, scale=SCALE), run(*renamed, scale=SCALE))
    moved = [*given[:7], given[7].clone().fill_(1), *given[8:]]
    assert not torch.allclose(run(*given, scale=SCALE), run(*moved, scale=SCALE))


@pytest.mark.parametrize("size", [(2, 16), (3, 20)], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_every_sequence_attends_to_itself_alone(lengths, size, dtype, kernels_on):
    check(operands(lengths, *size, dtype, kernels_on, limit=80))


@pytest.mark.parametrize("segmented", [True, False], ids=["segments", "none"])
@pytest.mark.parametrize("sight", [*SIGHTS[:3], (True, 7), (True, 40)], ids=str)
@pytest.mark.parametrize("limit", [0, 9, 45])
def test_distances_sights_and_segments_of_every_kind(limit, sight, segmented, dtype, kernels_on):
    given = operands([45, 6], 2, 16, dtype, kernels_on, limit=limit, segmented=segmented)
    check(given, causal=sight[0], window=sight[1])


@pytest.mark.parametrize("width", [1, 5, 17, 32, 36, 48, 64, 80, 127, 128])
def test_heads_of_every_width(width, dtype, kernels_on):
    check(operands([35, 0, 4], 2, width, dtype, kernels_on, limit=34), scale=(3 * width) ** -0.5)


def test_weights_that_are_all_of_one_key_neither_overflow_nor_vanish(dtype, kernels_on):
    given = operands([40], 1, 16, dtype, kernels_on, limit=39)
    query, key, value, cu_tokens, position_key, *biases, segments, segment_bias, segment_key = given
    zeros = [torch.zeros_like(bias) for bias in biases]
    position_key = torch.zeros_like(position_key)
    position_key[39] = 100.0  # distance 0
    out = relative_attention(
        torch.full_like(query, 100.0),
        torch.zeros_like(key),
        value,
        cu_tokens,
        position_key,
        *zeros,
        segments,
        torch.zeros_like(segment_bias),
        torch.zeros_like(segment_key),
        scale=1.0,
    )
    assert torch.equal(out, value)


@pytest.mark.parametrize("sight", SIGHTS, ids=str)
def test_gradients_reach_tokens_positions_biases_and_segments(sight):
    given = operands([5, 2], 2, 3, torch.float64, limit=3)
    places = [0, 1, 2, 4, 5, 6, 8, 9]
    inputs = [given[place].requires_grad_() for place in places]

    def run(*tensors):
        filled = list(given)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        return relative_attention(*filled, scale=SCALE, causal=sight[0], window=sight[1])

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({0: torch.zeros(7, 3, 12)}, "must all be \\[tokens, heads, head_dim\\]"),
        ({3: cumulative([6])}, "cu_tokens must rise from 0 to the 7"),
        ({4: torch.zeros(8, 2, 12)}, "an odd number of rows, got \\[8, 2, 12\\]"),
        ({4: torch.zeros(9, 1, 12)}, "position_key must be \\[2 \\* limit \\+ 1, 2, 12\\]"),
        ({5: torch.zeros(12)}, "content_bias must be \\[2, 12\\], got \\[12\\]"),
        ({6: torch.zeros(1, 12)}, "position_bias must be \\[2, 12\\], got \\[1, 12\\]"),
        ({7: torch.zeros(7)}, "segments must be int32 \\[7\\], got torch.float32"),
        ({7: torch.zeros(6, dtype=torch.int32)}, "segments must be int32 \\[7\\]"),
        ({7: None}, "give all three or none"),
        ({8: None}, "give all three or none"),
        ({8: torch.zeros(3, 12)}, "segment_bias must be \\[2, 12\\]"),
        ({9: torch.zeros(3, 2, 12)}, "segment_key must be \\[2, 2, 12\\], got \\[3, 2, 12\\]"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(change, problem):
    given = [change.get(place, tensor) for place, tensor in enumerate(operands([5, 2]))]
    with pytest.raises(ValueError, match=problem):
        relative_attention(*given, scale=SCALE)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"scale": 0.0}, "scale must be positive, got 0.0"),
        ({"scale": 1.0, "window": 3}, "got 3 with causal=False"),
        ({"scale": 1.0, "causal": True, "window": 0}, "at least 1, that a causal query sees; got 0"),
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        relative_attention(*operands([5, 2]), **options)
