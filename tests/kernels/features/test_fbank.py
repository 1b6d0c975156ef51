"""Filter bank, on the CPU and by its kernel, against float64, Kaldi and transformers; errors."""

import math
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_checks import check_bits_in_any_batch, refused
from torch import Tensor

from tritone.kernels.features.fbank import (
    FbankOptions,
    fbank,
    fbank_cpu,
    fbank_reference,
    frame_count,
    frame_sizes,
)
from tritone.kernels.runtime.launch import recorded
from tritone.kernels.runtime.packing import cumulative

ROOT = Path(__file__).resolve().parents[3]
FSDD = ROOT / "../shared/data/fsdd/test"
SCALE = 2.0**15  # Kaldi's samples are 16-bit integers
POWER, LOG = 4e-6, 1e-3  # tolerances of `assert_close_in_power`
KALDI_POWER = 2e-5  # kaldi-native-fbank itself is 1.3e-5 from float64 on recordings


def packed(pieces: list[Tensor], device: str = "cpu", **options) -> list[Tensor]:
    """Features of each utterance of a packed batch."""
    cu_samples = cumulative([len(piece) for piece in pieces], device)
    features, cu_frames = fbank(torch.cat(pieces).to(device), cu_samples, FbankOptions(**options))
    return list(features.cpu().split(cu_frames.diff().tolist()))


def alone(waveform: Tensor, device: str = "cpu", **options) -> Tensor:
    return packed([waveform], device, **options)[0]


def exact(waveform: Tensor, **options) -> Tensor:
    """The reference in float64."""
    return fbank_reference(waveform.double(), cumulative([len(waveform)]), FbankOptions(**options))[0]


def synthetic(rate: int, frames: int) -> Tensor:
    """Tones over pink-like noise with an offset of 0.3."""
    length, shift = frame_sizes(rate)
    generator = torch.Generator().manual_seed(rate)
    samples = length + (frames - 1) * shift + shift // 2
    time = torch.arange(samples, dtype=torch.float64) / rate
    noise = torch.randn(2, samples, generator=generator, dtype=torch.float64)
    tones = 0.2 * (2 * math.pi * 440 * time).sin() + 0.05 * (2 * math.pi * 0.37 * rate * time).sin()
    return ((tones + noise[0].cumsum(0) * 2e-4 + 0.01 * noise[1] + 0.3) * SCALE).float()


def speech(rate: int) -> list[Tensor]:
    """Recordings of digits (8 kHz), resampled to `rate`, as Kaldi scales them."""
    soundfile, soxr = pytest.importorskip("soundfile"), pytest.importorskip("soxr")
    files = sorted(FSDD.glob("*.wav"))[::11]
    if not files:
        pytest.skip("the FSDD recordings are not there; they are not part of the repository")
    audio = [soundfile.read(file, dtype="float32") for file in files]
    resampled = [samples if rate == own else soxr.resample(samples, own, rate) for samples, own in audio]
    return [torch.from_numpy(samples) * SCALE for samples in resampled]


def kaldi(waveform: Tensor, rate: int, bins: int = 80, window: str = "povey") -> Tensor:
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = rate
    options.frame_opts.dither = 0
    options.frame_opts.window_type = {"hann": "hanning"}.get(window, window)
    options.mel_opts.num_bins = bins
    online = knf.OnlineFbank(options)
    online.accept_waveform(rate, waveform.tolist())
    online.input_finished()
    return torch.from_numpy(np.stack([online.get_frame(i) for i in range(online.num_frames_ready)]))


def assert_close_in_power(ours: Tensor, oracle: Tensor, power: float = POWER, log: float = LOG) -> None:
    """Power within `power` of the frame's peak; log-mel within `log` for bins within 60 dB of the peak."""
    ours, oracle = ours.double(), oracle.double()
    assert ours.shape == oracle.shape
    peak = oracle.exp().amax(dim=1, keepdim=True)
    assert ((ours.exp() - oracle.exp()).abs() / peak).max() <= power
    loud = oracle.exp() >= 1e-6 * peak
    assert (ours - oracle)[loud].abs().max() <= log


def recordings() -> list[Path]:
    """Digits of FSDD at 8 kHz, and the samples that are mono WAV, at 8 and 16 kHz."""
    spoken = [FSDD / name for name in ("0_george_0.wav", "7_jackson_3.wav", "9_theo_1.wav")]
    return [
        *spoken,
        *(ROOT / "samples" / "digits" / f"{name}.wav" for name in ("one_digit_8k", "two_digits_16k")),
    ]


def recording(file: Path, seconds: float) -> tuple[Tensor, int]:
    with wave.open(str(file)) as opened:
        rate = opened.getframerate()
        samples = np.frombuffer(opened.readframes(int(seconds * rate)), dtype="<i2")
    return torch.from_numpy(samples.astype(np.float32)), rate


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_recorded_speech_resampled_is_as_in_float64_and_as_in_kaldi(rate):
    for waveform in speech(rate):
        ours = alone(waveform, sampling_rate=rate)
        assert_close_in_power(ours, alone(waveform.double(), sampling_rate=rate))
        assert_close_in_power(ours, kaldi(waveform, rate), power=KALDI_POWER)


@pytest.mark.parametrize("rate", [8_000, 8_200, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(("bins", "window"), [(80, "povey"), (23, "hamming"), (40, "hann"), (128, "povey")])
def test_every_rate_window_and_number_of_bins_is_as_in_kaldi(rate, bins, window):
    waveform = synthetic(rate, 198)
    ours = alone(waveform, sampling_rate=rate, num_mel_bins=bins, window=window)
    assert_close_in_power(ours, kaldi(waveform, rate, bins, window), power=KALDI_POWER)


def test_the_numbers_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    extractor = transformers.Speech2TextFeatureExtractor(do_ceptral_normalize=False)
    waveform = synthetic(16_000, 198)
    theirs = extractor((waveform / SCALE).numpy(), sampling_rate=16_000, return_tensors="pt")
    assert_close_in_power(alone(waveform), theirs.input_features[0])


@pytest.mark.parametrize("bins", [80, 23])
def test_an_utterance_has_the_same_bits_alone_first_in_the_middle_and_last_on_the_cpu(bins):
    generator = torch.Generator().manual_seed(1)
    pieces = [torch.randn(length, generator=generator) for length in (52_347, 401, 7_001, 60_001, 399, 0)]

    def run(samples: Tensor, cu_samples: Tensor) -> list[Tensor]:
        features, cu_frames = fbank(samples, cu_samples, FbankOptions(num_mel_bins=bins))
        return features.split(cu_frames.diff().tolist())

    check_bits_in_any_batch(pieces, run)


@pytest.mark.parametrize("window", ["povey", "hann", "hamming"])
@pytest.mark.parametrize("bins", [1, 23, 80, 128, 130])
def test_every_window_and_number_of_bins_is_as_in_float64(bins, window, kernels_on):
    waveform = synthetic(8_000, 5)
    options = {"sampling_rate": 8_000, "num_mel_bins": bins, "window": window}
    assert_close_in_power(alone(waveform, kernels_on, **options), exact(waveform, **options))


# 8,200, 11,025 and 22,050 Hz have frames of an odd number of samples.
@pytest.mark.parametrize("rate", [8_200, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_every_rate_is_as_in_float64(rate, device):
    waveform = synthetic(rate, 7)
    ours = alone(waveform, device, sampling_rate=rate)
    assert_close_in_power(ours, exact(waveform, sampling_rate=rate))


@pytest.mark.parametrize(
    "changes", [{"preemphasis": 0.0}, {"preemphasis": 1.0}, {"low_frequency": 0.0}], ids=str
)
def test_preemphasis_and_lowest_frequency_are_as_in_float64(changes, kernels_on):
    waveform = synthetic(8_000, 4)
    options = {"sampling_rate": 8_000, "num_mel_bins": 40, "window": "hamming"} | changes
    assert_close_in_power(alone(waveform, kernels_on, **options), exact(waveform, **options))


@pytest.mark.parametrize("file", recordings(), ids=lambda file: file.stem)
def test_on_kernels_recorded_speech_is_as_in_float64_and_as_in_kaldi(file, kernels_on):
    if not file.exists():
        pytest.skip("the FSDD recordings are not there; they are not part of the repository")
    samples, rate = recording(file, seconds=0.6)
    ours = alone(samples, kernels_on, sampling_rate=rate)
    assert_close_in_power(ours, exact(samples, sampling_rate=rate))

    theirs = kaldi(samples, rate)
    assert_close_in_power(ours, theirs, power=KALDI_POWER)


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**25])
def test_loudness_costs_no_accuracy(scale, kernels_on):
    waveform = synthetic(8_000, 3) * scale
    options = {"sampling_rate": 8_000, "mel_floor": 1e-37}
    assert_close_in_power(alone(waveform, kernels_on, **options), exact(waveform, **options))


def test_a_tone_and_a_click_are_as_in_float64(kernels_on):
    tone = (torch.arange(1_000, dtype=torch.float64) * 0.1).sin().float() * SCALE
    click = torch.zeros(1_000)
    click[137] = SCALE
    for waveform in (tone, click):
        ours = alone(waveform, kernels_on, sampling_rate=8_000)
        assert_close_in_power(ours, exact(waveform, sampling_rate=8_000))


@pytest.mark.parametrize("level", [0.0, 0.3 * SCALE, -0.1])
def test_silence_has_the_floor_in_every_bin_whatever_its_level(level, device):
    features = alone(torch.full((1_000,), level), device, sampling_rate=8_000, mel_floor=1e-5)
    torch.testing.assert_close(features, torch.full((11, 80), math.log(1e-5)), rtol=1e-6, atol=0)


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")  # the interpreter's, of such frames
def test_an_utterance_has_the_same_bits_alone_first_in_the_middle_and_last(kernels_on):
    generator = torch.Generator().manual_seed(1)
    # Frames: 60, which lie across two blocks when they follow the 100; 100; one; none, twice.
    samples, counts = [200 + 59 * 80 + 7, 200 + 99 * 80, 200, 199, 0], [60, 100, 1, 0, 0]
    one, *others = [torch.randn(number, generator=generator) for number in samples]
    others[0][300:] = float("nan")
    expected = alone(one, kernels_on, sampling_rate=8_000)
    for at in range(len(others) + 1):
        pieces = [*others[:at], one, *others[at:]]
        features = packed(pieces, kernels_on, sampling_rate=8_000)
        assert [len(each) for each in features] == [*counts[1 : at + 1], counts[0], *counts[at + 1 :]]
        assert torch.equal(features[at], expected)
        spoilt = features[0 if at else 1]
        assert spoilt[:2].isfinite().all()
        assert spoilt[4:].isnan().all()


def test_each_frame_finds_its_utterance_among_many(kernels_on):
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(100, 420, (37,), generator=generator).tolist()
    pieces = [torch.randn(length, generator=generator) for length in lengths]
    for ours, piece in zip(packed(pieces, kernels_on, sampling_rate=8_000), pieces, strict=True):
        wanted = exact(piece, sampling_rate=8_000)
        torch.testing.assert_close(ours.double(), wanted, rtol=0, atol=LOG)


def test_bins_of_several_blocks_have_the_same_bits_at_another_place(kernels_on):
    waveform = synthetic(8_000, 2)
    whole = alone(torch.cat([waveform, waveform]), kernels_on, sampling_rate=8_000, num_mel_bins=130)
    assert torch.equal(whole[:2], alone(waveform, kernels_on, sampling_rate=8_000, num_mel_bins=130))


def test_a_gain_equals_a_factor_of_the_samples(device):
    samples = torch.randn(2000, generator=torch.Generator().manual_seed(0)).to(device) * 0.1
    samples[:600] = 0.0  # at the floor
    offsets = cumulative([2000], torch.device(device))
    found = fbank(samples, offsets, FbankOptions(gain=2.0**15))[0]
    assert torch.equal(found, fbank(samples * 2.0**15, offsets)[0])


def test_features_take_one_launch(kernels_on):
    for frames in (0, 3):
        with recorded() as cases:
            alone(synthetic(8_000, 3)[: 1_000 * frames], kernels_on, sampling_rate=8_000)
        assert [case.kernel.name for case in cases] == ["fbank_kernel"] * (frames > 0)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (199, 0), (200, 1), (279, 1), (280, 2), (281, 2)])
def test_only_whole_frames_count(samples, frames, device):
    for rate in (8_000, 16_000):
        count = samples * rate // 8_000
        assert frame_count(count, rate) == frames
        features = alone(torch.ones(count), device, sampling_rate=rate)
        assert features.shape == (frames, 80)
        assert features.isfinite().all()
    assert frame_count(399, 16_000) == 0
    assert frame_count(559, 16_000) == 1


def test_no_utterance_at_all_gives_no_frames(device):
    features, cu_frames = fbank(torch.zeros(0, device=device), cumulative([], device))
    assert features.shape == (0, 80)
    assert cu_frames.tolist() == [0]


def test_samples_may_lie_apart_or_at_any_address(kernels_on):
    waveform = synthetic(8_000, 2)
    expected = alone(waveform, kernels_on, sampling_rate=8_000)
    apart = torch.stack([waveform, torch.zeros_like(waveform)], dim=1).flatten().to(kernels_on)[::2]
    shifted = torch.cat([torch.zeros(1), waveform]).to(kernels_on)[1:]
    for given in (apart, shifted):
        features, _ = fbank(given, cumulative([len(given)], kernels_on), FbankOptions(sampling_rate=8_000))
        assert torch.equal(features.cpu(), expected)


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
    refused(message, fbank, **(arguments | changes))


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
    refused(message, FbankOptions, **options)
