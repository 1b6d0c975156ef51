"""The grouped convolution over packed utterances, on the CPU and on kernels, against torch in float64."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import by_device, check_bits_in_any_batch, close, near, refused, surrounded, wide
from kernel_checks import positional_operands as operands

from tritone.kernels.conv.positional import positional_conv, positional_conv_reference, positional_length
from tritone.kernels.runtime.packing import cumulative, spans

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
# Channels, groups, kernel, stride: even and odd kernels, SEW's stride, groups of one and of all channels.
CPU_SIZES = [(48, 4, 128, 1), (6, 2, 5, 1), (6, 6, 4, 2), (5, 1, 3, 3), (8, 4, 1, 1), (32, 2, 16, 2)]
# Aligned groups and not, and more outputs than a block.
SIZES = [
    (32, 2, 16, 1),
    (48, 3, 5, 2),
    (6, 2, 5, 1),
    (6, 6, 4, 2),
    (80, 1, 3, 1),
    (70, 1, 2, 3),
    (8, 4, 1, 1),
]
LENGTHS = [[1], [2], [63, 0, 5], [0, 64], [129, 1, 30], [300, 1, 129], [130]]
RUNS = [positional_conv, positional_conv_reference]


def exact(hidden, lengths, weight, bias, groups, stride):
    """As the peers do it, one utterance after the other and in float64: pad, convolve, drop the last."""
    kernel = weight.shape[2]
    parts = [hidden[:0].double()]
    for part in hidden.double().split(lengths):
        if len(part):
            mixed = F.conv1d(
                part.T[None], weight.double(), bias.double(), stride, kernel // 2, groups=groups
            )[0]
            parts.append((mixed if kernel % 2 else mixed[:, :-1]).T)
    return F.gelu(torch.cat(parts))


def check(lengths, size, dtype=torch.float32, device="cpu", run=positional_conv):
    """The operation with and without residual equals torch's convolutions of each utterance."""
    _, groups, _, stride = size
    hidden, cu, weight, bias, residual = operands(lengths, size, dtype, device)
    wanted = exact(hidden, lengths, weight, bias, groups, stride)
    for also in (None, residual):
        options = {"groups": groups, "stride": stride, "activation": "gelu", "residual": also}
        out = run(hidden, cu, weight, bias, **options)
        near(out, wanted if also is None else wanted + also.double(), dtype, TOLERANCE)


@by_device("case", [*product(CPU_SIZES, RUNS)], [*product(SIZES, RUNS[:1])])
def test_each_utterance_is_convolved_between_its_own_zeros(case, dtype, device):
    size, run = case
    for lengths in LENGTHS:
        check(lengths, size, dtype, device, run)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("size", CPU_SIZES, ids=str)
def test_in_float64_too(size, run):
    for lengths in LENGTHS:
        check(lengths, size, torch.float64, run=run)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [(768, 16, 128, 1), (48, 4, 31, 2), (6, 2, 5, 1)], ids=str)
def test_an_utterance_has_the_same_bits_alone_and_anywhere(size, dtype):
    check_positional_bits([37, 300, 0, 5, 129, 1, 128, 64], size, dtype, "cpu")


@pytest.mark.parametrize("size", [(32, 2, 16, 1), (48, 3, 5, 2), (6, 2, 5, 1)], ids=str)
def test_on_kernels_too_an_utterance_has_the_same_bits(size, dtype, kernels_on):
    check_positional_bits([10, 77, 2, 16, 0, 150], size, dtype, kernels_on)


def check_positional_bits(lengths, size, dtype, device):
    _, groups, kernel, stride = size
    hidden, _, weight, bias, _ = operands(lengths, size, dtype, device)

    def run(rows, cu):
        out = positional_conv(rows, cu, weight, bias, groups=groups, stride=stride, activation="gelu")
        return out.split([positional_length(end - start, kernel, stride) for start, end in spans(cu)])

    check_bits_in_any_batch(hidden.split(lengths), run)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("size", [(32, 2, 16, 1), (48, 4, 16, 1)], ids=str)
def test_neighbors_and_stale_memory_never_leak_in(size, bad, dtype, device):
    hidden, cu, weight, bias, _ = operands([20, 41, 7], size, dtype, device)
    clean = positional_conv(hidden, cu, weight, bias, groups=size[1])
    hidden[:20], hidden[61:] = bad, bad
    out = positional_conv(surrounded(hidden, bad), cu, weight, bias, groups=size[1])
    assert torch.equal(out[20:61], clean[20:61])
    assert not bool(out[:20].isfinite().any())


def test_a_weight_that_changes_in_place_is_seen_and_there_may_be_no_bias(dtype, device):
    hidden, cu, weight, *_ = operands([40, 9, 4], (32, 2, 16, 1), dtype, device)
    for factor in (1, 2):
        weight.mul_(factor)
        out = positional_conv(hidden, cu, weight, None, groups=2)
        wanted = positional_conv_reference(*wide(hidden, cu, weight, None), groups=2)
        close(out, wanted, TOLERANCE[dtype] * factor)


def test_columns_of_a_wider_tensor_are_taken(device):
    hidden, cu, weight, bias, _ = operands([12, 3], (6, 2, 5, 1), device=device)
    wider = torch.cat([hidden, hidden * 7], 1)[:, :6]
    out, wanted = (positional_conv(rows, cu, weight, bias, groups=2) for rows in (wider, hidden))
    assert torch.equal(out, wanted)


def test_utterances_of_no_tokens_give_none(device):
    for lengths in ([], [0, 0]):
        hidden, cu, weight, bias, _ = operands(lengths, (6, 2, 5, 1), device=device)
        assert positional_conv(hidden, cu, weight, bias, groups=2).shape == (0, 6)


def test_gradients_are_those_of_the_specification():
    hidden, cu, weight, bias, residual = operands([5, 3], (4, 2, 4, 1), torch.float64)
    given = [tensor.requires_grad_() for tensor in (hidden, weight, bias, residual)]
    assert torch.autograd.gradcheck(
        lambda h, w, b, r: positional_conv(h, cu, w, b, groups=2, activation="gelu", residual=r), given
    )


def test_lengths_are_those_that_come_out():
    for kernel in (1, 2, 3, 5, 128):
        for stride in (1, 2, 3):
            weight = torch.ones(1, 1, kernel)
            for length in (0, 1, 2, 7, 200):
                out = positional_conv(
                    torch.ones(length, 1), cumulative([length]), weight, None, groups=1, stride=stride
                )
                assert len(out) == positional_length(length, kernel, stride)
    assert spans(cumulative([3])) == [(0, 3)]


def test_what_does_not_fit_is_refused_with_its_numbers():
    hidden, cu, weight, bias, residual = operands([20], (6, 2, 5, 1))
    refused(
        "6 channels cannot be divided into 4 equal groups",
        positional_conv,
        hidden,
        cu,
        weight,
        bias,
        groups=4,
    )
    refused(
        r"3 groups takes weights \[6, 2, kernel\], got \[6, 3, 5\]",
        positional_conv,
        hidden,
        cu,
        weight,
        bias,
        groups=3,
    )
    refused(r"takes \[tokens, 6\], got \[20, 5\]", positional_conv, hidden[:, :5], cu, weight, bias, groups=2)
    refused(
        r"a residual of \[10, 6\], got \[20, 6\]",
        positional_conv,
        hidden,
        cu,
        weight,
        bias,
        groups=2,
        stride=2,
        residual=residual,
    )
    refused("stride must be at least 1, got 0", positional_conv, hidden, cu, weight, bias, groups=2, stride=0)
    refused(
        "unknown activation 'golu'", positional_conv, hidden, cu, weight, bias, groups=2, activation="golu"
    )
