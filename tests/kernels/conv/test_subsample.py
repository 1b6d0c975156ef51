"""The strided convolution with its gate over packed utterances, against torch in float64."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import (
    by_device,
    check_bits_in_any_batch,
    close,
    conv_operands,
    near,
    refused,
    surrounded,
    wide,
)
from torch import Tensor

from tritone.kernels.conv import subsample as module
from tritone.kernels.conv.subsample import (
    conv_subsample,
    conv_subsample_cpu,
    conv_subsample_reference,
    output_length,
)
from tritone.kernels.runtime.packing import cumulative, spans
from tritone.kernels.runtime.weight_cache import cached

CPU_LENGTHS = [[1], [2], [3], [16], [97], [1, 1, 1], [5, 0, 7], [0, 9], [9, 0], [31, 2, 16, 1, 53]]
# With stride 2 the blocks of 64 and 128 rows end inside an utterance, at its end and at its beginning.
LENGTHS = [[1], [2], [3], [97], [5, 0, 7], [0, 9], [9, 0], [128, 1, 126, 3], [31, 2, 16, 1, 263]]
CPU_SIZES = [(1, 1, 3), (5, 3, 5), (7, 4, 1), (80, 36, 5), (3, 2, 4)]  # channels in, channels out, kernel
# Aligned and not, more than a block of outputs, and of the sums.
SIZES = [(1, 1, 3), (5, 3, 5), (7, 33, 1), (80, 36, 5), (80, 48, 5), (48, 80, 3), (3, 2, 4), (16, 16, 2)]
RUNS = [conv_subsample, conv_subsample_cpu, conv_subsample_reference]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def operands(lengths, channels, outputs, kernel, dtype=torch.float32, device="cpu") -> list[Tensor]:
    return conv_operands(lengths, channels, 2 * outputs, kernel, dtype, device)


def check(given: list[Tensor | None], stride: int, run=conv_subsample) -> None:
    """Every utterance equals torch's convolution of it alone, in float64."""
    frames, cu_frames, weight, bias = given
    out, cu_out = run(frames, cu_frames, weight, bias, stride=stride)
    kernel = weight.shape[2]
    assert cu_out.dtype == torch.int32
    assert out.shape == (int(cu_out[-1]), weight.shape[0] // 2)
    for (start, end), (first, last) in zip(spans(cu_frames), spans(cu_out), strict=True):
        assert last - first == output_length(end - start, kernel, stride)
        if start < end:
            exact = wide(frames[start:end].T, weight, bias)
            wanted = F.glu(F.conv1d(*exact, stride=stride, padding=kernel // 2), dim=0).T
            near(out[first:last], wanted, frames.dtype, TOLERANCE)


@pytest.mark.parametrize("stride", [1, 2, 3])
@by_device("case", [*product(CPU_SIZES, RUNS)], [*product(SIZES, RUNS[:1])])
def test_each_utterance_is_convolved_between_its_own_zeros(case, stride, dtype, device):
    size, run = case
    for lengths in [*CPU_LENGTHS, *LENGTHS[-2:]]:
        check(operands(lengths, *size, dtype, device), stride, run)


@pytest.mark.parametrize("run", [conv_subsample_reference, conv_subsample_cpu])
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 6])
def test_the_other_implementations_take_even_kernels_too(kernel, stride, run):
    check(operands([1, 2, 3, 0, 4, 5, 11, 12], 3, 2, kernel), stride, run)


@pytest.mark.parametrize("size", [(5, 3, 4), (16, 32, 3)], ids=str)
def test_a_convolution_without_bias(size, dtype, device):
    *given, _ = operands([9, 4], *size, dtype, device)
    check([*given, None], 2)


def test_the_second_layer_takes_what_the_first_gives(dtype, device):
    frames, cu_frames, weight, bias = operands([33, 0, 1, 70], 80, 32, 5, dtype, device)
    middle, cu_middle = conv_subsample(frames, cu_frames, weight, bias)
    assert cu_middle.tolist() == [0, 17, 17, 18, 53]
    _, _, second, second_bias = operands([1], 32, 16, 5, dtype, device)
    check([middle, cu_middle, second, second_bias], 2)


@pytest.mark.parametrize("lengths", [[0], [0, 0]], ids=str)
@by_device("run", RUNS, RUNS[:1])
def test_utterances_of_no_frames_have_no_outputs(run, lengths, device):
    out, cu_out = run(*operands(lengths, 5, 3, 5, device=device))
    assert out.shape == (0, 3)
    assert cu_out.tolist() == [0] * (len(lengths) + 1)


def outputs_of_each(rows, cu, weight, bias) -> list[Tensor]:
    out, cu_out = conv_subsample(rows, cu, weight, bias)
    return [out[start:end] for start, end in spans(cu_out)]


@by_device("size", CPU_SIZES, [(16, 48, 5), (5, 3, 4), (7, 40, 1)])
def test_an_utterance_has_the_same_bits_alone_first_in_the_middle_and_last(size, dtype, device):
    lengths = [1, 37, 2, 16, 0, 5, 260]
    frames, _, weight, bias = operands(lengths, *size, dtype, device)
    check_bits_in_any_batch(frames.split(lengths), lambda rows, cu: outputs_of_each(rows, cu, weight, bias))


@pytest.mark.usefixtures("threads")
def test_the_gates_bits_do_not_depend_on_how_threads_share_the_batch():
    lengths = [1, 301, 900]
    frames, cu_frames, weight, bias = operands(lengths, 5, 256, 3)
    whole = outputs_of_each(frames, cu_frames, weight, bias)
    for piece, out in zip(frames.split(lengths), whole, strict=True):
        assert torch.equal(out, outputs_of_each(piece, cumulative([len(piece)]), weight, bias)[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("size", [(16, 16, 5), (5, 3, 4)], ids=str)
def test_neighbors_and_stale_memory_never_leak_in(size, bad, dtype, device):
    frames, cu_frames, weight, bias = operands([3, 37, 5], *size, dtype, device)
    clean, cu_out = conv_subsample(frames, cu_frames, weight, bias)
    frames[:3], frames[40:] = bad, bad
    out, _ = conv_subsample(surrounded(frames, bad), cu_frames, weight, bias)
    first, last = spans(cu_out)[1]
    assert torch.equal(out[first:last], clean[first:last])
    assert not bool(out[:first].isfinite().any())


@pytest.mark.parametrize("size", [(16, 16, 5), (5, 3, 4)], ids=str)
def test_a_frame_of_no_number_spoils_the_windows_that_hold_it_alone(size, dtype, device):
    frames, cu_frames, weight, bias = operands([30], *size, dtype, device)
    clean, _ = conv_subsample(frames, cu_frames, weight, bias, stride=1)
    frames[15] = float("nan")
    out, _ = conv_subsample(frames, cu_frames, weight, bias, stride=1)
    spoiled = out.isnan().all(1)
    before, after = size[2] - 1 - size[2] // 2, size[2] // 2
    assert spoiled.nonzero().flatten().tolist() == [*range(15 - before, 15 + after + 1)]
    assert torch.equal(out[~spoiled], clean[~spoiled])


def test_gates_far_out_open_or_close_and_give_no_nan(dtype, device):
    frames, cu_frames, weight, bias = operands([9], 5, 2, 3, dtype, device)
    bias[2:] = torch.tensor([300.0, -300.0])
    out, _ = conv_subsample(frames, cu_frames, weight, bias)
    given = (tensor.cpu() for tensor in (frames, cu_frames, weight, bias))
    close(out, conv_subsample_reference(*given)[0].to(out.device), TOLERANCE[dtype])
    assert not bool(out[:, 1].any())


def both(weight: Tensor, device: str) -> None:
    """The operation, with what it caches of `weight`, and the reference give the same."""
    frames, cu_frames, *_ = operands([9, 4], 5, 3, 3, device=device)
    out, _ = conv_subsample(frames, cu_frames, weight, None)
    wanted, _ = conv_subsample_reference(frames, cu_frames, weight, None)
    torch.testing.assert_close(out, wanted.detach(), rtol=1e-5, atol=1e-5)


def test_a_weight_is_rearranged_once_and_again_when_it_changes(kernels_on):
    weight = torch.nn.Parameter(torch.randn(6, 5, 3, device=kernels_on))
    with torch.no_grad():
        both(weight, kernels_on)
        first = cached(module._rearranged, weight)
        assert cached(module._rearranged, weight) is first
        weight.mul_(-2.0)
        both(weight, kernels_on)
        weight.data = torch.randn(6, 5, 3, device=kernels_on)  # as `module.to` does
        both(weight, kernels_on)
        assert cached(module._rearranged, weight) is not first


def test_weights_made_in_inference_mode_are_taken_too(kernels_on):
    with torch.inference_mode():
        weight = torch.randn(6, 5, 3, device=kernels_on)
        both(weight, kernels_on)
        assert cached(module._rearranged, weight) is cached(module._rearranged, weight)
    with torch.no_grad():
        both(weight, kernels_on)


def test_a_weight_may_be_a_view_of_any_strides(device):
    weight = torch.randn(3, 5, 12, device=device)[:, :, ::2].permute(2, 1, 0)
    both(weight, device)


def test_gradients_reach_frames_weight_and_bias():
    frames, cu_frames, weight, bias = operands([3, 0, 4], 2, 2, 3)
    given = tuple(tensor.double().requires_grad_() for tensor in (frames, weight, bias))
    assert torch.autograd.gradcheck(lambda f, w, b: conv_subsample(f, cu_frames, w, b)[0], given)


def test_channels_that_do_not_fit_are_refused_with_both_numbers():
    frames, cu_frames, weight, bias = operands([4], 5, 3, 5)
    refused(
        r"takes frames of 5 channels .* got 4 channels and 6 outputs",
        conv_subsample,
        frames[:, :4],
        cu_frames,
        weight,
        bias,
    )
    refused(
        "even number of outputs, got 5 channels and 5 outputs",
        conv_subsample,
        frames,
        cu_frames,
        weight[:5],
        bias[:5],
    )
    refused(
        "cu_frames must rise from 0 to the 4 packed rows",
        conv_subsample,
        frames,
        cumulative([3]),
        weight,
        bias,
    )
