"""Whisper's log-mel spectrogram, on the CPU and by its kernels, against float64 and transformers; errors."""

import math

import pytest
import torch
from kernel_checks import check_bits_in_any_batch, refused
from torch import Tensor

from tritone.kernels.features.log_mel import (
    Excerpt,
    LogMelOptions,
    log_mel,
    log_mel_cpu,
    log_mel_maxima,
    log_mel_reference,
)
from tritone.kernels.runtime.launch import recorded
from tritone.kernels.runtime.packing import cumulative

TOLERANCE = 2e-5  # of features, whose range is 2
THEIRS = 1e-4  # transformers itself is up to 4e-5 from float64, in bins 70 dB below the frame's loudest
HOP, HALF = 160, 200


def synthetic(samples: int, seed: int = 0) -> Tensor:
    """Tones that swell, over noise and an offset."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / 16_000
    tones = (2 * math.pi * 440 * time).sin() + 0.3 * (2 * math.pi * 3_100 * time).sin()
    noise = torch.randn(samples, generator=generator)
    return 0.2 * tones * (2 * math.pi * 0.7 * time).cos() + 0.003 * noise + 0.01


def packed(
    pieces: list[Tensor], excerpts: list[Excerpt], device: str = "cpu", bins: int = 80
) -> list[Tensor]:
    """Features of each excerpt of a packed batch."""
    cu_samples = cumulative([len(piece) for piece in pieces], device)
    features, cu_rows = log_mel(torch.cat(pieces).to(device), cu_samples, excerpts, LogMelOptions(bins))
    return list(features.cpu().split(cu_rows.diff().tolist()))


def exact(waveform: Tensor, excerpt: Excerpt, bins: int = 80) -> Tensor:
    """The reference in float64."""
    options = LogMelOptions(bins)
    return log_mel_reference(waveform.double(), cumulative([len(waveform)]), [excerpt], options)[0]


def close(ours: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(ours.double(), wanted.double(), rtol=0, atol=tolerance)


def maximum(waveform: Tensor, excerpt: Excerpt, device: str) -> float:
    cu_samples = cumulative([len(waveform)], device)
    return float(log_mel_maxima(waveform.to(device), cu_samples, [excerpt]))


EXCERPTS = {
    "the whole": Excerpt(18, 18),
    "one frame": Excerpt(1, 1),
    "zeros behind": Excerpt(20, 30, length=5_000),
    "zeros to a near end": Excerpt(18, 18, length=2_901),
    "a part with context": Excerpt(4, 4, context=400, maximum=1.5),
    "context up to the start": Excerpt(5, 9, context=160, fill=0.0),
    "a given maximum": Excerpt(6, 8, maximum=3.25),
    "a low maximum": Excerpt(6, 8, maximum=-9.0),
    "silence alone": Excerpt(0, 3),
}


@pytest.mark.parametrize("name", EXCERPTS)
def test_every_kind_of_excerpt_is_as_in_float64(name, device):
    waveform = synthetic(2_900)
    close(packed([waveform], [EXCERPTS[name]], device)[0], exact(waveform, EXCERPTS[name]))


@pytest.mark.parametrize("bins", [1, 40, 128, 130])
def test_every_number_of_bins_is_as_in_float64(bins, device):
    waveform, excerpt = synthetic(1_000), Excerpt(6, 8)
    close(packed([waveform], [excerpt], device, bins)[0], exact(waveform, excerpt, bins))


@pytest.mark.parametrize("samples", [201, 400, 559, 560, 4_799, 4_800])
@pytest.mark.parametrize("bins", [80, 128])
def test_the_features_are_those_of_transformers(samples, bins, device):
    transformers = pytest.importorskip("transformers")
    extractor = transformers.WhisperFeatureExtractor(feature_size=bins)
    waveform = synthetic(samples, seed=samples)
    given = {"sampling_rate": 16_000, "return_tensors": "pt", "max_length": 4_800}
    theirs = extractor(waveform.numpy(), **given).input_features[0].T
    frames = min(-(-(samples + HALF) // HOP), 30)
    close(packed([waveform], [Excerpt(frames, 30, length=4_800)], device, bins)[0], theirs, THEIRS)

    if samples >= 560:  # a whole recording without padding
        theirs = extractor(waveform.numpy(), **given, truncation=False, padding="longest").input_features[0].T
        rows = samples // HOP
        close(packed([waveform], [Excerpt(rows, rows)], device, bins)[0], theirs, THEIRS)


def test_thirty_seconds_are_as_in_transformers():
    transformers = pytest.importorskip("transformers")
    waveform = synthetic(480_000)
    given = {"sampling_rate": 16_000, "return_tensors": "pt"}
    theirs = transformers.WhisperFeatureExtractor()(waveform.numpy(), **given).input_features[0].T
    ours = packed([waveform], [Excerpt(3_000, 3_000)])[0]
    close(ours, theirs, THEIRS)
    assert (ours - theirs).abs().mean() < 1e-6


def test_silence_has_the_value_of_the_floor(device):
    features = packed([torch.zeros(1_000)], [Excerpt(7, 9)], device)[0]
    assert torch.equal(features, torch.full((9, 80), -1.5))
    features = packed([synthetic(1_000)], [Excerpt(8, 12, length=9_000)], device)[0]
    assert torch.equal(features[9:], features[-1:, :1].expand(3, 80))
    assert features[-1, 0] == features.min()


def test_rows_that_are_not_computed_have_the_bits_of_computed_silence(device):
    waveform = synthetic(1_000)
    written, computed = (Excerpt(frames, 14, length=9_000) for frames in (8, 14))
    assert torch.equal(packed([waveform], [written], device)[0], packed([waveform], [computed], device)[0])


def test_rows_after_a_window_may_have_a_value_of_their_own(device):
    features = packed([synthetic(1_000)], [Excerpt(6, 9, fill=0.0)], device)[0]
    assert not features[6:].any()
    assert features[:6].any()


@pytest.mark.parametrize("first", [1, 2, 7, 19])
def test_a_window_of_a_recording_has_the_bits_of_the_whole(first, device):
    waveform, frames = synthetic(20 * HOP + 77), 20
    whole = packed([waveform], [Excerpt(frames, frames)], device)[0]
    own = maximum(waveform, Excerpt(frames, frames), device)
    start = max(first * HOP - HALF, 0)
    excerpt = Excerpt(frames - first, frames - first, context=first * HOP - start, maximum=own)
    assert torch.equal(packed([waveform[start:]], [excerpt], device)[0], whole[first:])


def test_on_the_cpu_windows_at_any_place_have_the_bits_of_the_whole():
    waveform, frames = synthetic(1_000 * HOP), 1_000
    whole = packed([waveform], [Excerpt(frames, frames)])[0]
    own = maximum(waveform, Excerpt(frames, frames), "cpu")
    for first, count in [(2, 998), (3, 1), (255, 2), (130, 300), (517, 13), (996, 4)]:
        start = max(first * HOP - HALF, 0)
        piece = waveform[start : (first + count) * HOP + HALF]
        excerpt = Excerpt(count, count, context=first * HOP - start, maximum=own)
        assert torch.equal(packed([piece], [excerpt])[0], whole[first : first + count])


def test_the_maximum_of_a_recording_is_that_of_its_parts(device):
    waveform = synthetic(20 * HOP)
    halves = (
        maximum(waveform[: 10 * HOP + HALF], Excerpt(10, 10), device),
        maximum(waveform[10 * HOP - HALF :], Excerpt(10, 10, context=HALF), device),
    )
    own = maximum(waveform, Excerpt(20, 20), device)
    assert own == max(halves)
    wanted = 4 * exact(waveform, Excerpt(20, 20)).max() - 4
    assert own == pytest.approx(float(wanted), abs=1e-5)


def test_maxima_of_silence_are_the_lowest_logarithm(device):
    cu_samples = cumulative([300, 0], device)
    found = log_mel_maxima(torch.zeros(300, device=device), cu_samples, [Excerpt(2, 2), Excerpt(0, 5)])
    assert found.tolist() == [-10.0, -10.0]


@pytest.mark.parametrize("bins", [80, 23])
def test_a_recording_has_the_same_bits_in_any_batch_on_the_cpu(bins):
    lengths = (52_347, 401, 7_001, 60_001, 250, 0)
    pieces = [synthetic(length, seed=length) for length in lengths]
    excerpts = {length: Excerpt(length // HOP, 400, length=64_000) for length in lengths}

    def run(samples: Tensor, cu_samples: Tensor) -> tuple[Tensor, ...]:
        order = [excerpts[length] for length in cu_samples.diff().tolist()]
        features, cu_rows = log_mel(samples, cu_samples, order, LogMelOptions(bins))
        return features.split(cu_rows.diff().tolist())

    check_bits_in_any_batch(pieces, run)


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")  # the interpreter's, of such frames
def test_a_recording_has_the_same_bits_in_any_batch(kernels_on):
    one, *others = (synthetic(samples, seed=samples) for samples in (9_647, 16_100, 201, 0, 700))
    others[0][300:] = float("nan")
    own, *rest = Excerpt(60, 60), Excerpt(100, 100), Excerpt(1, 2), Excerpt(0, 0), Excerpt(4, 9, length=3_000)
    expected = packed([one], [own], kernels_on)[0]
    for at in range(len(others) + 1):
        pieces, excerpts = [*others[:at], one, *others[at:]], [*rest[:at], own, *rest[at:]]
        features = packed(pieces, excerpts, kernels_on)
        assert [len(each) for each in features] == [excerpt.rows for excerpt in excerpts]
        assert torch.equal(features[at], expected)
        assert features[0 if at else 1][4:].isnan().all()


def test_features_take_three_launches(kernels_on):
    with recorded() as cases:
        packed([synthetic(1_000)], [Excerpt(2, 3)], kernels_on)
    names = ["frame_samples_kernel", "fbank_kernel", "log_mel_floor_kernel"]
    assert [case.kernel.name for case in cases] == names


def test_no_recording_at_all_gives_no_rows(device):
    features, cu_rows = log_mel(torch.zeros(0, device=device), cumulative([], device), [])
    assert features.shape == (0, 80)
    assert cu_rows.tolist() == [0]
    assert log_mel_maxima(torch.zeros(0, device=device), cumulative([], device), []).shape == (0,)


def test_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(2)
    waveform = torch.randn(900, dtype=torch.float64, generator=generator, requires_grad=True)
    excerpts = [Excerpt(2, 3), Excerpt(2, 2, context=HALF, maximum=2.0)]

    def summed(samples: Tensor) -> Tensor:
        return log_mel(samples, cumulative([350, 550]), excerpts, LogMelOptions(5))[0].sum()

    assert torch.autograd.gradcheck(summed, waveform, fast_mode=True)


@pytest.mark.parametrize("frames", [1, 255, 256, 257, 600])
def test_the_path_for_the_cpu_is_as_good_as_the_reference(frames):
    waveform, excerpt = synthetic(frames * HOP + 60), Excerpt(frames, frames)
    ours, cu_rows = log_mel_cpu(waveform, cumulative([len(waveform)]), [excerpt])
    assert cu_rows.tolist() == [0, frames]
    close(ours, exact(waveform, excerpt))


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("float32 or float64", {"waveforms": torch.zeros(1_000, dtype=torch.int16)}),
        ("one dimension", {"waveforms": torch.zeros(2, 500)}),
        ("cu_samples", {"cu_samples": torch.tensor([0, 999], dtype=torch.int32)}),
        ("2 excerpts for 1 waveforms", {"excerpts": [Excerpt(1, 1), Excerpt(1, 1)]}),
        ("frames <= rows", {"excerpts": [Excerpt(4, 3)]}),
        ("context", {"excerpts": [Excerpt(4, 4, context=-1)]}),
        ("shorter than its 1000 samples", {"excerpts": [Excerpt(4, 4, length=999)]}),
        ("more than 200 samples", {"excerpts": [Excerpt(14, 14)]}),
        (
            "more than 200 samples",
            {
                "waveforms": torch.zeros(200),
                "cu_samples": cumulative([200]),
                "excerpts": [Excerpt(1, 1)],
            },
        ),
    ],
)
def test_a_bad_argument_is_named(message, changes):
    arguments = {
        "waveforms": torch.zeros(1_000),
        "cu_samples": cumulative([1_000]),
        "excerpts": [Excerpt(6, 6)],
    }
    refused(message, log_mel, **(arguments | changes))
    refused(message, log_mel_maxima, **(arguments | changes))


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("num_mel_bins", {"num_mel_bins": 0}),
        ("16,000 Hz, got 8000", {"sampling_rate": 8_000}),
        ("hop_length", {"hop_length": 0}),
    ],
)
def test_a_bad_option_is_named(message, options):
    refused(message, LogMelOptions, **options)
