"""The kernel of attention with a bias by distance, against its definition in float64."""

import pytest
import torch

from tritone.kernels.attention.biased import biased_attention, biased_attention_reference
from tritone.kernels.attention.distance_buckets import Buckets
from tritone.kernels.runtime.packing import cumulative

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}

# Blocks are of 32 or 64 queries and 16 to 64 keys.
LENGTHS = [[1], [2, 1], [13, 0, 5], [0, 7], [16, 15, 17], [65, 3]]
BOTH = Buckets(8, 20, both_directions=True)
KINDS = [
    BOTH,
    Buckets(8, 20, both_directions=False),
    Buckets(4, 2, both_directions=True),
    Buckets(32, 128, True),
]


def operands(queries, heads, width, dtype, device, *, keys=None, buckets=BOTH):
    keys = queries if keys is None else keys
    generator = torch.Generator().manual_seed(sum(queries) * 1009 + len(queries) * 31 + width)
    query, key, value = (
        torch.randn(sum(lengths), heads, width, generator=generator).to(device, dtype)
        for lengths in (queries, keys, keys)
    )
    table = torch.randn(buckets.count, heads, generator=generator).to(device, dtype)
    return query, key, value, cumulative(queries, device), cumulative(keys, device), table, buckets


def check(given, *, causal=False, scale=0.2):
    out = biased_attention(*given, causal=causal, scale=scale)
    assert out.dtype == given[0].dtype
    wide = [
        one.double() if isinstance(one, torch.Tensor) and one.is_floating_point() else one for one in given
    ]
    expected = biased_attention_reference(*wide, causal=causal, scale=scale)
    torch.testing.assert_close(out.double(), expected, rtol=TOLERANCE[out.dtype], atol=TOLERANCE[out.dtype])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("size", [(2, 16), (3, 20)], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_every_sequence_attends_to_itself_alone(lengths, size, causal, dtype, kernels_on):
    check(operands(lengths, *size, dtype, kernels_on), causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("buckets", KINDS, ids=str)
def test_distances_within_and_far_beyond_the_farthest(buckets, causal, dtype, kernels_on):
    """With 150 tokens and a farthest distance of 2 or 20 some tiles have one bias, in either direction."""
    check(operands([150, 6], 2, 16, dtype, kernels_on, buckets=buckets), causal=causal)


@pytest.mark.parametrize("causal", [False, True])
def test_the_last_query_has_the_position_of_the_last_key(causal, dtype, kernels_on):
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
@pytest.mark.parametrize("size", [(2, 16), (1, 20)], ids=str)
def test_a_sequence_has_the_same_bits_alone_first_in_the_middle_and_last(size, causal, dtype, kernels_on):
    lengths = [1, 37, 0, 16, 70, 5]
    query, key, value, _, _, *bias = operands(lengths, *size, dtype, kernels_on)
    pieces = list(zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True))

    def run(order: list[int]) -> list[torch.Tensor]:
        packed = [torch.cat(tensors) for tensors in zip(*(pieces[index] for index in order), strict=True)]
        counts = [lengths[index] for index in order]
        cu = cumulative(counts, kernels_on)
        return list(biased_attention(*packed, cu, cu, *bias, causal=causal, scale=0.2).split(counts))

    alone = [run([index])[0] for index in range(6)]
    for order in ([5, 4, 3, 2, 1, 0], [2, 4, 0, 5, 1, 3], [3, 1]):
        for index, out in zip(order, run(order), strict=True):
            assert torch.equal(out, alone[index])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("width", [16, 5])
def test_neighbors_and_stale_memory_never_leak_in(width, bad, dtype, kernels_on):
    *packed, cu, _, table, buckets = operands([3, 37, 20], 2, width, dtype, kernels_on)
    rest = cu, cu, table, buckets
    clean = biased_attention(*packed, *rest, scale=0.2)
    for tensor in packed:
        tensor[:3] = bad
        tensor[40:] = bad
    # In the middle of a larger piece of memory, as the rest of a pool would lie around it.
    around = [torch.full((tensor.shape[0] + 64, 2, width), bad).to(tensor) for tensor in packed]
    for place, tensor in zip(around, packed, strict=True):
        place[32:-32] = tensor
    out = biased_attention(*(place[32:-32] for place in around), *rest, scale=0.2)
    assert torch.equal(out[3:40], clean[3:40])
    assert bool(out[:3].isnan().all())


def test_operands_may_be_views_of_a_larger_tensor(dtype, kernels_on):
    generator = torch.Generator().manual_seed(0)
    fused = torch.randn(17, 3, 2, 16, generator=generator).to(kernels_on, dtype)
    table = torch.randn(2, 8, generator=generator).to(kernels_on, dtype).t()
    cu = cumulative([5, 12], kernels_on)
    out = biased_attention(*fused.unbind(1), cu, cu, table, BOTH)
    apart = [tensor.contiguous() for tensor in fused.unbind(1)]
    assert torch.equal(out, biased_attention(*apart, cu, cu, table.contiguous(), BOTH))
    check((*apart, cu, cu, table, BOTH))


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]], ids=str)
def test_no_tokens_give_no_rows(lengths, kernels_on):
    assert biased_attention(*operands(lengths, 2, 16, torch.float32, kernels_on)).shape == (0, 2, 16)


def test_heads_too_wide_are_refused_with_the_limit(kernels_on):
    with pytest.raises(ValueError, match="heads of at most 128, got 129"):
        biased_attention(*operands([2], 1, 129, torch.float32, kernels_on))
