"""The grouped convolution's kernel over packed utterances against its reference in float64."""

import pytest
import torch
from kernel_checks import check_bits_in_any_batch, close, wide
from kernel_checks import positional_operands as operands

from tritone.kernels.conv.positional import positional_conv, positional_conv_reference, positional_length
from tritone.kernels.runtime.packing import spans

TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
# Channels, groups, kernel, stride: aligned groups and not, even and odd kernels, SEW's stride, groups of one
# channel and of all, more outputs than a block.
SIZES = [
    (32, 2, 16, 1),
    (48, 3, 5, 2),
    (6, 2, 5, 1),
    (6, 6, 4, 2),
    (80, 1, 3, 1),
    (70, 1, 2, 3),
    (8, 4, 1, 1),
]
LENGTHS = [[1], [2], [63, 0, 5], [0, 64], [129, 1, 30]]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_kernel_equals_the_reference(size, dtype, kernels_on):
    _, groups, _, stride = size
    options = {"groups": groups, "stride": stride, "activation": "gelu"}
    for lengths in LENGTHS:
        hidden, cu, weight, bias, residual = operands(lengths, size, dtype, kernels_on)
        out = positional_conv(hidden, cu, weight, bias, residual=residual, **options)
        exact = wide(weight, bias)
        wanted = positional_conv_reference(hidden.double(), cu, *exact, residual=residual.double(), **options)
        assert out.dtype == dtype
        close(out, wanted, TOLERANCE[dtype])


def test_there_may_be_neither_bias_nor_activation_nor_residual(dtype, kernels_on):
    hidden, cu, weight, *_ = operands([9, 4], (32, 2, 16, 1), dtype, kernels_on)
    out = positional_conv(hidden, cu, weight, None, groups=2)
    wanted = positional_conv_reference(hidden.double(), cu, weight.double(), None, groups=2)
    close(out, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("size", [(32, 2, 16, 1), (48, 3, 5, 2), (6, 2, 5, 1)], ids=str)
def test_an_utterance_has_the_same_bits_alone_first_in_the_middle_and_last(size, dtype, kernels_on):
    _, groups, kernel, stride = size
    lengths = [10, 77, 2, 16, 0, 150]
    hidden, _, weight, bias, _ = operands(lengths, size, dtype, kernels_on)

    def run(rows, cu):
        out = positional_conv(rows, cu, weight, bias, groups=groups, stride=stride, activation="gelu")
        return out.split([positional_length(end - start, kernel, stride) for start, end in spans(cu)])

    check_bits_in_any_batch(hidden.split(lengths), run)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_neighbors_and_stale_memory_never_leak_in(bad, dtype, kernels_on):
    hidden, cu, weight, bias, _ = operands([12, 40, 13], (32, 2, 16, 1), dtype, kernels_on)
    clean = positional_conv(hidden, cu, weight, bias, groups=2)
    around = torch.full((65 + 64, 32), bad).to(hidden)
    around[32 + 12 : 32 + 52] = hidden[12:52]
    out = positional_conv(around[32:-32], cu, weight, bias, groups=2)
    assert torch.equal(out[12:52], clean[12:52])
    assert not bool(out[:12].isfinite().any())


def test_columns_of_a_wider_tensor_are_taken(kernels_on):
    hidden, cu, weight, bias, _ = operands([12, 3], (6, 2, 5, 1), torch.float32, kernels_on)
    wider = torch.cat([hidden, hidden * 7], 1)[:, :6]
    out, wanted = (positional_conv(rows, cu, weight, bias, groups=2) for rows in (wider, hidden))
    assert torch.equal(out, wanted)


def test_utterances_of_no_tokens_give_none(kernels_on):
    for lengths in ([], [0, 0]):
        hidden, cu, weight, bias, _ = operands(lengths, (6, 2, 5, 1), torch.float32, kernels_on)
        assert positional_conv(hidden, cu, weight, bias, groups=2).shape == (0, 6)
