"""Log-mel filter bank over packed waveforms, as Kaldi computes it.

Source: Kaldi's feature-window.cc and mel-computations.cc (frames of 25 ms every 10 ms, `snip_edges`, no
dither, no energy), the features that Speech2Text and most fairseq models were trained on.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.packing import check_cu_seqlens, cumulative, spans
from .dft import fbank_kernel, mel_pairs, transform_pairs

WINDOWS = ("povey", "hann", "hamming")
RATES = (8_000, 48_000)  # Hz, both included
_BLOCK = 256  # frames that fbank_cpu takes at a time: at 16 kHz half a megabyte, which stays in the cache


def frame_sizes(sampling_rate: int) -> tuple[int, int]:
    """Length and shift of a frame in samples: 25 ms and 10 ms, rounded down.

    Raises:
        ValueError: a rate outside of 8,000 to 48,000 Hz.
    """
    if not RATES[0] <= sampling_rate <= RATES[1]:
        raise ValueError(
            f"sampling_rate must be from {RATES[0]:,} to {RATES[1]:,} Hz, got {sampling_rate}; resample first"
        )
    return sampling_rate * 25 // 1000, sampling_rate * 10 // 1000


def frame_count(samples: int, sampling_rate: int) -> int:
    """Number of whole frames of an utterance, whose samples after the last one are dropped."""
    length, shift = frame_sizes(sampling_rate)
    return 0 if samples < length else 1 + (samples - length) // shift


@dataclass(frozen=True, slots=True)
class FbankOptions:
    """Options of a log-mel filter bank, whose triangles reach from `low_frequency` to half the sampling rate.

    Args:
        sampling_rate: Hz, 8,000 to 48,000.
        num_mel_bins: at least 1.
        window: povey (Hann to the power of 0.85), hann or hamming, all symmetric.
        preemphasis: factor of the previous sample, which is subtracted, 0 to 1.
        low_frequency: lower edge of the first triangle, Hz, from 0 up to half the sampling rate.
        mel_floor: lower bound of the power before the logarithm, above 0.
        gain: factor of the samples, above 0, which brings them to the scale of the floor.

    Raises:
        ValueError: an option outside of these limits.
    """

    sampling_rate: int = 16_000
    num_mel_bins: int = 80
    window: str = "povey"
    preemphasis: float = 0.97
    low_frequency: float = 20.0
    mel_floor: float = 1.1920928955078125e-07
    gain: float = 1.0

    def __post_init__(self) -> None:
        frame_sizes(self.sampling_rate)
        if self.num_mel_bins < 1:
            raise ValueError(f"num_mel_bins must be at least 1, got {self.num_mel_bins}")
        if self.window not in WINDOWS:
            raise ValueError(f"window must be one of {', '.join(WINDOWS)}; got {self.window!r}")
        if not 0 <= self.preemphasis <= 1:
            raise ValueError(f"preemphasis must be from 0 to 1, got {self.preemphasis}")
        if not 0 <= self.low_frequency < self.sampling_rate / 2:
            limit, given = self.sampling_rate / 2, self.low_frequency
            raise ValueError(f"low_frequency must be from 0 to below {limit:g} Hz, got {given}")
        if not self.mel_floor > 0:
            raise ValueError(f"mel_floor must be above 0, got {self.mel_floor}")
        if not self.gain > 0:
            raise ValueError(f"gain must be above 0, got {self.gain}")

    @property
    def padded_length(self) -> int:
        """Number of samples of a frame padded to a power of two, for the Fourier transform."""
        return 1 << (frame_sizes(self.sampling_rate)[0] - 1).bit_length()


DEFAULT = FbankOptions()  # Speech2Text's


def fbank(waveforms: Tensor, cu_samples: Tensor, options: FbankOptions = DEFAULT) -> tuple[Tensor, Tensor]:
    """Log-mel features of each utterance: the natural logarithm of its mel band powers.

    An utterance shorter than a frame has no frames, which raises no error.

    Args:
        waveforms: float32 or float64 [samples], packed; times `gain`, in the scale in which the powers are
            wanted (Kaldi's is that of 16-bit integers).
        cu_samples: int32 [n + 1], offsets of the utterances.
        options: frames, window and triangles.

    Returns:
        (features [frames, num_mel_bins] in the dtype of `waveforms`, cu_frames int32 [n + 1])

    Raises:
        ValueError: another dtype or shape, or offsets that do not fit.
    """
    if waveforms.dim() != 1 or waveforms.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            "waveforms must be float32 or float64 samples, packed into one dimension; "
            f"got {waveforms.dtype} of shape {tuple(waveforms.shape)}"
        )
    check_cu_seqlens(cu_samples, waveforms.numel(), "cu_samples")
    return _fbank(waveforms, cu_samples, options)


def fbank_reference(
    waveforms: Tensor, cu_samples: Tensor, options: FbankOptions = DEFAULT
) -> tuple[Tensor, Tensor]:
    """Reference implementation of `fbank` in plain torch; differentiable in `waveforms`.

    Computes in the dtype of `waveforms`; float64 is the oracle of tests. One utterance at a time: the shape
    of every product, and with it every bit, depends on that utterance alone.
    """
    waveforms = waveforms if options.gain == 1 else waveforms * options.gain
    length, shift = frame_sizes(options.sampling_rate)
    taper = _window(options.window, length, waveforms.dtype, waveforms.device)
    mel = _mel_matrix(options, waveforms.dtype, waveforms.device)
    utterances, counts = [waveforms.new_zeros(0, options.num_mel_bins)], []
    for start, end in spans(cu_samples):
        counts.append(frame_count(end - start, options.sampling_rate))
        if not counts[-1]:
            continue
        frames = waveforms[start:end].unfold(0, length, shift)  # [frames, length]
        # The mean goes first: folded into the transform, an offset of the recording costs a digit.
        frames = frames - frames.mean(dim=1, keepdim=True)
        before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
        frames = (frames - options.preemphasis * before) * taper
        spectrum = torch.fft.rfft(frames, n=options.padded_length)
        power = spectrum.real.square() + spectrum.imag.square()  # [frames, padded_length / 2 + 1]
        utterances.append(torch.log((power @ mel).clamp(min=options.mel_floor)))
    return torch.cat(utterances), cumulative(counts, waveforms.device)


def fbank_cpu(
    waveforms: Tensor, cu_samples: Tensor, options: FbankOptions = DEFAULT
) -> tuple[Tensor, Tensor]:
    """Filter bank on the CPU by blocks of frames in a reused buffer, about twice as fast; forward only."""
    waveforms = waveforms if options.gain == 1 else waveforms * options.gain
    length, shift = frame_sizes(options.sampling_rate)
    taper = _window(options.window, length, waveforms.dtype, waveforms.device)
    mel = _mel_matrix(options, waveforms.dtype, waveforms.device)
    counts = [frame_count(end - start, options.sampling_rate) for start, end in spans(cu_samples)]
    features = waveforms.new_empty(sum(counts), options.num_mel_bins)
    buffer = waveforms.new_zeros(_BLOCK, options.padded_length)  # stays zero after each frame
    written = 0
    for (start, end), count in zip(spans(cu_samples), counts, strict=True):
        for first in range(0, count, _BLOCK):
            block = waveforms[start:end].unfold(0, length, shift)[first : first + _BLOCK]
            block = block - block.mean(dim=1, keepdim=True)
            padded = buffer[: len(block)]
            torch.sub(block[:, 1:], block[:, :-1], alpha=options.preemphasis, out=padded[:, 1:length])
            torch.mul(block[:, 0], 1 - options.preemphasis, out=padded[:, 0])
            padded[:, :length] *= taper
            spectrum = torch.fft.rfft(padded)
            power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
            # By a new tensor: the bits of a product written in place could depend on the address.
            features[written : written + len(block)] = (power @ mel).clamp_(min=options.mel_floor).log_()
            written += len(block)
    return features, cumulative(counts, waveforms.device)


def fbank_triton(
    waveforms: Tensor, cu_samples: Tensor, options: FbankOptions = DEFAULT
) -> tuple[Tensor, Tensor]:
    """Filter bank in one launch from samples to log-mel; waits for the device once, for the offsets."""
    length, shift = frame_sizes(options.sampling_rate)
    quarter, num_mel_bins = options.padded_length // 4, options.num_mel_bins
    counts = [frame_count(end - start, options.sampling_rate) for start, end in spans(cu_samples)]
    device = waveforms.device
    features, cu_frames = waveforms.new_empty(sum(counts), num_mel_bins), cumulative(counts, device)
    case = fbank_kernel.case(device, "kaldi")
    lines, bins = case.constant("LINES"), case.constant("BLOCK_BINS")
    tables = (
        _padded_window(options.window, length, 4 * quarter, device),
        transform_pairs(quarter, lines, case.constant("BLOCK_K"), device),
        _mel_pairs(options, lines, bins, device),
    )
    sizes = len(counts), len(counts).bit_length(), len(features), length, shift, quarter, num_mel_bins
    grid = case.block_count("BLOCK_FRAMES", len(features)), case.block_count("BLOCK_BINS", num_mel_bins)
    tensors = waveforms, cu_samples, cu_frames, *tables, features, features
    case.launch(grid, *tensors, *sizes, options.preemphasis, options.mel_floor, options.gain)
    return features, cu_frames


_fbank = Operation(fbank_reference, cpu=fbank_cpu, triton=fbank_triton)


@lru_cache(maxsize=8)
def _padded_window(name: str, length: int, padded_length: int, device: torch.device) -> Tensor:
    """Window function followed by zeros: float32 [padded_length]."""
    return F.pad(_window(name, length, torch.float32, device), (0, padded_length - length))


@lru_cache(maxsize=8)
def _mel_pairs(options: FbankOptions, lines: int, block_bins: int, device: torch.device) -> Tensor:
    """Mel triangles for `fbank_kernel`, from `mel_pairs`."""
    mel = _mel_matrix(options, torch.float64, torch.device("cpu"))[:-1]
    return mel_pairs(mel, lines, block_bins).to(device)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # a tensor made in inference mode could not take part in a later backward pass
def _window(name: str, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Window function [length], computed in float64."""
    phase = torch.arange(length, dtype=torch.float64) * (2 * math.pi / (length - 1))
    floor = 0.54 if name == "hamming" else 0.5
    values = floor - (1 - floor) * torch.cos(phase)
    if name == "povey":
        values = values.pow(0.85)
    return values.to(device=device, dtype=dtype)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _mel_matrix(options: FbankOptions, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Mel triangles [padded_length / 2 + 1, bins], linear and equally spaced in mel, computed in float64."""
    low, high = _mel(options.low_frequency), _mel(options.sampling_rate / 2)
    edges = torch.linspace(low, high, options.num_mel_bins + 2, dtype=torch.float64)
    left, center, right = edges[:-2], edges[1:-1], edges[2:]
    lines = torch.arange(options.padded_length // 2 + 1, dtype=torch.float64)
    frequencies = lines * (options.sampling_rate / options.padded_length)
    mels = 1127.0 * torch.log1p(frequencies / 700.0)[:, None]
    rising = (mels - left) / (center - left)
    falling = (right - mels) / (right - center)
    return torch.minimum(rising, falling).clamp(min=0.0).to(device=device, dtype=dtype).contiguous()


def _mel(frequency: float) -> float:
    return 1127.0 * math.log1p(frequency / 700.0)
