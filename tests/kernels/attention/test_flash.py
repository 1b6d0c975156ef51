"""Attention over packed sequences: reference, CPU version and kernel against the definition in float64."""

from itertools import product

import pytest
import torch
from attention_operands import flash_operands as operands
from kernel_checks import by_device, close, near, refused

from tritone.kernels.attention import tiles as module
from tritone.kernels.attention.flash import (
    attention_weights,
    flash_attention,
    flash_attention_cpu,
    flash_attention_reference,
)
from tritone.kernels.attention.tiles import query_blocks
from tritone.kernels.runtime.packing import cumulative, spans

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
RUNS = [flash_attention, flash_attention_reference, flash_attention_cpu]
# heads, head_dim
SIZES = [(1, 1), (4, 36), (3, 5), (2, 64), (1, 17)]
# Blocks are of 32, 64 or 128 queries and of 32 or 64 keys.
LENGTHS = [[1], [2, 1], [13, 0, 5], [0, 7], [32, 31, 33], [64, 63], [65, 3, 129], [128, 0, 127]]
CPU_LENGTHS = [[1], [2], [16], [17], [97], [1, 1, 1], [13, 0, 5], [0, 7], [31, 16, 1, 2]]
# queries, keys
CROSS = [
    ([1], [1]),
    ([3, 1], [64, 65]),
    ([0, 4], [6, 1]),
    ([2, 5], [0, 3]),
    ([70, 2], [3, 0]),
    ([129], [33]),
    ([130], [131]),  # causal, the first block's reach ends one past a block of keys
]
CPU_CROSS = [
    ([1], [1]),
    ([3], [16]),
    ([16], [3]),
    ([1, 5, 2], [17, 1, 33]),
    ([0, 4], [6, 1]),
    ([7], [97]),
]


def exact(query, key, value, cu_query, cu_key, *, causal=False, scale=None, window=None) -> torch.Tensor:
    """The definition, in float64; zeros for a query that sees nothing."""
    out = torch.zeros(query.shape, dtype=torch.float64, device=query.device)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    for (q0, q1), (k0, k1) in zip(spans(cu_query), spans(cu_key), strict=True):
        scores = torch.einsum("qhd,khd->hqk", query[q0:q1].double(), key[k0:k1].double()) * scale
        seen = torch.ones(scores.shape[1:], dtype=torch.bool, device=query.device)
        if causal:
            seen = seen.tril(k1 - k0 - (q1 - q0))
            seen = seen if window is None else seen.triu(k1 - k0 - (q1 - q0) - window + 1)
        weights = scores.exp() * seen
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        out[q0:q1] = torch.einsum("hqk,khd->qhd", weights, value[k0:k1].double())
    return out


def check(given: list[torch.Tensor], run=flash_attention, **options) -> None:
    near(run(*given, **options), exact(*given, **options), given[0].dtype, TOLERANCE)


@pytest.mark.parametrize("causal", [False, True])
@by_device("case", [*product(CPU_LENGTHS, SIZES, RUNS)], [*product(LENGTHS, [(2, 16), (3, 20)], RUNS[:1])])
def test_every_sequence_attends_to_itself_alone(case, causal, dtype, device):
    lengths, size, run = case
    check(operands(lengths, *size, dtype, device), run, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@by_device("case", [*product(CPU_CROSS, SIZES, RUNS)], [*product(CROSS, [(2, 16), (1, 20)], RUNS[:1])])
def test_every_sequence_attends_to_its_own_keys_alone(case, causal, dtype, device):
    """Causal too, where the last query stands at the last key, and queries before the first key see none."""
    (queries, keys), size, run = case
    check(operands(queries, *size, dtype, device, keys=keys), run, causal=causal)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    ("queries", "keys"), [([1], [9]), ([3, 1], [5, 1]), ([4, 2, 16], [20, 2, 33])], ids=str
)
def test_causal_queries_stand_at_the_end_of_longer_keys(queries, keys, run):
    check(operands(queries, keys=keys), run, causal=True)


@pytest.mark.parametrize("width", [1, 5, 16, 17, 36, 48, 64, 80, 127, 128])
def test_heads_of_every_width(width, dtype, device):
    given = operands([67, 0, 34], 2, width, dtype, device)
    check(given)
    check(given, causal=True, window=33)


@pytest.mark.parametrize("window", [1, 2, 16, 31, 64, 65, 100, 2**40])
@by_device(
    "case",
    [*product([([9], [9]), ([1, 17], [1, 17]), ([3], [20])], RUNS)],
    [*product([([200], [200]), ([3, 1], [130, 70]), ([100, 2], [66, 1])], RUNS[:1])],
)
def test_a_window_shows_a_query_its_last_keys_alone(case, window, device):
    (queries, keys), run = case
    check(operands(queries, 1, 16, device=device, keys=keys), run, causal=True, window=window)


@pytest.mark.parametrize("scale", [1.0, 0.01])
@by_device("run", RUNS, RUNS[:1])
def test_the_scale_is_the_callers(run, scale, dtype, device):
    check(operands([5, 33], 2, 16, dtype, device), run, scale=scale)


def test_scores_far_apart_neither_overflow_nor_vanish(dtype, device):
    query, key, value, cu_query, cu_key = operands([3], 1, 16, dtype, device, keys=[70])
    key = torch.zeros_like(key)
    key[40] = 100.0
    query = torch.full_like(query, 100.0)
    query[1] = -100.0
    out = flash_attention(query, key, value, cu_query, cu_key)
    assert torch.equal(out[0], value[40])
    others = torch.cat([value[:40], value[41:]]).double().mean(0)
    close(out[1], others, TOLERANCE[dtype])


def test_nan_in_a_query_stays_there_and_in_a_key_reaches_the_queries_that_see_it(device):
    query, key, value, cu_query, cu_key = operands([40, 9], 1, 16, device=device)
    clean = flash_attention(query, key, value, cu_query, cu_key, causal=True)
    query[7], key[30] = float("nan"), float("nan")
    out = flash_attention(query, key, value, cu_query, cu_key, causal=True)
    spoiled = out.isnan().flatten(1).any(1)
    assert spoiled.nonzero().flatten().tolist() == [7, *range(30, 40)]
    assert torch.equal(out[~spoiled], clean[~spoiled])


@pytest.mark.parametrize("run", RUNS)
def test_a_query_that_sees_no_key_gets_zeros(run):
    *packed, cu_query, cu_key = operands([4, 2], 1, 4, keys=[2, 0])
    query, key, value = (tensor.requires_grad_() for tensor in packed)
    out = run(query, key, value, cu_query, cu_key, causal=True, scale=0.5)
    close(out, exact(query, key, value, cu_query, cu_key, causal=True), 1e-6)
    assert not bool(out[:2].any() | out[4:].any())
    if run is not flash_attention_cpu:
        gradients = torch.autograd.grad(out.square().sum(), [query, key, value])
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert not bool(gradients[0][:2].any())


@pytest.mark.parametrize(("causal", "window"), [(False, None), (True, None), (True, 2)])
def test_weights_sum_to_one_and_are_those_that_the_output_is_made_with(causal, window):
    query, key, value, cu_query, cu_key = operands([3, 1, 4], 2, 6, keys=[3, 5, 4])
    weights = attention_weights(query, key, cu_query, cu_key, causal=causal, window=window)
    assert [list(weight.shape) for weight in weights] == [[2, 3, 3], [2, 1, 5], [2, 4, 4]]
    out = [torch.einsum("hqk,khd->qhd", w, v) for w, v in zip(weights, value.split([3, 5, 4]), strict=True)]
    wanted = flash_attention(query, key, value, cu_query, cu_key, causal=causal, window=window)
    torch.testing.assert_close(torch.cat(out), wanted)
    for weight in weights:
        torch.testing.assert_close(weight.sum(-1), torch.ones(weight.shape[:2]))
    if causal:
        assert float(weights[0].triu(1).abs().max()) == 0.0


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 2}], ids=str)
def test_a_gradient_is_that_of_the_reference(options):
    *packed, cu_query, cu_key = operands([2, 3], 2, 3)
    given = tuple(tensor.double().requires_grad_() for tensor in packed)
    out = flash_attention(*given, cu_query, cu_key, **options)
    ours = torch.autograd.grad(out.square().sum(), given)
    naive_given = tuple(tensor.detach().clone().requires_grad_() for tensor in given)
    # The reference computes in float32 inside, so the oracle is another differentiable path in float64.
    theirs = torch.autograd.grad(plain(*naive_given, [2, 3], **options).square().sum(), naive_given)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def plain(query, key, value, lengths, *, causal=False, window=None) -> torch.Tensor:
    outputs = []
    for q, k, v in zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True):
        scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
        seen = torch.ones(scores.shape[1:], dtype=torch.bool)
        if causal:
            seen = seen.tril() if window is None else seen.tril().triu(1 - window)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v))
    return torch.cat(outputs)


def test_dropout_drops_weights_and_keeps_their_mean():
    query, key, _, cu_query, cu_key = operands([40], 4, 8, keys=[50])
    ones = torch.ones_like(key)
    torch.manual_seed(0)
    dropped = flash_attention(query, key, ones, cu_query, cu_key, dropout=0.5)
    assert not torch.allclose(dropped, torch.ones_like(dropped), atol=1e-2)
    assert abs(float(dropped.mean()) - 1.0) < 0.05


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"window": 4}, "got 4 with causal=False; give causal=True"),
        ({"window": 0, "causal": True}, "at least 1, that a causal query sees; got 0"),
        ({"scale": 0.0}, "scale must be positive, got 0.0"),
        ({"scale": -1.0}, "scale must be positive, got -1.0"),
    ],
    ids=str,
)
def test_a_window_or_scale_that_means_nothing_is_refused(options, problem):
    refused(problem, flash_attention, *operands([2], 1, 4), **options)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"cu_query": cumulative([4])}, "cu_query must rise from 0 to the 5 packed rows"),
        ({"cu_key": cumulative([2, 2])}, "cu_key must rise from 0 to the 5 packed rows"),
        ({"cu_key": cumulative([5])}, "queries of 2 sequences, but keys of 1; give one of each"),
        (
            {"value": torch.ones(5, 2, 7)},
            r"heads do not fit: query \[5, 2, 6\], key \[5, 2, 6\], value \[5, 2, 7\]",
        ),
        ({"query": torch.ones(5, 3, 6)}, r"heads do not fit: query \[5, 3, 6\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change, problem):
    names = ("query", "key", "value", "cu_query", "cu_key")
    given = {**dict(zip(names, operands([2, 3], 2, 6), strict=True)), **change}
    refused(problem, flash_attention, **given)


def test_relative_terms_are_refused_with_the_kernels_that_have_them():
    with pytest.raises(
        NotImplementedError, match=r"biased_attention.*relative_attention.*disentangled_attention"
    ):
        flash_attention(*operands([2], 1, 4), relative=object())


SCHEDULES = [
    ([1], [1]),
    ([0, 1, 0], [3, 0, 9]),
    ([16, 15, 17, 0], [16, 15, 17, 0]),
    ([1] * 40, [*range(40)]),
    ([100, 1, 33, 32], [1, 7, 7, 300]),
]


@pytest.mark.parametrize(("queries", "keys"), SCHEDULES, ids=str)
@pytest.mark.parametrize("block", [1, 16, 32])
def test_every_query_is_in_one_block_and_the_most_keys_come_first(queries, keys, block):
    cu_query, cu_key = cumulative(queries), cumulative(keys)
    blocks = query_blocks(cu_query, cu_key, tokens=sum(queries), block=block)
    assert blocks.dtype == torch.int32
    owners = list(zip(spans(cu_query), spans(cu_key), strict=True))
    taken, lengths = [], []
    for first, query_end, key_begin, key_end in blocks.tolist():
        if first == query_end:
            assert [first, query_end, key_begin, key_end] == [0, 0, 0, 0]
            continue
        ((begin, _),) = (
            query
            for query, key in owners
            if query[1] == query_end and key == (key_begin, key_end) and query[0] < query[1]
        )
        assert (first - begin) % block == 0
        taken += range(first, min(first + block, query_end))
        lengths.append(key_end - key_begin)
    assert sorted(taken) == list(range(sum(queries)))
    assert lengths == sorted(lengths, reverse=True)


def test_layers_share_the_blocks_of_their_offsets(kernels_on, monkeypatch):
    made = []

    def recorded(*offsets: torch.Tensor, **sizes: int) -> torch.Tensor:
        made.append(offsets)
        return query_blocks(*offsets, **sizes)

    monkeypatch.setattr(module, "query_blocks", recorded)
    query, key, value, offsets, _ = operands([3, 4], 1, 16, device=kernels_on)
    others = cumulative([4, 3], kernels_on)
    for cu_key in (offsets, others, offsets, others):
        flash_attention(query, key, value, offsets, cu_key)
    assert [given[1] is offsets for given in made] == [True, False]
