"""Utterance normalization: transformers' numbers, reference, CPU version and kernel."""

import pytest
import torch
from kernel_checks import check_bits_in_any_batch, close, drawn, refused
from torch import Tensor

from tritone.kernels.norm.utterance_cmvn import utterance_cmvn, utterance_cmvn_reference
from tritone.kernels.runtime.launch import recorded
from tritone.kernels.runtime.packing import cumulative, spans

# Frames of the utterances and bins: one frame, none, a whole block of 256, primes, over a block's end.
SHAPES = [([1], 1), ([2, 0, 17], 5), ([256, 3, 257], 23), ([0, 300, 0], 80), ([521], 16)]


def packed(lengths: list[int], bins: int, device: str = "cpu", seed: int = 0) -> tuple[Tensor, Tensor]:
    """features [frames, bins] and cu_frames."""
    (features,) = drawn((sum(lengths), bins), seed=seed)
    return (features * 3 + 12).to(device), cumulative(lengths, device)


@pytest.mark.parametrize("means", [True, False])
@pytest.mark.parametrize("variances", [True, False])
def test_the_numbers_are_those_of_transformers(means, variances):
    transformers = pytest.importorskip("transformers")
    features, cu_frames = packed([2, 17, 499], 80)
    ours = utterance_cmvn(features, cu_frames, normalize_means=means, normalize_vars=variances)
    for start, end in spans(cu_frames):
        theirs = transformers.Speech2TextFeatureExtractor.utterance_cmvn(
            features[start:end].numpy(), end - start, means, variances
        )
        torch.testing.assert_close(ours[start:end], torch.from_numpy(theirs), rtol=1e-5, atol=3e-5)


def test_an_utterance_is_normalized_over_its_own_frames():
    features, cu_frames = packed([50, 3, 200], 7)
    for utterance in torch.split(utterance_cmvn(features, cu_frames).double(), [50, 3, 200]):
        torch.testing.assert_close(utterance.mean(0), torch.zeros(7).double(), rtol=0, atol=1e-6)
        torch.testing.assert_close(utterance.std(0, correction=0), torch.ones(7).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("means", [True, False])
@pytest.mark.parametrize("variances", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_equals_the_reference(shape, means, variances, kernels_on):
    features, cu_frames = packed(*shape, kernels_on)
    options = {"normalize_means": means, "normalize_vars": variances}
    with recorded() as cases:
        out = utterance_cmvn(features, cu_frames, **options)
    assert [case.kernel.name for case in cases] == ["utterance_cmvn_kernel"]
    close(out, utterance_cmvn_reference(features.double(), cu_frames, **options), 1e-5)


@pytest.mark.parametrize("value", [0.1, -15.942385, 1e-30, 3e7])
@pytest.mark.parametrize("frames", [1, 3, 9, 601, 1_001])
def test_a_constant_bin_becomes_exactly_zero_or_keeps_its_value_where_means_stay(value, frames, device):
    features, cu_frames = packed([frames, 40], 3, device)
    features[:frames, 1] = value
    out = utterance_cmvn(features, cu_frames)
    assert out.isfinite().all()
    assert torch.equal(out[:frames, 1], torch.zeros_like(out[:frames, 1]))
    same = utterance_cmvn(features, cu_frames, normalize_means=False)
    assert torch.equal(same[:frames, 1], features[:frames, 1])


def test_the_smallest_variance_is_none_too_small(kernels_on):
    features, cu_frames = packed([8], 2, kernels_on)
    features[:, 0] = torch.tensor([0.0, 2e-20], device=kernels_on).repeat(4)
    out = utterance_cmvn(features, cu_frames)
    assert out.isfinite().all()
    wanted = torch.tensor([-1.0, 1.0], device=kernels_on).repeat(4)
    # Numbers this small have few digits, and so has their variance of 1e-40.
    torch.testing.assert_close(out[:, 0], wanted, rtol=1e-3, atol=0)


def test_a_large_mean_costs_no_more_than_in_the_reference(kernels_on):
    features, cu_frames = packed([400], 4, kernels_on)
    features += 1e4
    close(utterance_cmvn(features, cu_frames), utterance_cmvn_reference(features.double(), cu_frames), 1e-5)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's, of infinities
@pytest.mark.parametrize("bins", [80, 23, 1])
def test_an_utterance_has_the_same_bits_alone_first_in_the_middle_and_last(bins, device):
    pieces = [packed([length], bins, device, length)[0] for length in (283, 123, 1, 37, 300, 0, 1_501)]
    pieces[3].fill_(float("nan"))
    pieces[4][7] = float("inf")
    check_bits_in_any_batch(pieces, lambda rows, cu: utterance_cmvn(rows, cu).split(cu.diff().tolist()))


def test_features_may_lie_apart_or_at_any_address(kernels_on):
    features, cu_frames = packed([19], 7, kernels_on)
    expected = utterance_cmvn(features, cu_frames)
    assert torch.equal(utterance_cmvn(features.t().contiguous().t(), cu_frames), expected)
    shifted = torch.cat([features[:1], features])[1:]
    assert torch.equal(utterance_cmvn(shifted, cu_frames), expected)


def test_no_utterance_at_all_gives_no_frames(device):
    assert utterance_cmvn(*packed([], 80, device)).shape == (0, 80)


def test_gradients_are_those_of_finite_differences_even_beside_a_constant_bin():
    features, cu_frames = packed([5, 8], 3)
    features[:5, 1] = 2.0
    (weights,) = drawn((13, 3), seed=3, dtype=torch.float64)
    weights[:5, 1] = 0  # a kink lies there: only finiteness is asked for
    features = features.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: (utterance_cmvn(x, cu_frames) * weights).sum(), features)
    utterance_cmvn_reference(features, cu_frames).sum().backward()
    assert features.grad.isfinite().all()


def test_a_bad_argument_is_named():
    features, cu_frames = torch.zeros(4, 2), cumulative([4])
    refused("features must be", utterance_cmvn, torch.zeros(4), cu_frames)
    refused("float16", utterance_cmvn, features.half(), cu_frames)
    refused("cu_frames", utterance_cmvn, features, cumulative([3]))
    refused("cu_frames", utterance_cmvn, features, cu_frames.long())


def test_the_result_is_rounded_once_to_the_dtype_asked_for(device):
    features = torch.randn(40, 23).to(device)
    offsets = cumulative([30, 10], torch.device(device))
    full = utterance_cmvn(features, offsets)
    assert torch.equal(utterance_cmvn(features, offsets, dtype=torch.float16), full.half())
