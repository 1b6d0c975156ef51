"""Filter bank against Kaldi, float64 and transformers; errors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tritone.kernels.features.fbank import (
    FbankOptions,
    fbank,
    fbank_cpu,
    fbank_reference,
    frame_count,
    frame_sizes,
)
from tritone.kernels.runtime.packing import cumulative

KALDI_SCALE = 2.0**15
KALDI_ERROR = 2e-5  # of the peak power: kaldi-native-fbank itself is 1.3e-5 from float64 on these recordings
RECORDINGS = Path(__file__).resolve().parents[3] / "../shared/data/fsdd/test"


def speech(rate: int) -> list[np.ndarray]:
    """Recordings of digits (8 kHz), resampled to `rate`, -1 to 1."""
    soundfile, soxr = pytest.importorskip("soundfile"), pytest.importorskip("soxr")
    files = sorted(RECORDINGS.glob("*.wav"))[::11]
    if not files:
        pytest.skip("the FSDD recordings are not there; they are not part of the repository")
    audio = [soundfile.read(file, dtype="float32") for file in files]
    return [samples if rate == own else soxr.resample(samples, own, rate) for samples, own in audio]


def synthetic(rate: int) -> np.ndarray:
    """Two seconds of tones over pink-like noise with an offset of 0.3."""
    generator = np.random.default_rng(rate)
    time = np.arange(2 * rate) / rate
    noise = np.cumsum(generator.standard_normal(len(time))) * 2e-4
    tones = 0.2 * np.sin(2 * np.pi * 440 * time) + 0.05 * np.sin(2 * np.pi * 0.37 * rate * time)
    return (tones + noise - noise.mean() + 0.01 * generator.standard_normal(len(time)) + 0.3).astype(
        np.float32
    )


def alone(waveform: np.ndarray | torch.Tensor, **options) -> torch.Tensor:
    samples = torch.as_tensor(waveform)
    features, cu_frames = fbank(samples, cumulative([len(samples)]), FbankOptions(**options))
    assert cu_frames.tolist() == [0, len(features)]
    return features


def kaldi(waveform: np.ndarray, rate: int, bins: int, window: str) -> np.ndarray:
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = rate
    options.frame_opts.dither = 0
    options.frame_opts.window_type = {"hann": "hanning"}.get(window, window)
    options.mel_opts.num_bins = bins
    online = knf.OnlineFbank(options)
    online.accept_waveform(rate, waveform.tolist())
    online.input_finished()
    return np.stack([online.get_frame(i) for i in range(online.num_frames_ready)])


def assert_close_in_power(ours: torch.Tensor, oracle: torch.Tensor, power=4e-6, log=1e-3) -> None:
    """Power within `power` of the frame's peak; log-mel within `log` for bins within 60 dB of the peak."""
    ours, oracle = ours.double(), oracle.double()
    assert ours.shape == oracle.shape
    peak = oracle.exp().amax(dim=1, keepdim=True)
    assert ((ours.exp() - oracle.exp()).abs() / peak).max() <= power
    loud = oracle.exp() >= 1e-6 * peak
    assert (ours - oracle)[loud].abs().max() <= log


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_recorded_speech_is_as_in_float64(rate):
    for waveform in speech(rate):
        scaled = torch.from_numpy(waveform) * KALDI_SCALE
        ours = alone(scaled, sampling_rate=rate)
        assert_close_in_power(ours, alone(scaled.double(), sampling_rate=rate))


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_recorded_speech_is_as_in_kaldi(rate):
    for waveform in speech(rate):
        scaled = waveform * np.float32(KALDI_SCALE)
        theirs = torch.from_numpy(kaldi(scaled, rate, 80, "povey"))
        assert_close_in_power(alone(scaled, sampling_rate=rate), theirs, power=KALDI_ERROR)


@pytest.mark.parametrize("rate", [8_000, 8_200, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(("bins", "window"), [(80, "povey"), (23, "hamming"), (40, "hann"), (128, "povey")])
def test_every_rate_window_and_number_of_bins_is_as_in_kaldi(rate, bins, window):
    scaled = synthetic(rate) * np.float32(KALDI_SCALE)
    ours = alone(scaled, sampling_rate=rate, num_mel_bins=bins, window=window)
    theirs = torch.from_numpy(kaldi(scaled, rate, bins, window))
    assert_close_in_power(ours, theirs, power=KALDI_ERROR)


def test_an_offset_of_the_recording_costs_no_accuracy():
    scaled = torch.from_numpy(synthetic(16_000)) * KALDI_SCALE
    assert_close_in_power(alone(scaled), alone(scaled.double()))


def test_the_numbers_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    extractor = transformers.Speech2TextFeatureExtractor(do_ceptral_normalize=False)
    waveform = synthetic(16_000)
    theirs = extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_features[0]
    ours = alone(waveform * np.float32(KALDI_SCALE))
    assert_close_in_power(ours, theirs)


def test_silence_has_the_floor_in_every_bin():
    features = alone(torch.zeros(1_000), mel_floor=1e-5)
    assert torch.equal(features, torch.full((4, 80), 1e-5).log())


@pytest.mark.parametrize("bins", [80, 23])
def test_an_utterance_has_the_same_bits_alone_first_in_the_middle_and_last(bins):
    generator = torch.Generator().manual_seed(1)
    one = torch.randn(52_347, generator=generator)
    others = [torch.randn(length, generator=generator) for length in (401, 7_001, 60_001, 399, 0)]
    expected = alone(one, num_mel_bins=bins)
    for at in range(len(others) + 1):
        pieces = [*others[:at], one, *others[at:]]
        cu_samples = cumulative([len(piece) for piece in pieces])
        features, cu_frames = fbank(torch.cat(pieces), cu_samples, FbankOptions(num_mel_bins=bins))
        assert torch.equal(features[cu_frames[at] : cu_frames[at + 1]], expected)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (561, 2)])
def test_only_whole_frames_count(samples, frames):
    assert frame_count(samples, 16_000) == frames
    assert alone(torch.ones(samples)).shape == (frames, 80)


def test_no_utterance_at_all_gives_no_frames():
    features, cu_frames = fbank(torch.zeros(0), cumulative([]))
    assert features.shape == (0, 80)
    assert cu_frames.tolist() == [0]


def test_gradients_are_those_of_finite_differences():
    waveform = torch.randn(
        700, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True
    )
    options = FbankOptions(sampling_rate=8_000, num_mel_bins=5)

    def summed(samples):
        return fbank(samples, cumulative([300, 400]), options)[0].sum()

    assert torch.autograd.gradcheck(summed, waveform, fast_mode=True)


def test_a_first_call_in_inference_mode_does_not_spoil_later_gradients():
    options = {"sampling_rate": 9_001, "num_mel_bins": 7, "window": "hann"}
    with torch.inference_mode():
        alone(torch.randn(1_000), **options)
    waveform = torch.randn(1_000, requires_grad=True)
    alone(waveform, **options).sum().backward()
    assert waveform.grad is not None


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000])
@pytest.mark.parametrize("frames", [1, 2, 255, 256, 257, 600])
def test_the_path_for_the_cpu_is_as_good_as_the_reference(rate, frames):
    length, shift = frame_sizes(rate)
    samples = length + (frames - 1) * shift + shift // 2
    waveform = torch.randn(samples + 500, generator=torch.Generator().manual_seed(frames)) * 3_000 + 9_000
    cu_samples, options = cumulative([500, samples]), FbankOptions(sampling_rate=rate)
    ours, cu_frames = fbank_cpu(waveform, cu_samples, options)
    theirs, expected = fbank_reference(waveform.double(), cu_samples, options)
    assert torch.equal(cu_frames, expected)
    assert_close_in_power(ours, theirs)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("float32 or float64", {"waveforms": torch.zeros(1_000, dtype=torch.int16)}),
        ("one dimension", {"waveforms": torch.zeros(2, 500)}),
        ("cu_samples", {"cu_samples": torch.tensor([0, 1_000])}),
        ("cu_samples", {"cu_samples": torch.tensor([0, 999], dtype=torch.int32)}),
        ("cu_samples", {"cu_samples": torch.tensor([1, 1_000], dtype=torch.int32)}),
        ("cu_samples", {"cu_samples": torch.tensor([0, 600, 500, 1_000], dtype=torch.int32)}),
    ],
)
def test_a_bad_argument_is_named(message, changes):
    arguments = {"waveforms": torch.zeros(1_000), "cu_samples": cumulative([1_000])}
    with pytest.raises(ValueError, match=message):
        fbank(**(arguments | changes))


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("48,000 Hz, got 96000", {"sampling_rate": 96_000}),
        ("8,000", {"sampling_rate": 7_999}),
        ("num_mel_bins", {"num_mel_bins": 0}),
        ("'blackman'", {"window": "blackman"}),
        ("preemphasis", {"preemphasis": 1.5}),
        ("low_frequency", {"low_frequency": 8_000.0}),
        ("mel_floor", {"mel_floor": 0.0}),
    ],
)
def test_a_bad_option_is_named(message, options):
    with pytest.raises(ValueError, match=message):
        FbankOptions(**options)
