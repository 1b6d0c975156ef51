"""The kernels of the feature encoder's convolutions, the first layer's with its norm too."""

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import check_bits_in_any_batch, close, wide
from kernel_checks import conv_operands as operands

from tritone.kernels.conv.normalized import normalized_conv, normalized_conv_reference
from tritone.kernels.conv.waveform import waveform_conv, waveform_conv_reference
from tritone.kernels.runtime.launch import recorded
from tritone.kernels.runtime.packing import cumulative, spans

TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}

# The blocks of 32, 64 and 128 rows end inside an utterance, at its end and at its beginning.
LENGTHS = [[1], [10], [97], [5, 0, 12], [0, 30], [30, 0], [64, 1, 2, 129, 3, 290]]
# Channels in, channels out, kernel, stride: aligned and not, more than a block of outputs and of the sums.
SIZES = [
    (1, 33, 10, 5),
    (1, 80, 3, 2),
    (1, 1, 1, 1),
    (48, 80, 3, 2),
    (16, 48, 2, 2),
    (5, 3, 2, 3),
    (7, 70, 4, 1),
]


@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_kernel_equals_the_reference(size, activation, dtype, kernels_on):
    *shape, stride = size
    for lengths in LENGTHS:
        hidden, cu, weight, bias = operands(lengths, *shape, dtype, kernels_on)
        bias = bias if activation else None
        with recorded() as cases:
            out, cu_out = waveform_conv(hidden, cu, weight, bias, stride=stride, activation=activation)
        assert bool(cases) == bool(len(out))
        wanted, cu_wanted = waveform_conv_reference(
            hidden.double(), cu, *wide(weight, bias), stride=stride, activation=activation
        )
        assert out.dtype == dtype
        assert torch.equal(cu_out, cu_wanted)
        close(out, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("size", [(33, 10, 5), (80, 3, 4), (48, 16, 1), (16, 17, 2)], ids=str)
def test_the_first_layer_in_one_equals_its_operations(size, dtype, kernels_on):
    outputs, kernel, stride = size
    # Statistics are taken of pieces of 2,048 windows.
    for lengths in [*LENGTHS, [2100 * stride + kernel, 40]] if outputs in (33, 16) else LENGTHS:
        hidden, cu, weight, bias = operands(lengths, 1, outputs, kernel, dtype, kernels_on)
        norm = weight[:, 0, 0].clone(), bias
        out, cu_out = normalized_conv(hidden, cu, weight, *norm, 1e-3, stride=stride, activation="gelu")
        wanted, cu_wanted = normalized_conv_reference(
            hidden.double(), cu, weight.double(), *wide(*norm), 1e-3, stride=stride, activation="gelu"
        )
        assert out.dtype == dtype
        assert torch.equal(cu_out, cu_wanted)
        # Two launches, of more taps than the statistics are made for, round in between.
        close(out, wanted, 4 * TOLERANCE[dtype])


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_a_quiet_channel_beside_loud_low_frequencies_keeps_its_variance(offset, kernels_on):
    time = torch.arange(6000, dtype=torch.float64)[:, None]
    generator = torch.Generator().manual_seed(0)
    waveforms = torch.sin(time * 0.002) + 1e-3 * torch.randn(6000, 1, generator=generator).double()
    # The offset as float32 has it is what both see.
    waveforms = (waveforms + offset).float().to(kernels_on)
    weight = torch.tensor([[[1.0, -1.0]], [[0.5, 0.5]]], device=kernels_on)
    one, zero = torch.ones(2, device=kernels_on), torch.zeros(2, device=kernels_on)
    given = waveforms, cumulative([6000], kernels_on), weight
    out, _ = normalized_conv(*given, one, zero, 1e-20, stride=5)
    wanted, _ = normalized_conv_reference(
        waveforms.double(), given[1], weight.double(), one.double(), zero.double(), 1e-20, stride=5
    )
    close(out, wanted, 1e-3)


def test_silence_becomes_the_bias(dtype, kernels_on):
    hidden, cu, weight, bias = operands([60, 11], 1, 20, 10, dtype, kernels_on)
    out, _ = normalized_conv(torch.full_like(hidden, 3.0), cu, weight, bias, bias, stride=5)
    assert torch.equal(out, bias.expand(12, 20))


@pytest.mark.parametrize("size", SIZES[:6], ids=str)
def test_an_utterance_has_the_same_bits_alone_first_in_the_middle_and_last(size, dtype, kernels_on):
    *shape, stride = size
    lengths = [10, 137, 2, 16, 0, 560]
    hidden, _, weight, bias = operands(lengths, *shape, dtype, kernels_on)

    def run(rows, cu):
        out, cu_out = waveform_conv(rows, cu, weight, bias, stride=stride, activation="gelu")
        if shape[0] == 1:
            out = torch.cat([out, normalized_conv(rows, cu, weight, bias, bias, stride=stride)[0]], 1)
        return [out[start:end] for start, end in spans(cu_out)]

    check_bits_in_any_batch(hidden.split(lengths), run)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("channels", [1, 5, 16])
def test_neighbors_and_stale_memory_never_leak_in(channels, bad, dtype, kernels_on):
    hidden, cu, weight, bias = operands([12, 57, 13], channels, 32, 4, dtype, kernels_on)
    around = torch.full((82 + 64, channels), bad).to(hidden)
    around[32 + 12 : 32 + 69] = hidden[12:69]
    runs = [waveform_conv(rows, cu, weight, bias, stride=2) for rows in (hidden, around[32:-32])]
    if channels == 1:
        runs += [normalized_conv(rows, cu, weight, bias, bias, stride=2) for rows in (hidden, around[32:-32])]
    for (clean, cu_out), (out, _) in zip(runs[::2], runs[1::2], strict=True):
        first, last = spans(cu_out)[1]
        assert torch.equal(out[first:last], clean[first:last])
        assert not bool(out[:first].isfinite().any())


def test_no_utterances_and_short_ones_give_nothing(kernels_on):
    for lengths in ([], [0, 0], [2, 3]):
        for channels in (1, 5):
            hidden, cu, weight, bias = operands(lengths, channels, 3, 4, torch.float32, kernels_on)
            out, cu_out = waveform_conv(hidden, cu, weight, bias, stride=2)
            assert out.shape == (0, 3)
            assert cu_out.tolist() == [0] * (len(lengths) + 1)
            if channels == 1:
                assert normalized_conv(hidden, cu, weight, bias, bias, stride=2)[0].shape == (0, 3)


def test_the_kernel_is_torchs_convolution(dtype, kernels_on):
    hidden, cu, weight, bias = operands([50], 16, 48, 3, dtype, kernels_on)
    out, _ = waveform_conv(hidden, cu, weight, bias, stride=2, activation="gelu")
    close(
        out,
        F.gelu(F.conv1d(hidden.double().T[None], weight.double(), bias.double(), 2)[0].T),
        TOLERANCE[dtype],
    )
