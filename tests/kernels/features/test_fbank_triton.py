"""The filter bank's Triton kernel against float64 and against Kaldi."""

import math
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from tritone.kernels.features.fbank import FbankOptions, fbank, fbank_reference, frame_sizes
from tritone.kernels.runtime.launch import recorded
from tritone.kernels.runtime.packing import cumulative

ROOT = Path(__file__).resolve().parents[3]
FSDD = ROOT / "../shared/data/fsdd/test"
SCALE = 2.0**15  # Kaldi's samples are 16-bit integers
POWER, LOG = 4e-6, 1e-3  # tolerances of `assert_close_in_power`
KALDI_POWER = 2e-5  # kaldi-native-fbank itself is 1.3e-5 from float64 on recordings


def packed(pieces: list[torch.Tensor], device: str, **options) -> list[torch.Tensor]:
    """Features of each utterance of a packed batch, from the kernel."""
    cu_samples = cumulative([len(piece) for piece in pieces], device)
    with recorded() as cases:
        features, cu_frames = fbank(torch.cat(pieces).to(device), cu_samples, FbankOptions(**options))
    assert [case.kernel.name for case in cases] == ["fbank_kernel"] * (len(features) > 0)
    return list(features.cpu().split(cu_frames.diff().tolist()))


def alone(waveform: torch.Tensor, device: str, **options) -> torch.Tensor:
    return packed([waveform], device, **options)[0]


def exact(waveform: torch.Tensor, **options) -> torch.Tensor:
    """The reference in float64."""
    return fbank_reference(waveform.double(), cumulative([len(waveform)]), FbankOptions(**options))[0]


def synthetic(rate: int, frames: int) -> torch.Tensor:
    """Tones over pink-like noise with an offset of 0.3."""
    length, shift = frame_sizes(rate)
    generator = torch.Generator().manual_seed(rate)
    samples = length + (frames - 1) * shift + shift // 2
    time = torch.arange(samples, dtype=torch.float64) / rate
    noise = torch.randn(2, samples, generator=generator, dtype=torch.float64)
    tones = 0.2 * (2 * math.pi * 440 * time).sin() + 0.05 * (2 * math.pi * 0.37 * rate * time).sin()
    return ((tones + noise[0].cumsum(0) * 2e-4 + 0.01 * noise[1] + 0.3) * SCALE).float()


def assert_close_in_power(
    ours: torch.Tensor, oracle: torch.Tensor, power: float = POWER, log: float = LOG
) -> None:
    """Power within `power` of the frame's peak; log-mel within `log` for bins within 60 dB of the peak."""
    ours, oracle = ours.double(), oracle.double()
    assert ours.shape == oracle.shape
    peak = oracle.exp().amax(dim=1, keepdim=True)
    assert ((ours.exp() - oracle.exp()).abs() / peak).max() <= power
    loud = oracle.exp() >= 1e-6 * peak
    assert (ours - oracle)[loud].abs().max() <= log


def recording(file: Path, seconds: float) -> tuple[torch.Tensor, int]:
    with wave.open(str(file)) as opened:
        rate = opened.getframerate()
        samples = np.frombuffer(opened.readframes(int(seconds * rate)), dtype="<i2")
    return torch.from_numpy(samples.astype(np.float32)), rate


def recordings() -> list[Path]:
    """Digits of FSDD at 8 kHz, and the samples that are mono WAV, at 8 and 16 kHz."""
    spoken = [FSDD / name for name in ("0_george_0.wav", "7_jackson_3.wav", "9_theo_1.wav")]
    return [*spoken, *(ROOT / "samples" / f"{name}.wav" for name in ("one_digit_8k", "two_digits_16k"))]


@pytest.mark.parametrize("window", ["povey", "hann", "hamming"])
@pytest.mark.parametrize("bins", [1, 23, 80, 128, 130])
def test_every_window_and_number_of_bins_is_as_in_float64(bins, window, kernels_on):
    waveform = synthetic(8_000, 5)
    options = {"sampling_rate": 8_000, "num_mel_bins": bins, "window": window}
    assert_close_in_power(alone(waveform, kernels_on, **options), exact(waveform, **options))


# 8,200, 11,025 and 22,050 Hz have frames of an odd number of samples.
@pytest.mark.parametrize("rate", [8_200, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_every_rate_is_as_in_float64(rate, kernels_on):
    waveform = synthetic(rate, 7)
    ours = alone(waveform, kernels_on, sampling_rate=rate)
    assert_close_in_power(ours, exact(waveform, sampling_rate=rate))


@pytest.mark.parametrize(
    "changes", [{"preemphasis": 0.0}, {"preemphasis": 1.0}, {"low_frequency": 0.0}], ids=str
)
def test_preemphasis_and_lowest_frequency_are_as_in_float64(changes, kernels_on):
    waveform = synthetic(8_000, 4)
    options = {"sampling_rate": 8_000, "num_mel_bins": 40, "window": "hamming"} | changes
    assert_close_in_power(alone(waveform, kernels_on, **options), exact(waveform, **options))


@pytest.mark.parametrize("file", recordings(), ids=lambda file: file.stem)
def test_recorded_speech_is_as_in_float64_and_as_in_kaldi(file, kernels_on):
    if not file.exists():
        pytest.skip("the FSDD recordings are not there; they are not part of the repository")
    samples, rate = recording(file, seconds=0.6)
    ours = alone(samples, kernels_on, sampling_rate=rate)
    assert_close_in_power(ours, exact(samples, sampling_rate=rate))

    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = rate
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = 80
    online = knf.OnlineFbank(options)
    online.accept_waveform(rate, samples.tolist())
    online.input_finished()
    theirs = np.stack([online.get_frame(frame) for frame in range(online.num_frames_ready)])
    assert_close_in_power(ours, torch.from_numpy(theirs), power=KALDI_POWER)


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
def test_silence_has_the_floor_in_every_bin_whatever_its_level(level, kernels_on):
    features = alone(torch.full((1_000,), level), kernels_on, sampling_rate=8_000, mel_floor=1e-5)
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


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (199, 0), (200, 1), (279, 1), (280, 2)])
def test_only_whole_frames_count(samples, frames, kernels_on):
    features = alone(torch.ones(samples), kernels_on, sampling_rate=8_000)
    assert features.shape == (frames, 80)
    assert features.isfinite().all()


def test_no_utterance_at_all_gives_no_frames(kernels_on):
    features, cu_frames = fbank(torch.zeros(0, device=kernels_on), cumulative([], kernels_on))
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
