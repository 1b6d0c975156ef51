"""The grouped convolution over packed utterances: reference and CPU path against torch in float64."""

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import check_bits_in_any_batch, close
from kernel_checks import positional_operands as operands

from tritone.kernels.conv.positional import positional_conv, positional_conv_reference, positional_length
from tritone.kernels.runtime.packing import cumulative, spans

TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
# Channels, groups, kernel, stride: even and odd kernels, SEW's stride, groups of one and of all channels.
SIZES = [(48, 4, 128, 1), (6, 2, 5, 1), (6, 6, 4, 2), (5, 1, 3, 3), (8, 4, 1, 1), (32, 2, 16, 2)]
LENGTHS = [[1], [2], [63, 0, 5], [0, 64], [300, 1, 129], [130]]


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


@pytest.mark.parametrize("dtype", [torch.float64, *TOLERANCE], ids=str)
@pytest.mark.parametrize("run", [positional_conv, positional_conv_reference])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_each_utterance_is_convolved_between_its_own_zeros(size, run, dtype):
    _, groups, _, stride = size
    tolerance = TOLERANCE.get(dtype, 1e-12)
    for lengths in LENGTHS:
        hidden, cu, weight, bias, residual = operands(lengths, size, dtype)
        options = {"groups": groups, "stride": stride, "activation": "gelu"}
        wanted = exact(hidden, lengths, weight, bias, groups, stride)
        for also in (None, residual):
            out = run(hidden, cu, weight, bias, residual=also, **options)
            assert out.dtype == dtype
            close(out, wanted if also is None else wanted + also.double(), tolerance)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [(768, 16, 128, 1), (48, 4, 31, 2), (6, 2, 5, 1)], ids=str)
def test_an_utterance_has_the_same_bits_alone_and_anywhere(size, dtype):
    _, groups, kernel, stride = size
    lengths = [37, 300, 0, 5, 129, 1, 128, 64]
    hidden, _, weight, bias, _ = operands(lengths, size, dtype)

    def run(rows, cu):
        out = positional_conv(rows, cu, weight, bias, groups=groups, stride=stride, activation="gelu")
        return out.split([positional_length(end - start, kernel, stride) for start, end in spans(cu)])

    check_bits_in_any_batch(hidden.split(lengths), run)


def test_neighbors_of_no_number_never_leak_in():
    size = (48, 4, 16, 1)
    hidden, cu, weight, bias, _ = operands([20, 41, 7], size)
    clean = positional_conv(hidden, cu, weight, bias, groups=4)
    hidden[:20], hidden[61:] = float("nan"), float("inf")
    out = positional_conv(hidden, cu, weight, bias, groups=4)
    assert torch.equal(out[20:61], clean[20:61])
    assert bool(out[:20].isnan().all())


def test_a_weight_that_changes_in_place_is_seen_and_there_may_be_no_bias():
    hidden, cu, weight, _, _ = operands([40], (6, 2, 5, 1))
    positional_conv(hidden, cu, weight, None, groups=2)
    weight.mul_(2)
    out = positional_conv(hidden, cu, weight, None, groups=2)
    wanted = positional_conv_reference(hidden.double(), cu, weight.double(), None, groups=2)
    close(out, wanted, 1e-5)


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
    with pytest.raises(ValueError, match="6 channels cannot be divided into 4 equal groups"):
        positional_conv(hidden, cu, weight, bias, groups=4)
    with pytest.raises(ValueError, match=r"3 groups takes weights \[6, 2, kernel\], got \[6, 3, 5\]"):
        positional_conv(hidden, cu, weight, bias, groups=3)
    with pytest.raises(ValueError, match=r"takes \[tokens, 6\], got \[20, 5\]"):
        positional_conv(hidden[:, :5], cu, weight, bias, groups=2)
    with pytest.raises(ValueError, match=r"a residual of \[10, 6\], got \[20, 6\]"):
        positional_conv(hidden, cu, weight, bias, groups=2, stride=2, residual=residual)
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        positional_conv(hidden, cu, weight, bias, groups=2, stride=0)
    with pytest.raises(ValueError, match="unknown activation 'golu'"):
        positional_conv(hidden, cu, weight, bias, groups=2, activation="golu")
