"""The grouped convolution's kernel over packed utterances against its reference in float64."""

import pytest
import torch

from tritone.kernels.conv.positional import positional_conv, positional_conv_reference, positional_length
from tritone.kernels.runtime.packing import cumulative

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


def operands(lengths, size, dtype, device):
    """hidden, cu_tokens, weight, bias, residual."""
    channels, groups, kernel, stride = size
    generator = torch.Generator().manual_seed(sum(lengths) * 1009 + channels)
    rows = sum(positional_length(length, kernel, stride) for length in lengths)
    members = channels // groups
    given = [
        torch.randn(sum(lengths), channels, generator=generator),
        torch.randn(channels, members, kernel, generator=generator) / (members * kernel) ** 0.5,
        torch.randn(channels, generator=generator),
        torch.randn(rows, channels, generator=generator),
    ]
    given = [tensor.to(device, dtype) for tensor in given]
    return [given[0], cumulative(lengths, device), *given[1:]]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_kernel_equals_the_reference(size, dtype, kernels_on):
    _, groups, _, stride = size
    options = {"groups": groups, "stride": stride, "activation": "gelu"}
    for lengths in LENGTHS:
        hidden, cu, weight, bias, residual = operands(lengths, size, dtype, kernels_on)
        out = positional_conv(hidden, cu, weight, bias, residual=residual, **options)
        wanted = positional_conv_reference(
            hidden.double(), cu, weight.double(), bias.double(), residual=residual.double(), **options
        )
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_there_may_be_neither_bias_nor_activation_nor_residual(dtype, kernels_on):
    hidden, cu, weight, *_ = operands([9, 4], (32, 2, 16, 1), dtype, kernels_on)
    out = positional_conv(hidden, cu, weight, None, groups=2)
    wanted = positional_conv_reference(hidden.double(), cu, weight.double(), None, groups=2)
    torch.testing.assert_close(out.double(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("size", [(32, 2, 16, 1), (48, 3, 5, 2), (6, 2, 5, 1)], ids=str)
def test_an_utterance_has_the_same_bits_alone_first_in_the_middle_and_last(size, dtype, kernels_on):
    lengths = [10, 77, 2, 16, 0, 150]
    hidden, _, weight, bias, _ = operands(lengths, size, dtype, kernels_on)
    pieces = hidden.split(lengths)

    def run(order):
        out = positional_conv(
            torch.cat([pieces[index] for index in order]),
            cumulative([lengths[index] for index in order], kernels_on),
            weight,
            bias,
            groups=size[1],
            stride=size[3],
            activation="gelu",
        )
        return out.split([positional_length(lengths[index], size[2], size[3]) for index in order])

    alone = [run([index])[0] for index in range(6)]
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 5, 0, 4, 1, 3], [3, 0]):
        for index, out in zip(order, run(order), strict=True):
            assert torch.equal(out, alone[index])


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
