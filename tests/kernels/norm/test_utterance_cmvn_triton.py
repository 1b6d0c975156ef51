"""The Triton kernel of utterance normalization against its reference."""

import pytest
import torch

from tritone.kernels.norm.utterance_cmvn import utterance_cmvn, utterance_cmvn_reference
from tritone.kernels.runtime.launch import recorded
from tritone.kernels.runtime.packing import cumulative

# Frames of the utterances and bins: one frame, none, a whole block of 256, primes, over a block's end.
SHAPES = [([1], 1), ([2, 0, 17], 5), ([256, 3, 257], 23), ([0, 300, 0], 80), ([521], 16)]
TOLERANCE = 1e-5


def features_of(lengths: list[int], bins: int, device: str, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(sum(lengths), bins, generator=generator) * 3 + 12).to(device)


@pytest.mark.parametrize("means", [True, False])
@pytest.mark.parametrize("variances", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_equals_the_reference(shape, means, variances, kernels_on):
    features, cu_frames = features_of(*shape, kernels_on), cumulative(shape[0], kernels_on)
    options = {"normalize_means": means, "normalize_vars": variances}
    with recorded() as cases:
        out = utterance_cmvn(features, cu_frames, **options)
    assert [case.kernel.name for case in cases] == ["utterance_cmvn_kernel"]
    wanted = utterance_cmvn_reference(features.double(), cu_frames, **options)
    torch.testing.assert_close(out.double(), wanted, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("value", [0.1, -15.942385, 1e-30, 3e7])
@pytest.mark.parametrize("frames", [1, 3, 601])
def test_a_constant_bin_becomes_exactly_zero_or_keeps_its_value(value, frames, kernels_on):
    features, cu_frames = features_of([frames, 40], 3, kernels_on), cumulative([frames, 40], kernels_on)
    features[:frames, 1] = value
    out = utterance_cmvn(features, cu_frames)
    assert out.isfinite().all()
    assert torch.equal(out[:frames, 1], torch.zeros_like(out[:frames, 1]))
    kept = utterance_cmvn(features, cu_frames, normalize_means=False)
    assert torch.equal(kept[:frames, 1], features[:frames, 1])


def test_the_smallest_variance_is_none_too_small(kernels_on):
    features, cu_frames = features_of([8], 2, kernels_on), cumulative([8], kernels_on)
    features[:, 0] = torch.tensor([0.0, 2e-20], device=kernels_on).repeat(4)
    out = utterance_cmvn(features, cu_frames)
    assert out.isfinite().all()
    wanted = torch.tensor([-1.0, 1.0], device=kernels_on).repeat(4)
    # Numbers this small have few digits, and so has their variance of 1e-40.
    torch.testing.assert_close(out[:, 0], wanted, rtol=1e-3, atol=0)


def test_a_large_mean_costs_no_more_than_in_the_reference(kernels_on):
    features, cu_frames = features_of([400], 4, kernels_on) + 1e4, cumulative([400], kernels_on)
    out = utterance_cmvn(features, cu_frames).double()
    torch.testing.assert_close(
        out, utterance_cmvn_reference(features.double(), cu_frames), rtol=TOLERANCE, atol=TOLERANCE
    )


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's, of infinities
@pytest.mark.parametrize("bins", [80, 23, 1])
def test_an_utterance_has_the_same_bits_alone_first_in_the_middle_and_last(bins, kernels_on):
    lengths = [1, 37, 300, 0]
    one = features_of([283], bins, kernels_on, seed=1)
    expected = utterance_cmvn(one, cumulative([283], kernels_on))
    others = [features_of([length], bins, kernels_on, seed=length) for length in lengths]
    others[1].fill_(float("nan"))
    others[2][7] = float("inf")
    for at in range(len(lengths) + 1):
        pieces = [*others[:at], one, *others[at:]]
        cu_frames = cumulative([len(piece) for piece in pieces], kernels_on)
        out = utterance_cmvn(torch.cat(pieces), cu_frames)
        assert torch.equal(out[cu_frames[at] : cu_frames[at + 1]], expected)


def test_features_may_lie_apart_or_at_any_address(kernels_on):
    features, cu_frames = features_of([19], 7, kernels_on), cumulative([19], kernels_on)
    expected = utterance_cmvn(features, cu_frames)
    assert torch.equal(utterance_cmvn(features.t().contiguous().t(), cu_frames), expected)
    shifted = torch.cat([features[:1], features])[1:]
    assert torch.equal(utterance_cmvn(shifted, cu_frames), expected)


def test_no_utterance_at_all_gives_no_frames(kernels_on):
    out = utterance_cmvn(torch.zeros(0, 80, device=kernels_on), cumulative([], kernels_on))
    assert out.shape == (0, 80)
