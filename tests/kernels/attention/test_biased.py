"""Attention with a bias by distance on the CPU: buckets, definition, tuned path, gradients, refusals."""

import math
from itertools import pairwise

import pytest
import torch

from tritone.kernels.attention.biased import (
    biased_attention,
    biased_attention_cpu,
    biased_attention_reference,
    biased_weights,
)
from tritone.kernels.attention.distance_buckets import Buckets
from tritone.kernels.attention.flash import flash_attention_reference
from tritone.kernels.runtime.packing import cumulative

CPU = torch.device("cpu")
BOTH, BEFORE = Buckets(8, 20, both_directions=True), Buckets(8, 20, both_directions=False)
KINDS = [
    BOTH,
    BEFORE,
    Buckets(4, 2, both_directions=True),
    Buckets(7, 100, both_directions=False),
    Buckets(9, 3, True),
]
SCALE = 0.3


def operands(queries, keys=None, heads=2, width=12, buckets=BOTH, dtype=torch.float32):
    keys = queries if keys is None else keys
    generator = torch.Generator().manual_seed(sum(queries) + width)
    query, key, value = (
        torch.randn(sum(lengths), heads, width, generator=generator).to(dtype)
        for lengths in (queries, keys, keys)
    )
    table = torch.randn(buckets.count, heads, generator=generator).to(dtype)
    return query, key, value, cumulative(queries), cumulative(keys), table, buckets


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
    given = operands([3, 1, 0, 6, 2], [9, 4, 3, 4, 0])
    out = run(*given, causal=causal, scale=SCALE)
    torch.testing.assert_close(out.double(), by_loops(*given, causal=causal), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_the_tuned_path_is_the_definition(dtype, causal):
    given = operands([127, 1, 64, 0, 300], heads=3, width=20, buckets=Buckets(32, 128, True), dtype=dtype)
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
def test_a_sequence_has_the_same_bits_alone_first_in_the_middle_and_last(causal):
    lengths = [1, 37, 200, 16, 131, 5, 64, 128]
    query, key, value, _, _, *bias = operands(lengths, heads=3, width=20, buckets=Buckets(16, 60, True))
    pieces = list(zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True))

    def run(order: list[int]) -> list[torch.Tensor]:
        packed = [torch.cat(tensors) for tensors in zip(*(pieces[index] for index in order), strict=True)]
        counts = [lengths[index] for index in order]
        cu = cumulative(counts)
        return list(biased_attention(*packed, cu, cu, *bias, causal=causal).split(counts))

    alone = [run([index])[0] for index in range(8)]
    for order in ([7, 6, 5, 4, 3, 2, 1, 0], [2, 4, 0, 5, 7, 1, 3, 6], [3, 1]):
        for index, out in zip(order, run(order), strict=True):
            assert torch.equal(out, alone[index])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_stays_in_its_sequence(bad):
    query, key, value, *rest = operands([3, 140, 20])
    clean = biased_attention(query, key, value, *rest, scale=SCALE)
    for tensor in (query, key, value):
        tensor[:3], tensor[143:] = bad, bad
    assert torch.equal(biased_attention(query, key, value, *rest, scale=SCALE)[3:143], clean[3:143])


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_reach_tokens_and_table(causal):
    query, key, value, *cu, table, buckets = operands([5, 2], width=3, dtype=torch.float64)
    inputs = [tensor.requires_grad_() for tensor in (query, key, value, table)]

    def run(query, key, value, table):
        return biased_attention(query, key, value, *cu, table, buckets, causal=causal, scale=SCALE)

    assert torch.autograd.gradcheck(run, inputs)


def test_dropout_drops_weights_and_scales_the_others():
    query, key, value, *rest = operands([40], heads=1)
    plain = biased_weights(query, key, *rest, scale=SCALE)[0]
    torch.manual_seed(0)
    (dropped,) = biased_weights(query, key, *rest, scale=SCALE, dropout=0.25)
    kept = dropped != 0
    assert 0.65 < kept.float().mean() < 0.85
    torch.testing.assert_close(dropped[kept], plain[kept] / 0.75)
    torch.manual_seed(0)
    out = biased_attention(query, key, value, *rest, scale=SCALE, dropout=0.25)
    torch.testing.assert_close(out, torch.einsum("hqk,khd->qhd", dropped, value))


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
