"""Attention weights of named heads: reference and kernel against the definition in float64."""

import pytest
import torch
from attention_operands import flash_operands
from kernel_checks import by_device, check_bits, close, refused, surrounded

from tritone.kernels.attention.head_weights import head_weights
from tritone.kernels.runtime.packing import cumulative, spans

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
# Queries and keys of each sequence. Blocks are of 32 or 64 queries and as many keys.
LENGTHS = [([1], [1]), ([3, 0, 2], [64, 5, 65]), ([33, 1], [31, 0]), ([65, 2], [130, 7]), ([4], [97])]
SIZES = [(1, 16, [0]), (4, 20, [3, 0, 3]), (3, 5, [1, 2]), (2, 64, [1])]  # heads, head_dim, named heads


def operands(queries, keys, heads, width, dtype, device):
    query, key, _, cu_query, cu_key = flash_operands(queries, heads, width, dtype, device, keys=keys)
    return query, key, cu_query, cu_key


def exact(query, key, cu_query, cu_key, named, max_keys, scale=None):
    """The definition, in float64; zeros behind the last key."""
    out = torch.zeros(len(named), len(query), max_keys, dtype=torch.float64, device=query.device)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    for (q0, q1), (k0, k1) in zip(spans(cu_query), spans(cu_key), strict=True):
        for place, head in enumerate(named):
            scores = query[q0:q1, head].double() @ key[k0:k1, head].double().T * scale
            out[place, q0:q1, : k1 - k0] = scores.softmax(-1)
    return out


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_weights_are_the_softmax_of_the_scores(lengths, size, dtype, device):
    heads, width, named = size
    given = operands(*lengths, heads, width, dtype, device)
    max_keys = max(lengths[1]) + 3
    out = head_weights(*given, named, max_keys)
    assert out.dtype == torch.float32
    close(out, exact(*given, named, max_keys), TOLERANCE[dtype])


def test_a_scale_replaces_the_usual_one(dtype, device):
    given = operands([5], [40], 2, 16, dtype, device)
    out = head_weights(*given, [1], 40, scale=0.7)
    close(out, exact(*given, [1], 40, 0.7), TOLERANCE[dtype])


@by_device("width", [16, 20, 64], [16, 20])
def test_a_sequence_has_the_same_bits_in_any_batch(width, dtype, device):
    queries, keys = [3, 40, 0, 1, 17], [20, 70, 3, 64, 33]
    query, key, _, _ = operands(queries, keys, 2, width, dtype, device)
    asked, seen = query.split(queries), key.split(keys)

    def run(order):
        counts = [queries[one] for one in order], [keys[one] for one in order]
        packed = torch.cat([asked[one] for one in order]), torch.cat([seen[one] for one in order])
        offsets = [cumulative(one, device) for one in counts]
        out = head_weights(*packed, *offsets, [1], 70)
        return [part.contiguous() for part in out.split(counts[0], 1)]

    check_bits(len(queries), run)


def test_neighbors_and_stale_memory_never_leak_in(dtype, device):
    query, key, cu_query, cu_key = operands([3, 20, 4], [5, 40, 6], 2, 16, dtype, device)
    clean = head_weights(query, key, cu_query, cu_key, [0, 1], 48)[:, 3:23]
    query[:3], query[23:], key[:5], key[45:] = (float("nan"),) * 4
    query, key = surrounded(query, float("nan")), surrounded(key, float("nan"))
    assert torch.equal(head_weights(query, key, cu_query, cu_key, [0, 1], 48)[:, 3:23], clean)


@pytest.mark.parametrize("named", [[], [0]], ids=str)
def test_no_queries_or_no_heads_give_no_weights(named, device):
    given = operands([0], [4], 2, 16, torch.float32, device)
    assert head_weights(*given, named, 4).shape == (len(named), 0, 4)


def test_a_head_that_there_is_not_is_refused():
    given = operands([2], [4], 2, 16, torch.float32, "cpu")
    refused(r"heads \[2\] are not among the 2 of a layer", head_weights, *given, [2], 4)


def test_heads_too_wide_are_refused_with_the_limit(kernels_on):
    given = operands([2], [4], 1, 129, torch.float32, kernels_on)
    refused("heads of at most 128, got 129", head_weights, *given, [0], 4)
