"""Waveform normalization against transformers; the bits of a batch; the kernel against the reference."""

import pytest
import torch

from tritone.kernels.norm.waveform_norm import waveform_norm, waveform_norm_reference
from tritone.kernels.runtime.launch import recorded
from tritone.kernels.runtime.packing import cumulative

TOLERANCE = 1e-5
# Samples of the utterances: one, none, primes, over the end of a kernel's block of 8,192.
LENGTHS = [[1], [2, 0, 17], [8_191, 3, 8_193], [0, 16_384, 0], [20_011]]


def waveform(samples: int, seed: int = 0, device: str = "cpu") -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(samples, generator=generator) * 0.05 + 0.02).to(device)


@pytest.mark.parametrize("samples", [2, 17, 16_001])
@pytest.mark.parametrize("loudness", [1e-4, 1.0, 3e4])
def test_the_numbers_are_those_of_transformers(samples, loudness):
    transformers = pytest.importorskip("transformers")
    values = waveform(samples) * loudness
    theirs = transformers.Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm([values.numpy()], None)[0]
    ours = waveform_norm(values, cumulative([samples]))
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-5, atol=1e-5)


def test_an_utterance_is_normalized_over_its_own_samples():
    lengths = [500, 3, 20_000]
    packed = torch.cat([waveform(length, length) * (seed + 1) for seed, length in enumerate(lengths)])
    for utterance in waveform_norm(packed, cumulative(lengths)).double().split(lengths):
        torch.testing.assert_close(utterance.mean(), torch.tensor(0.0).double(), rtol=0, atol=1e-6)
        torch.testing.assert_close(utterance.std(correction=0), torch.tensor(1.0).double(), rtol=0, atol=1e-2)


def test_gradients_are_those_of_finite_differences():
    values = waveform(13).double().requires_grad_()
    weights = torch.linspace(-1, 1, 13, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: waveform_norm(x, cumulative([5, 8])) * weights, values)


@pytest.mark.parametrize(
    ("message", "waveforms", "cu_samples"),
    [
        ("waveforms must be", torch.zeros(4, 1), cumulative([4])),
        ("float16", torch.zeros(4).half(), cumulative([4])),
        ("cu_samples", torch.zeros(4), cumulative([3])),
        ("cu_samples", torch.zeros(4), torch.tensor([0, 4])),
    ],
)
def test_a_bad_argument_is_named(message, waveforms, cu_samples):
    with pytest.raises(ValueError, match=message):
        waveform_norm(waveforms, cu_samples)


@pytest.fixture(params=["reference", "kernel"])
def device(request, monkeypatch):
    """Device of the operation: the CPU for its reference, or that of its kernel."""
    return "cpu" if request.param == "reference" else request.getfixturevalue("kernels_on")


@pytest.mark.parametrize("value", [0.1, -15.942385, 1e-30])
@pytest.mark.parametrize("samples", [1, 3, 8_200])
def test_a_constant_becomes_exactly_zero(value, samples, device):
    values = torch.cat([torch.full((samples,), value, device=device), waveform(40, device=device)])
    out = waveform_norm(values, cumulative([samples, 40], device))
    assert torch.equal(out[:samples], torch.zeros_like(out[:samples]))
    assert out.isfinite().all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's, of infinities
def test_an_utterance_has_the_same_bits_alone_first_in_the_middle_and_last(device):
    lengths = [1, 9_000, 333, 0, 17, 2, 12_345]
    one = waveform(8_999, 1, device)
    expected = waveform_norm(one, cumulative([len(one)], device))
    others = [waveform(length, length, device) for length in lengths]
    others[1].fill_(float("nan"))
    others[2][7] = float("inf")
    for at in range(len(lengths) + 1):
        pieces = [*others[:at], one, *others[at:]]
        cu_samples = cumulative([len(piece) for piece in pieces], device)
        out = waveform_norm(torch.cat(pieces), cu_samples)
        assert torch.equal(out[cu_samples[at] : cu_samples[at + 1]], expected)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_the_kernel_equals_the_reference(lengths, kernels_on):
    values, cu_samples = waveform(sum(lengths), 3, kernels_on), cumulative(lengths, kernels_on)
    with recorded() as cases:
        out = waveform_norm(values, cu_samples)
    assert [case.kernel.name for case in cases] == ["waveform_norm_kernel"]
    wanted = waveform_norm_reference(values.double(), cu_samples)
    torch.testing.assert_close(out.double(), wanted, rtol=TOLERANCE, atol=TOLERANCE)


def test_no_utterance_at_all_gives_no_samples(device):
    assert waveform_norm(torch.zeros(0, device=device), cumulative([], device)).shape == (0,)


@pytest.mark.parametrize("wanted", [torch.float16, torch.float64])
def test_the_result_is_rounded_once_to_the_dtype_asked_for(wanted):
    values = waveform(601)
    full = waveform_norm(values, cumulative([601]))
    assert torch.equal(waveform_norm(values, cumulative([601]), wanted), full.to(wanted))


def test_the_kernel_rounds_once_to_half_precision(kernels_on):
    values = waveform(601, device=kernels_on)
    offsets = cumulative([600, 1], torch.device(kernels_on))
    full = waveform_norm(values, offsets)
    assert torch.equal(waveform_norm(values, offsets, torch.float16), full.half())
