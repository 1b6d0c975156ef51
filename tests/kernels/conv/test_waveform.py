"""The feature encoder's convolutions over packed utterances, against torch in float64.

`normalized_conv` is the first layer's, with its group norm.
"""

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import check_bits_in_any_batch, close, near, noise, refused, surrounded, wide
from kernel_checks import conv_operands as operands

from tritone.kernels.conv.normalized import normalized_conv, normalized_conv_cpu, normalized_conv_reference
from tritone.kernels.conv.waveform import valid_length, waveform_conv, waveform_conv_reference
from tritone.kernels.runtime.launch import recorded
from tritone.kernels.runtime.packing import cumulative, spans

TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
# Channels in, channels out, kernel, stride: wav2vec2's kinds and odd ones, a stride beyond the kernel.
CPU_SIZES = [(1, 33, 10, 5), (1, 1, 1, 1), (48, 64, 3, 2), (5, 3, 2, 2), (7, 40, 2, 3), (512, 17, 3, 2)]
CPU_LENGTHS = [[1], [9], [10], [97], [5, 0, 12], [0, 30], [30, 0], [128, 1, 2, 1300]]
# Aligned and not, more than a block of outputs and of the sums.
SIZES = [
    (1, 33, 10, 5),
    (1, 80, 3, 2),
    (1, 1, 1, 1),
    (48, 80, 3, 2),
    (16, 48, 2, 2),
    (5, 3, 2, 3),
    (7, 70, 4, 1),
]

# The blocks of 32, 64 and 128 rows end inside an utterance, at its end and at its beginning.
LENGTHS = [[1], [10], [97], [5, 0, 12], [0, 30], [30, 0], [64, 1, 2, 129, 3, 290]]


def alone(hidden, weight, bias, stride):
    """torch's convolution of one utterance, in float64."""
    if hidden.shape[0] < weight.shape[2]:
        return torch.zeros(0, weight.shape[0], dtype=torch.float64)
    return F.conv1d(*wide(hidden.T[None], weight, bias), stride=stride)[0].T


@pytest.mark.parametrize("dtype", [torch.float64, *TOLERANCE], ids=str)
@pytest.mark.parametrize("run", [waveform_conv, waveform_conv_reference])
@pytest.mark.parametrize("size", CPU_SIZES, ids=str)
def test_each_utterance_is_convolved_over_its_whole_windows(size, run, dtype):
    *shape, stride = size
    for lengths in CPU_LENGTHS:
        hidden, cu, weight, bias = operands(lengths, *shape, dtype)
        out, cu_out = run(hidden, cu, weight, bias, stride=stride, activation="gelu")
        assert out.dtype == dtype
        assert cu_out.dtype == torch.int32
        counts = [valid_length(length, shape[2], stride) for length in lengths]
        assert cu_out.tolist() == cumulative(counts).tolist()
        parts = [alone(part, weight, bias, stride) for part in hidden.split(lengths)]
        close(out, F.gelu(torch.cat(parts)), TOLERANCE.get(dtype, 1e-12))


def test_there_may_be_neither_bias_nor_activation():
    hidden, cu, weight, _ = operands([40, 9], 6, 20, 3)
    out, _ = waveform_conv(hidden, cu, weight, None, stride=2)
    wanted = torch.cat([alone(part, weight, None, 2) for part in hidden.split([40, 9])])
    close(out, wanted, 1e-5)


def test_columns_of_a_wider_tensor_are_taken():
    hidden, cu, weight, bias = operands([40, 9], 6, 20, 3)
    wider = torch.cat([hidden, hidden * 7], 1)[:, :6]
    out, wanted = (waveform_conv(rows, cu, weight, bias, stride=2)[0] for rows in (wider, hidden))
    assert torch.equal(out, wanted)


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
        assert torch.equal(cu_out, cu_wanted)
        near(out, wanted, dtype, TOLERANCE)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", CPU_SIZES, ids=str)
def test_an_utterance_has_the_same_bits_alone_and_anywhere(size, dtype):
    check_waveform_bits([37, 2100, 0, 5, 700, 1, 333, 64], size, dtype, "cpu")


@pytest.mark.parametrize("size", SIZES[:6], ids=str)
def test_on_kernels_too_an_utterance_has_the_same_bits(size, dtype, kernels_on):
    check_waveform_bits([10, 137, 2, 16, 0, 560], size, dtype, kernels_on)


def check_waveform_bits(lengths, size, dtype, device):
    *shape, stride = size
    hidden, _, weight, bias = operands(lengths, *shape, dtype, device)
    norm = [noise(shape[1] + extra, dtype=dtype, device=device)[extra:] for extra in range(2)]

    def run(rows, cu):
        out, cu_out = waveform_conv(rows, cu, weight, bias, stride=stride, activation="gelu")
        if shape[0] == 1:
            normalized, _ = normalized_conv(rows, cu, weight, *norm, stride=stride, activation="gelu")
            out = torch.cat([out, normalized], 1)
        return [out[start:end] for start, end in spans(cu_out)]

    check_bits_in_any_batch(hidden.split(lengths), run)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("channels", [1, 5, 16])
def test_neighbors_and_stale_memory_never_leak_in(channels, bad, dtype, device):
    hidden, cu, weight, bias = operands([12, 57, 13], channels, 32, 4, dtype, device)
    poisoned = hidden.clone()
    poisoned[:12], poisoned[69:] = bad, bad
    both = hidden, surrounded(poisoned, bad)
    runs = [[waveform_conv(rows, cu, weight, bias, stride=2) for rows in both]]
    if channels == 1:
        runs += [[normalized_conv(rows, cu, weight, bias, bias, stride=2) for rows in both]]
    for (clean, cu_out), (out, _) in runs:
        first, last = spans(cu_out)[1]
        assert torch.equal(out[first:last], clean[first:last])
        assert not bool(out[:first].isfinite().any())


def test_a_weight_that_changes_in_place_is_seen():
    hidden, cu, weight, bias = operands([40], 16, 32, 3)
    waveform_conv(hidden, cu, weight, bias, stride=2)
    weight.mul_(2)
    out, _ = waveform_conv(hidden, cu, weight, bias, stride=2)
    close(out, alone(hidden, weight, bias, 2), 1e-5)


def test_gradients_are_those_of_the_specification():
    hidden, cu, weight, bias = (
        tensor.double().requires_grad_() if tensor.is_floating_point() else tensor
        for tensor in operands([12, 7], 1, 4, 3)
    )
    assert torch.autograd.gradcheck(
        lambda h, w, b: waveform_conv(h, cu, w, b, stride=2, activation="gelu")[0], (hidden, weight, bias)
    )
    assert torch.autograd.gradcheck(
        lambda h, w, b: normalized_conv(h, cu, w, b, b, stride=2, activation="gelu")[0],
        (hidden, weight, bias),
    )


@pytest.mark.parametrize("dtype", [torch.float64, *TOLERANCE], ids=str)
@pytest.mark.parametrize("run", [normalized_conv, normalized_conv_cpu, normalized_conv_reference])
@pytest.mark.parametrize("size", [(33, 10, 5), (5, 3, 4), (64, 1, 1)], ids=str)
def test_the_first_layer_in_one_is_conv_group_norm_and_gelu(size, run, dtype):
    outputs, kernel, stride = size
    for lengths in CPU_LENGTHS:
        waveforms, cu, weight, bias = operands(lengths, 1, outputs, kernel, dtype)
        norm_weight = noise(outputs + 1, dtype=dtype)[1:]
        out, cu_out = run(waveforms, cu, weight, norm_weight, bias, 1e-3, stride=stride, activation="gelu")
        assert out.dtype == dtype
        assert cu_out.tolist() == waveform_conv(waveforms, cu, weight, None, stride=stride)[1].tolist()
        parts = []
        for part in waveforms.split(lengths):
            mixed = alone(part, weight, None, stride)
            if len(mixed):
                mixed = torch.group_norm(mixed.T[None], outputs, norm_weight.double(), bias.double(), 1e-3)[
                    0
                ].T
            parts.append(F.gelu(mixed))
        # Half types round between the operations.
        tolerance = 3 * TOLERANCE[dtype] if dtype in TOLERANCE else 1e-9
        close(out, torch.cat(parts), tolerance)


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


def test_a_quiet_channel_beside_loud_low_frequencies_keeps_its_variance():
    """A difference of neighbors hears almost nothing of a slow wave that is far from zero."""
    time = torch.arange(16000.0, dtype=torch.float64)[:, None]
    waveforms = 3.0 + torch.sin(time * 0.002) + 1e-4 * noise(16000, 1).double()
    weight = torch.tensor([[[1.0, -1.0]], [[0.5, 0.5]]])
    one, zero = torch.ones(2), torch.zeros(2)
    cu = cumulative([16000])
    wanted, _ = normalized_conv_reference(
        waveforms, cu, weight.double(), one.double(), zero.double(), 0.0, stride=5
    )
    out, _ = normalized_conv(waveforms.float(), cu, weight, one, zero, 0.0, stride=5)
    # In float32 the wave itself is known to 2e-7 of 3.
    torch.testing.assert_close(out.double(), wanted, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(out.double().var(0, correction=0), torch.ones(2).double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_on_kernels_too_a_quiet_channel_beside_loud_low_frequencies_keeps_its_variance(offset, kernels_on):
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


def test_silence_becomes_the_bias(dtype, device):
    hidden, cu, weight, bias = operands([60, 11], 1, 20, 10, dtype, device)
    for value in (0.0, 3.0):
        out, _ = normalized_conv(torch.full_like(hidden, value), cu, weight, bias, bias, stride=5)
        assert torch.equal(out, bias.expand(12, 20))


def test_no_utterances_and_short_ones_give_nothing(device):
    for lengths in ([], [0, 0], [2, 3]):
        for channels in (1, 5):
            hidden, cu, weight, bias = operands(lengths, channels, 3, 4, device=device)
            out, cu_out = waveform_conv(hidden, cu, weight, bias, stride=2)
            assert out.shape == (0, 3)
            assert cu_out.tolist() == [0] * (len(lengths) + 1)
            if channels == 1:
                assert normalized_conv(hidden, cu, weight, bias, bias, stride=2)[0].shape == (0, 3)


def test_what_does_not_fit_is_refused_with_its_numbers():
    hidden, cu, weight, bias = operands([20], 6, 8, 3)
    refused(
        r"takes \[positions, 6\], got \[20, 5\]", waveform_conv, hidden[:, :5], cu, weight, bias, stride=2
    )
    refused("stride must be at least 1, got 0", waveform_conv, hidden, cu, weight, bias, stride=0)
    refused(
        "unknown activation 'golu'; one of gelu",
        waveform_conv,
        hidden,
        cu,
        weight,
        bias,
        stride=2,
        activation="golu",
    )
    refused("rise from 0 to the 20 packed rows", waveform_conv, hidden, cu - 1, weight, bias, stride=2)
    refused(
        r"weights \[C_out, 1, kernel\], got \[20, 6\] and \[8, 6, 3\]",
        normalized_conv,
        hidden,
        cu,
        weight,
        bias,
        bias,
        stride=2,
    )
    refused(
        r"to 8 channels got a normalization of \[7\] and \[8\]",
        normalized_conv,
        hidden[:, :1],
        cu,
        weight[:, :1],
        bias[1:],
        bias,
        stride=2,
    )
