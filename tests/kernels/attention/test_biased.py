"""Attention with a bias by distance: buckets, definition, CPU version, kernel, gradients, refusals."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from attention_operands import BOTH
from attention_operands import biased_operands as operands
from kernel_checks import near, wide

from tritone.kernels.attention.biased import (
    biased_attention,
    biased_attention_cpu,
    biased_attention_reference,
)
from tritone.kernels.attention.distance_buckets import Buckets
from tritone.kernels.attention.flash import flash_attention_reference
from tritone.kernels.runtime.packing import cumulative

CPU = torch.device("cpu")
BEFORE = Buckets(8, 20, both_directions=False)
KINDS = [
    BOTH,
    BEFORE,
    Buckets(4, 2, both_directions=True),
    Buckets(7, 100, both_directions=False),
    Buckets(9, 3, True),
]
SCALE = 0.3
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
# Blocks are of 32 or 64 queries and 16 to 64 keys.
LENGTHS = [[1], [2, 1], [13, 0, 5], [0, 7], [16, 15, 17], [65, 3]]


def bucket_of(distance: int, buckets: Buckets) -> int:
    """Bucket of one distance, the query's position - the key's, as T5 counts them."""
    side, first = buckets.count, 0
    if buckets.both_directions:
        side //= 2
        first, distance = (side if distance < 0 else 0), abs(distance)
    distance, single = max(distance, 0), side // 2
    if distance < single:
        return first + distance
    steps = math.log(distance / single) / math.log(buckets.farthest / single) * (side - single)
    return first + min(single + int(steps + 1e-6), side - 1)


def by_loops(query, key, value, cu_query, cu_key, table, buckets, *, causal):
    """The definition, score by score, in float64."""
    query, key, value, table = query.double(), key.double(), value.double(), table.double()
    out = torch.zeros_like(query)
    for (q0, q1), (k0, k1) in zip(pairwise(cu_query.tolist()), pairwise(cu_key.tolist()), strict=True):
        for head in range(query.shape[1]):
            for i in range(q0, q1):
                place = i - q1 + (k1 - k0)
                seen = [j for j in range(k1 - k0) if j <= place or not causal]
                if not seen:
                    continue
                scores = [
                    query[i, head] @ key[k0 + j, head] * SCALE + table[bucket_of(place - j, buckets), head]
                    for j in seen
                ]
                weights = torch.stack(scores).softmax(0)
                out[i, head] = weights @ value[[k0 + j for j in seen], head]
    return out


def check(given: list[Any], *, causal: bool = False, scale: float = 0.2) -> None:
    """The operation equals the reference in float64."""
    out = biased_attention(*given, causal=causal, scale=scale)
    wanted = biased_attention_reference(*wide(*given), causal=causal, scale=scale)
    near(out, wanted, given[0].dtype, TOLERANCE)


@pytest.mark.parametrize("buckets", KINDS, ids=str)
def test_each_distance_has_the_bucket_that_t5_gives_it(buckets):
    rows, limit = buckets.rows(CPU), buckets.farthest
    assert rows.tolist() == [bucket_of(distance, buckets) for distance in range(-limit, limit + 1)]
    assert bucket_of(limit + 5000, buckets) == int(rows[-1])
    assert bucket_of(-limit - 5000, buckets) == int(rows[0])


@pytest.mark.parametrize("run", [biased_attention_reference, biased_attention_cpu])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("buckets", KINDS, ids=str)
def test_a_score_has_the_bias_of_its_distance(buckets, causal, run):
    given = operands([14, 0, 3, 1], buckets=buckets)
    out = run(*given, causal=causal, scale=SCALE)
    torch.testing.assert_close(out.double(), by_loops(*given, causal=causal), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("run", [biased_attention_reference, biased_attention_cpu])
@pytest.mark.parametrize("causal", [False, True])
def test_the_last_query_has_the_position_of_the_last_key(causal, run):
    """As with cached keys of earlier tokens; queries that see no key get zeros."""
    given = operands([3, 1, 0, 6, 2], keys=[9, 4, 3, 4, 0])
    out = run(*given, causal=causal, scale=SCALE)
    torch.testing.assert_close(out.double(), by_loops(*given, causal=causal), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_the_tuned_path_is_the_definition(dtype, causal):
    given = operands([127, 1, 64, 0, 300], 3, 20, dtype, buckets=Buckets(32, 128, True))
    tolerance = {torch.float32: 5e-6, torch.float64: 1e-12, torch.float16: 3e-3}.get(dtype, 2e-2)
    out = biased_attention(*given, causal=causal, scale=SCALE)
    expected = biased_attention_reference(*given, causal=causal, scale=SCALE)
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected, atol=tolerance, rtol=tolerance)


def test_without_biases_it_is_plain_attention():
    *given, table, buckets = operands([9, 30])
    for causal in (False, True):
        plain = flash_attention_reference(*given, causal=causal, scale=SCALE)
        for run in (biased_attention_reference, biased_attention_cpu):
            out = run(*given, torch.zeros_like(table), buckets, causal=causal, scale=SCALE)
            torch.testing.assert_close(out, plain, atol=1e-6, rtol=1e-6)


def test_a_table_that_changes_is_read_anew():
    *given, table, buckets = operands([30])
    before = biased_attention(*given, table, buckets)
    table.mul_(2)
    after = biased_attention(*given, table, buckets)
    assert not torch.equal(before, after)
    torch.testing.assert_close(
        after, biased_attention_reference(*given, table, buckets), atol=5e-6, rtol=5e-6
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("size", [(2, 16), (3, 20)], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_every_sequence_attends_to_itself_alone(lengths, size, causal, dtype, kernels_on):
    check(operands(lengths, *size, dtype, kernels_on), causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("buckets", [*KINDS[:3], Buckets(32, 128, True)], ids=str)
def test_distances_within_and_far_beyond_the_farthest(buckets, causal, dtype, kernels_on):
    """With 150 tokens and a farthest distance of 2 or 20 some tiles have one bias, in either direction."""
    check(operands([150, 6], 2, 16, dtype, kernels_on, buckets=buckets), causal=causal)


@pytest.mark.parametrize("causal", [False, True])
def test_on_kernels_too_the_last_query_has_the_position_of_the_last_key(causal, dtype, kernels_on):
    check(operands([3, 1, 0, 6, 70, 2], 2, 16, dtype, kernels_on, keys=[90, 4, 3, 4, 33, 0]), causal=causal)


@pytest.mark.parametrize("width", [1, 5, 17, 32, 36, 64, 80, 127, 128])
def test_heads_of_every_width(width, dtype, kernels_on):
    check(operands([35, 0, 4], 2, width, dtype, kernels_on), scale=width**-0.5)


def test_a_bias_that_outweighs_all_others_neither_overflows_nor_vanishes(dtype, kernels_on):
    query, key, value, *cu, table, buckets = operands([40], 1, 16, dtype, kernels_on)
    table = torch.full_like(table, -30000.0)
    table[0] = 30000.0  # distance 0
    out = biased_attention(torch.zeros_like(query), key, value, *cu, table, buckets)
    assert torch.equal(out, value)


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_reach_tokens_and_table(causal):
    query, key, value, *cu, table, buckets = operands([5, 2], 2, 3, torch.float64)
    inputs = [tensor.requires_grad_() for tensor in (query, key, value, table)]

    def run(query, key, value, table):
        return biased_attention(query, key, value, *cu, table, buckets, causal=causal, scale=SCALE)

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({0: torch.zeros(7, 3, 12)}, "heads do not fit"),
        ({2: torch.zeros(7, 2, 11)}, "heads do not fit"),
        ({3: cumulative([6])}, "cu_query must rise from 0 to the 7"),
        ({4: cumulative([7])}, "queries of 2 sequences, but keys of 1"),
        ({5: torch.zeros(7, 2)}, r"bias_table must be \[8, 2\]"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(change, problem):
    given = [change.get(place, tensor) for place, tensor in enumerate(operands([5, 2]))]
    with pytest.raises(ValueError, match=problem):
        biased_attention(*given)


@pytest.mark.parametrize(
    ("count", "farthest", "both_directions"),
    [(3, 9, True), (1, 9, False), (8, 2, True), (8, 4, False), (32, 2**20 + 1, True)],
)
def test_buckets_that_cannot_be_divided_are_refused(count, farthest, both_directions):
    with pytest.raises(ValueError, match=f"{count} buckets up to distance {farthest} cannot be divided"):
        Buckets(count, farthest, both_directions)
