"""Attention over packed sequences."""

import pytest
import torch

from tritone.kernels.attention.flash import (
    attention_weights,
    flash_attention,
    flash_attention_cpu,
    flash_attention_reference,
)
from tritone.kernels.runtime.packing import cumulative, spans

SIZES = [(1, 1), (4, 36), (3, 5), (2, 64), (1, 17)]  # heads, head_dim
SELF_LENGTHS = [[1], [2], [16], [17], [97], [1, 1, 1], [13, 0, 5], [0, 7], [31, 16, 1, 2]]
CROSS_LENGTHS = [
    ([1], [1]),
    ([3], [16]),
    ([16], [3]),
    ([1, 5, 2], [17, 1, 33]),
    ([0, 4], [6, 1]),
    ([7], [97]),
]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def operands(
    queries: list[int], keys: list[int], heads: int, width: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(sum(queries) * 1009 + sum(keys) * 31 + width)
    query = torch.randn(sum(queries), heads, width, generator=generator)
    key = torch.randn(sum(keys), heads, width, generator=generator)
    value = torch.randn(sum(keys), heads, width, generator=generator)
    return query.to(dtype), key.to(dtype), value.to(dtype), cumulative(queries), cumulative(keys)


def naive(query, key, value, cu_query, cu_key, *, causal=False, scale=None, window=None) -> torch.Tensor:
    """The definition, number by number, in float64."""
    out = torch.zeros(query.shape, dtype=torch.float64)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    for (q0, q1), (k0, k1) in zip(spans(cu_query), spans(cu_key), strict=True):
        for place in range(q1 - q0):
            last = place + (k1 - k0) - (q1 - q0)  # the key that stands where the query does
            end = k0 + last + 1 if causal else k1
            start = max(k0, end - window) if causal and window is not None else k0
            for head in range(query.shape[1]):
                scores = key[start:end, head].double() @ query[q0 + place, head].double() * scale
                out[q0 + place, head] = scores.softmax(0) @ value[start:end, head].double()
    return out


def check(given: tuple[torch.Tensor, ...], dtype: torch.dtype, **options) -> None:
    wanted = naive(*given, **options)
    for run in (flash_attention, flash_attention_reference, flash_attention_cpu):
        out = run(*given, **options)
        assert out.dtype == dtype
        assert out.shape == given[0].shape
        torch.testing.assert_close(out.double(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("lengths", SELF_LENGTHS, ids=str)
def test_every_sequence_attends_to_itself_alone(lengths, size, causal, dtype):
    check(operands(lengths, lengths, *size, dtype), dtype, causal=causal)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("queries", "keys"), CROSS_LENGTHS, ids=str)
def test_every_sequence_attends_to_its_own_keys_alone(queries, keys, size, dtype):
    check(operands(queries, keys, *size, dtype), dtype)


@pytest.mark.parametrize(
    ("queries", "keys"), [([1], [9]), ([3, 1], [5, 1]), ([4, 2, 16], [20, 2, 33])], ids=str
)
def test_causal_queries_stand_at_the_end_of_longer_keys(queries, keys):
    check(operands(queries, keys, 2, 8), torch.float32, causal=True)


@pytest.mark.parametrize("window", [1, 2, 16, 100])
@pytest.mark.parametrize(("queries", "keys"), [([9], [9]), ([1, 17], [1, 17]), ([3], [20])], ids=str)
def test_a_window_shows_a_query_its_last_keys_alone(queries, keys, window):
    check(operands(queries, keys, 2, 8), torch.float32, causal=True, window=window)


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_the_scale_is_the_callers(scale):
    check(operands([5, 3], [5, 3], 2, 7), torch.float32, scale=scale)


def test_no_sequences_give_no_rows():
    given = operands([], [], 2, 4)
    for run in (flash_attention, flash_attention_reference, flash_attention_cpu):
        assert run(*given).shape == (0, 2, 4)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_sequence_has_the_same_bits_alone_first_in_the_middle_and_last(size, causal):
    lengths = [1, 37, 2, 16, 120, 5]
    query, key, value, _, _ = operands(lengths, lengths, *size)
    pieces = [tensor.split(lengths) for tensor in (query, key, value)]

    def run(order: list[int]) -> list[torch.Tensor]:
        packed = [torch.cat([piece[index] for index in order]) for piece in pieces]
        chosen = [lengths[index] for index in order]
        cu = cumulative(chosen)
        return list(flash_attention(*packed, cu, cu, causal=causal).split(chosen))

    alone = [run([index])[0] for index in range(6)]
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 4, 0, 5, 1, 3], [3, 0]):
        for index, out in zip(order, run(order), strict=True):
            assert torch.equal(out, alone[index])


@pytest.mark.parametrize(("causal", "window"), [(False, None), (True, None), (True, 2)])
def test_weights_sum_to_one_and_are_those_that_the_output_is_made_with(causal, window):
    query, key, value, cu_query, cu_key = operands([3, 1, 4], [3, 5, 4], 2, 6)
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
    *packed, cu_query, cu_key = operands([2, 3], [2, 3], 2, 3)
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
    query, key, _, cu_query, cu_key = operands([40], [50], 4, 8)
    ones = torch.ones_like(key)
    torch.manual_seed(0)
    dropped = flash_attention(query, key, ones, cu_query, cu_key, dropout=0.5)
    assert not torch.allclose(dropped, torch.ones_like(dropped), atol=1e-2)
    assert abs(float(dropped.mean()) - 1.0) < 0.05


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
    given = {**dict(zip(names, operands([2, 3], [2, 3], 2, 6), strict=True)), **change}
    with pytest.raises(ValueError, match=problem):
        flash_attention(**given)


def test_relative_terms_are_refused_with_the_kernels_that_have_them():
    with pytest.raises(
        NotImplementedError, match=r"biased_attention.*relative_attention.*disentangled_attention"
    ):
        flash_attention(*operands([2], [2], 1, 4), relative=object())
