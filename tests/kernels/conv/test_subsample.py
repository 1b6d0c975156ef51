"""The strided convolution with its gate, over packed utterances."""

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import check_bits_in_any_batch, close, conv_operands

from tritone.kernels.conv.subsample import (
    conv_subsample,
    conv_subsample_cpu,
    conv_subsample_reference,
    output_length,
)
from tritone.kernels.runtime.packing import cumulative, spans

LENGTHS = [[1], [2], [3], [16], [97], [1, 1, 1], [5, 0, 7], [0, 9], [9, 0], [31, 2, 16, 1, 53]]
SIZES = [(1, 1, 3), (5, 3, 5), (7, 4, 1), (80, 36, 5), (3, 2, 4)]  # channels in, channels out, kernel
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}


def operands(lengths, channels, outputs, kernel, dtype=torch.float32):
    return conv_operands(lengths, channels, 2 * outputs, kernel, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_each_utterance_is_convolved_between_its_own_zeros(lengths, size, stride, dtype):
    frames, cu_frames, weight, bias = operands(lengths, *size, dtype)
    kernel = size[2]
    for run in (conv_subsample, conv_subsample_cpu, conv_subsample_reference):
        out, cu_out = run(frames, cu_frames, weight, bias, stride=stride)
        assert out.dtype == dtype
        assert cu_out.dtype == torch.int32
        for (start, end), (first, last) in zip(spans(cu_frames), spans(cu_out), strict=True):
            assert last - first == output_length(end - start, kernel, stride)
            if start == end:
                continue
            exact = [tensor.double() for tensor in (frames[start:end].T[None], weight, bias)]
            wanted = F.glu(F.conv1d(*exact, stride=stride, padding=kernel // 2), dim=1)[0].T
            close(out[first:last], wanted, TOLERANCE[dtype])
        assert out.shape == (int(cu_out[-1]), size[1])


@pytest.mark.parametrize("lengths", [[0], [0, 0]], ids=str)
def test_utterances_of_no_frames_have_no_outputs(lengths):
    frames, cu_frames, weight, bias = operands(lengths, 5, 3, 5)
    for run in (conv_subsample, conv_subsample_cpu, conv_subsample_reference):
        out, cu_out = run(frames, cu_frames, weight, bias)
        assert out.shape == (0, 3)
        assert cu_out.tolist() == [0] * (len(lengths) + 1)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_an_utterance_has_the_same_bits_alone_first_in_the_middle_and_last(size):
    lengths = [1, 37, 2, 16, 5, 120]
    frames, _, weight, bias = operands(lengths, *size)
    check_bits_in_any_batch(frames.split(lengths), lambda rows, cu: run(rows, cu, weight, bias))


def run(rows, cu, weight, bias):
    """Outputs of each utterance."""
    out, cu_out = conv_subsample(rows, cu, weight, bias)
    return [out[start:end] for start, end in spans(cu_out)]


@pytest.mark.usefixtures("threads")
def test_the_gates_bits_do_not_depend_on_how_threads_share_the_batch():
    lengths = [1, 301, 900]
    frames, cu_frames, weight, bias = operands(lengths, 5, 256, 3)
    whole = run(frames, cu_frames, weight, bias)
    for piece, out in zip(frames.split(lengths), whole, strict=True):
        assert torch.equal(out, run(piece, cumulative([len(piece)]), weight, bias)[0])


def test_gradients_reach_frames_weight_and_bias():
    frames, cu_frames, weight, bias = operands([3, 0, 4], 2, 2, 3)
    given = tuple(tensor.double().requires_grad_() for tensor in (frames, weight, bias))
    assert torch.autograd.gradcheck(lambda f, w, b: conv_subsample(f, cu_frames, w, b)[0], given)


def test_channels_that_do_not_fit_are_refused_with_both_numbers():
    frames, cu_frames, weight, bias = operands([4], 5, 3, 5)
    with pytest.raises(ValueError, match=r"takes frames of 5 channels .* got 4 channels and 6 outputs"):
        conv_subsample(frames[:, :4], cu_frames, weight, bias)
    with pytest.raises(ValueError, match="even number of outputs, got 5 channels and 5 outputs"):
        conv_subsample(frames, cu_frames, weight[:5], bias[:5])
    with pytest.raises(ValueError, match="cu_frames must rise from 0 to the 4 packed rows"):
        conv_subsample(frames, cumulative([3]), weight, bias)
