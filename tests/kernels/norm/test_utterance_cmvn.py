"""Utterance normalization against transformers; bins without variance; errors."""

import pytest
import torch

from tritone.kernels.norm.utterance_cmvn import utterance_cmvn, utterance_cmvn_reference


def packed(lengths: list[int], bins: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(sum(lengths), bins, generator=generator) * 3 + 12
    return features, torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


@pytest.mark.parametrize("means", [True, False])
@pytest.mark.parametrize("variances", [True, False])
def test_the_numbers_are_those_of_transformers(means, variances):
    transformers = pytest.importorskip("transformers")
    features, cu_frames = packed([2, 17, 499], 80)
    ours = utterance_cmvn(features, cu_frames, normalize_means=means, normalize_vars=variances)
    for start, end in zip(cu_frames[:-1].tolist(), cu_frames[1:].tolist(), strict=True):
        theirs = transformers.Speech2TextFeatureExtractor.utterance_cmvn(
            features[start:end].numpy(), end - start, means, variances
        )
        torch.testing.assert_close(ours[start:end], torch.from_numpy(theirs), rtol=1e-5, atol=3e-5)


def test_an_utterance_is_normalized_over_its_own_frames():
    features, cu_frames = packed([50, 3, 200], 7)
    for utterance in torch.split(utterance_cmvn(features, cu_frames).double(), [50, 3, 200]):
        torch.testing.assert_close(utterance.mean(0), torch.zeros(7).double(), rtol=0, atol=1e-6)
        torch.testing.assert_close(utterance.std(0, correction=0), torch.ones(7).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [0.1, -15.942385, 1e-30, 3e7])
@pytest.mark.parametrize("frames", [1, 3, 1_001])
def test_a_constant_bin_becomes_exactly_zero(value, frames):
    features, cu_frames = packed([frames, 40], 3)
    features[:frames, 1] = value
    normalized = utterance_cmvn(features, cu_frames)
    assert torch.equal(normalized[:frames, 1], torch.zeros(frames))
    assert normalized.isfinite().all()


def test_a_constant_bin_keeps_its_value_where_means_stay():
    features, cu_frames = packed([9], 2)
    features[:, 0] = 0.1
    normalized = utterance_cmvn(features, cu_frames, normalize_means=False)
    assert torch.equal(normalized[:, 0], features[:, 0])


@pytest.mark.parametrize("bins", [80, 23, 1])
def test_an_utterance_has_the_same_bits_alone_first_in_the_middle_and_last(bins):
    lengths = [1, 37, 300, 1_501, 0]
    one, _ = packed([123], bins, seed=1)
    expected = utterance_cmvn(one, torch.tensor([0, 123], dtype=torch.int32))
    for at in range(len(lengths) + 1):
        others = [packed([length], bins, seed=length)[0] for length in lengths]
        pieces = [*others[:at], one, *others[at:]]
        cu_frames = torch.tensor([0, *map(len, pieces)]).cumsum(0).to(torch.int32)
        normalized = utterance_cmvn(torch.cat(pieces), cu_frames)
        assert torch.equal(normalized[cu_frames[at] : cu_frames[at + 1]], expected)


def test_no_utterance_at_all_gives_no_frames():
    assert utterance_cmvn(torch.zeros(0, 80), torch.tensor([0], dtype=torch.int32)).shape == (0, 80)


def test_gradients_are_those_of_finite_differences_even_beside_a_constant_bin():
    features, cu_frames = packed([5, 8], 3)
    features[:5, 1] = 2.0
    weights = torch.randn(13, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    weights[:5, 1] = 0  # a kink lies there: only finiteness is asked for
    features = features.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: (utterance_cmvn(x, cu_frames) * weights).sum(), features)
    utterance_cmvn_reference(features, cu_frames).sum().backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize(
    ("message", "features", "cu_frames"),
    [
        ("features must be", torch.zeros(4), torch.tensor([0, 4], dtype=torch.int32)),
        ("float16", torch.zeros(4, 2).half(), torch.tensor([0, 4], dtype=torch.int32)),
        ("cu_frames", torch.zeros(4, 2), torch.tensor([0, 3], dtype=torch.int32)),
        ("cu_frames", torch.zeros(4, 2), torch.tensor([0, 4])),
    ],
)
def test_a_bad_argument_is_named(message, features, cu_frames):
    with pytest.raises(ValueError, match=message):
        utterance_cmvn(features, cu_frames)
