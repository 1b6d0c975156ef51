"""The zero-padded convolution over packed utterances, on the CPU and on kernels, against torch in float64."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import by_device, check_bits_in_any_batch, close, near, refused, surrounded, wide
from kernel_checks import conv_operands as operands

from tritone.kernels.conv.padded import padded_conv, padded_conv_reference
from tritone.kernels.conv.subsample import output_length
from tritone.kernels.runtime.packing import cumulative, spans

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
# Channels in, channels out, kernel, stride: Whisper's two, even kernels, a stride beyond the kernel.
CPU_SIZES = [(80, 48, 3, 1), (48, 48, 3, 2), (5, 3, 4, 1), (7, 40, 2, 3), (1, 9, 1, 1), (6, 2, 5, 2)]
SIZES = [(80, 48, 3, 1), (48, 80, 3, 2), (5, 3, 4, 1), (7, 70, 2, 3)]
LENGTHS = [[1], [2], [97], [5, 0, 12], [0, 30], [300, 1, 129]]
RUNS = [padded_conv, padded_conv_reference]


def alone(hidden, weight, bias, stride):
    """torch's convolution of one utterance, in float64."""
    if not len(hidden):
        return torch.zeros(0, weight.shape[0], dtype=torch.float64)
    return F.conv1d(*wide(hidden.T[None], weight, bias), stride, weight.shape[2] // 2)[0].T


def check(size, lengths, run, dtype, device):
    *shape, stride = size
    hidden, cu, weight, bias = operands(lengths, *shape, dtype, device)
    out, cu_out = run(hidden, cu, weight, bias, stride=stride, activation="gelu")
    assert cu_out.tolist() == cumulative([output_length(one, shape[2], stride) for one in lengths]).tolist()
    parts = [alone(part, weight, bias, stride) for part in hidden.split(lengths)]
    near(out, F.gelu(torch.cat(parts)), dtype, TOLERANCE)


@by_device("case", [*product(CPU_SIZES, RUNS)], [*product(SIZES, RUNS[:1])])
def test_each_utterance_is_convolved_between_its_own_zeros(case, dtype, device):
    size, run = case
    for lengths in LENGTHS:
        check(size, lengths, run, dtype, device)


@pytest.mark.parametrize("run", RUNS)
def test_in_float64_too(run):
    for size, lengths in product(CPU_SIZES, LENGTHS):
        check(size, lengths, run, torch.float64, "cpu")


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", CPU_SIZES, ids=str)
def test_an_utterance_has_the_same_bits_alone_and_anywhere(size, dtype):
    check_bits([37, 700, 0, 5, 129, 1, 64], size, dtype, "cpu")


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_on_kernels_too_an_utterance_has_the_same_bits(size, dtype, kernels_on):
    check_bits([10, 137, 2, 0, 150], size, dtype, kernels_on)


def check_bits(lengths, size, dtype, device):
    *shape, stride = size
    hidden, _, weight, bias = operands(lengths, *shape, dtype, device)

    def run(rows, cu):
        out, cu_out = padded_conv(rows, cu, weight, bias, stride=stride, activation="gelu")
        return [out[start:end] for start, end in spans(cu_out)]

    check_bits_in_any_batch(hidden.split(lengths), run)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_neighbors_and_stale_memory_never_leak_in(bad, dtype, device):
    hidden, cu, weight, bias = operands([20, 41, 7], 16, 24, 3, dtype, device)
    clean, cu_out = padded_conv(hidden, cu, weight, bias, stride=2)
    hidden[:20], hidden[61:] = bad, bad
    out, _ = padded_conv(surrounded(hidden, bad), cu, weight, bias, stride=2)
    start, end = spans(cu_out)[1]
    assert torch.equal(out[start:end], clean[start:end])
    assert not bool(out[:start].isfinite().any())


def test_a_weight_that_changes_in_place_is_seen_and_there_may_be_neither_bias_nor_activation(dtype, device):
    hidden, cu, weight, _ = operands([40, 9, 4], 16, 24, 3, dtype, device)
    for factor in (1, 2):
        weight.mul_(factor)
        out, _ = padded_conv(hidden, cu, weight, None)
        close(out, padded_conv_reference(*wide(hidden, cu, weight, None))[0], TOLERANCE[dtype] * factor)


def test_columns_of_a_wider_tensor_are_taken(device):
    hidden, cu, weight, bias = operands([12, 3], 6, 2, 3, device=device)
    wider = torch.cat([hidden, hidden * 7], 1)[:, :6]
    out, wanted = (padded_conv(rows, cu, weight, bias)[0] for rows in (wider, hidden))
    assert torch.equal(out, wanted)


def test_utterances_of_no_positions_give_none(device):
    for lengths in ([], [0, 0]):
        hidden, cu, weight, bias = operands(lengths, 6, 2, 3, device=device)
        out, cu_out = padded_conv(hidden, cu, weight, bias, stride=2)
        assert (out.shape, cu_out.tolist()) == ((0, 2), [0] * (len(lengths) + 1))


def test_gradients_are_those_of_the_specification():
    hidden, cu, weight, bias = operands([5, 3], 4, 3, 3, torch.float64)
    given = [tensor.requires_grad_() for tensor in (hidden, weight, bias)]
    assert torch.autograd.gradcheck(
        lambda h, w, b: padded_conv(h, cu, w, b, stride=2, activation="gelu")[0], given
    )


def test_what_does_not_fit_is_refused_with_its_numbers():
    hidden, cu, weight, bias = operands([20], 6, 2, 3)
    given = padded_conv, hidden, cu, weight, bias
    refused(r"padded_conv takes \[positions, 6\], got \[20, 5\]", padded_conv, hidden[:, :5], *given[2:])
    refused("stride must be at least 1, got 0", *given, stride=0)
    refused("unknown activation 'cube'", *given, activation="cube")
    refused("cu_tokens", padded_conv, hidden[:9], *given[2:])
