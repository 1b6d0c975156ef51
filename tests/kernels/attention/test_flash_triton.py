"""The attention kernel over packed sequences, against its definition in float64."""

import pytest
import torch

from tritone.kernels.attention import tiles as module
from tritone.kernels.attention.flash import (
    flash_attention,
    flash_attention_cpu,
    flash_attention_reference,
)
from tritone.kernels.attention.tiles import query_blocks
from tritone.kernels.runtime.packing import cumulative, spans

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}

# Blocks are of 32, 64 or 128 queries and of 32 or 64 keys.
LENGTHS = [[1], [2, 1], [13, 0, 5], [0, 7], [32, 31, 33], [64, 63], [65, 3, 129], [128, 0, 127]]
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
WIDTHS = [1, 5, 16, 17, 36, 48, 64, 80, 127, 128]


def operands(
    queries: list[int], keys: list[int], heads: int, width: int, dtype: torch.dtype, device: str
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(queries) * 1009 + sum(keys) * 31 + width)
    shapes = [(sum(count), heads, width) for count in (queries, keys, keys)]
    packed = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    return [*packed, cumulative(queries, device), cumulative(keys, device)]


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


def check(given: list[torch.Tensor], **options) -> None:
    out = flash_attention(*given, **options)
    assert out.dtype == given[0].dtype
    tolerance = TOLERANCE[out.dtype]
    torch.testing.assert_close(out.double(), exact(*given, **options), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("size", [(2, 16), (3, 20)], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_every_sequence_attends_to_itself_alone(lengths, size, causal, dtype, kernels_on):
    check(operands(lengths, lengths, *size, dtype, kernels_on), causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("size", [(2, 16), (1, 20)], ids=str)
@pytest.mark.parametrize(("queries", "keys"), CROSS, ids=str)
def test_every_sequence_attends_to_its_own_keys_alone(queries, keys, size, causal, dtype, kernels_on):
    """Causal too, where the last query stands at the last key, and queries before the first key see none."""
    check(operands(queries, keys, *size, dtype, kernels_on), causal=causal)


@pytest.mark.parametrize("width", WIDTHS)
def test_heads_of_every_width(width, dtype, kernels_on):
    lengths = [67, 0, 34]
    check(operands(lengths, lengths, 2, width, dtype, kernels_on))
    check(operands(lengths, lengths, 2, width, dtype, kernels_on), causal=True, window=33)


@pytest.mark.parametrize("window", [1, 2, 31, 64, 65, 2**40])
@pytest.mark.parametrize(
    ("queries", "keys"), [([200], [200]), ([3, 1], [130, 70]), ([100, 2], [66, 1])], ids=str
)
def test_a_window_shows_a_query_its_last_keys_alone(queries, keys, window, kernels_on):
    given = operands(queries, keys, 1, 16, torch.float32, kernels_on)
    check(given, causal=True, window=window)


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_the_scale_is_the_callers(scale, dtype, kernels_on):
    check(operands([5, 33], [5, 33], 2, 16, dtype, kernels_on), scale=scale)


def test_scores_far_apart_neither_overflow_nor_vanish(dtype, kernels_on):
    query, key, value, cu_query, cu_key = operands([3], [70], 1, 16, dtype, kernels_on)
    key = torch.zeros_like(key)
    key[40] = 100.0
    query = torch.full_like(query, 100.0)
    query[1] = -100.0
    out = flash_attention(query, key, value, cu_query, cu_key)
    assert torch.equal(out[0], value[40])
    others = torch.cat([value[:40], value[41:]]).double().mean(0)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(out[1].double(), others, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 40}], ids=str)
@pytest.mark.parametrize("size", [(2, 16), (1, 20)], ids=str)
def test_a_sequence_has_the_same_bits_alone_first_in_the_middle_and_last(size, options, dtype, kernels_on):
    queries, keys = [1, 37, 0, 16, 130, 5], [1, 65, 9, 0, 131, 64]
    query, key, value, _, _ = operands(queries, keys, *size, dtype, kernels_on)
    pieces = list(zip(query.split(queries), key.split(keys), value.split(keys), strict=True))

    def run(order: list[int]) -> list[torch.Tensor]:
        packed = [torch.cat(tensors) for tensors in zip(*(pieces[index] for index in order), strict=True)]
        chosen = [queries[index] for index in order]
        offsets = cumulative(chosen, kernels_on), cumulative([keys[index] for index in order], kernels_on)
        return list(flash_attention(*packed, *offsets, **options).split(chosen))

    alone = [run([index])[0] for index in range(6)]
    for order in ([5, 4, 3, 2, 1, 0], [2, 4, 0, 5, 1, 3], [3, 1]):
        for index, out in zip(order, run(order), strict=True):
            assert torch.equal(out, alone[index])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", [{}, {"causal": True}], ids=str)
@pytest.mark.parametrize("width", [16, 5])
def test_neighbors_and_stale_memory_never_leak_in(width, options, bad, dtype, kernels_on):
    lengths = [3, 37, 66]
    *packed, cu_query, cu_key = operands(lengths, lengths, 2, width, dtype, kernels_on)
    clean = flash_attention(*packed, cu_query, cu_key, **options)
    for tensor in packed:
        tensor[:3] = bad
        tensor[40:] = bad
    # In the middle of a larger piece of memory, as the rest of a cache or of a pool would lie around it.
    around = [torch.full((tensor.shape[0] + 64, 2, width), bad).to(tensor) for tensor in packed]
    for place, tensor in zip(around, packed, strict=True):
        place[32:-32] = tensor
    out = flash_attention(*(place[32:-32] for place in around), cu_query, cu_key, **options)
    assert torch.equal(out[3:40], clean[3:40])
    assert bool(out[:3].isnan().all())


def test_nan_in_a_query_stays_there_and_in_a_key_reaches_the_queries_that_see_it(kernels_on):
    query, key, value, cu_query, cu_key = operands([40, 9], [40, 9], 1, 16, torch.float32, kernels_on)
    clean = flash_attention(query, key, value, cu_query, cu_key, causal=True)
    query[7], key[30] = float("nan"), float("nan")
    out = flash_attention(query, key, value, cu_query, cu_key, causal=True)
    spoiled = out.isnan().flatten(1).any(1)
    assert spoiled.nonzero().flatten().tolist() == [7, *range(30, 40)]
    assert torch.equal(out[~spoiled], clean[~spoiled])


def test_operands_may_be_views_of_a_larger_tensor(dtype, kernels_on):
    lengths = [5, 12]
    fused = torch.randn(17, 3, 2, 16, generator=torch.Generator().manual_seed(0)).to(kernels_on, dtype)
    offsets = cumulative(lengths, kernels_on)
    out = flash_attention(*fused.unbind(1), offsets, offsets)
    apart = [tensor.contiguous() for tensor in fused.unbind(1)]
    assert torch.equal(out, flash_attention(*apart, offsets, offsets))
    check([*apart, offsets, offsets])


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]], ids=str)
def test_no_queries_give_no_rows(lengths, kernels_on):
    given = operands(lengths, lengths, 2, 16, torch.float32, kernels_on)
    assert flash_attention(*given).shape == (0, 2, 16)


def test_heads_too_wide_are_refused_with_the_limit(kernels_on):
    with pytest.raises(ValueError, match="heads of at most 128, got 129"):
        flash_attention(*operands([2], [2], 1, 129, torch.float32, kernels_on))


@pytest.mark.parametrize("run", [flash_attention, flash_attention_reference, flash_attention_cpu])
def test_a_query_that_sees_no_key_gets_zeros(run):
    *packed, cu_query, cu_key = operands([4, 2], [2, 0], 1, 4, torch.float32, "cpu")
    query, key, value = (tensor.requires_grad_() for tensor in packed)
    out = run(query, key, value, cu_query, cu_key, causal=True, scale=0.5)
    torch.testing.assert_close(
        out.double(), exact(query, key, value, cu_query, cu_key, causal=True), atol=1e-6, rtol=1e-6
    )
    assert not bool(out[:2].any() | out[4:].any())
    if run is not flash_attention_cpu:
        gradients = torch.autograd.grad(out.square().sum(), [query, key, value])
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert not bool(gradients[0][:2].any())


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
    with pytest.raises(ValueError, match=problem):
        flash_attention(*operands([2], [2], 1, 4, torch.float32, "cpu"), **options)


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
    query, key, value, offsets, _ = operands([3, 4], [3, 4], 1, 16, torch.float32, kernels_on)
    others = cumulative([4, 3], kernels_on)
    for cu_key in (offsets, others, offsets, others):
        flash_attention(query, key, value, offsets, cu_key)
    assert [given[1] is offsets for given in made] == [True, False]
