"""Log-mel filter bank over packed waveforms, as Kaldi computes it.

Source: Kaldi's feature-window.cc and mel-computations.cc (frames of 25 ms every 10 ms, `snip_edges`, no
dither, no energy), the features that Speech2Text and most fairseq models were trained on.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from ..runtime.dispatch import choose
from ..runtime.launch import ready
from ..runtime.optional_triton import triton
from ..runtime.packing import check_cu_seqlens, cumulative, spans
from .dft import fbank_kernel, half_pairs, transform_pairs

WINDOWS = ("povey", "hann", "hamming")
RATES = (8_000, 48_000)  # Hz, both included
_BLOCK = 256  # frames that fbank_cpu takes at a time: at 16 kHz half a megabyte, which stays in the cache


def fbank(
    waveforms: Tensor,
    cu_samples: Tensor,
    *,
    sampling_rate: int = 16_000,
    num_mel_bins: int = 80,
    window: str = "povey",
    preemphasis: float = 0.97,
    low_frequency: float = 20.0,
    mel_floor: float = 1.1920928955078125e-07,
) -> tuple[Tensor, Tensor]:
    """Natural logarithm of mel band powers, each utterance on its own.

    An utterance of fewer samples than a frame has no frames here; the caller decides what that means.
    The triangles reach from `low_frequency` to half the sampling rate.

    Args:
        waveforms: float32 or float64 [samples], utterances end to end, in the scale in which the powers are
            wanted (Kaldi's is that of 16-bit integers).
        cu_samples: int32 [n + 1], where each utterance begins; first 0, last the number of samples.
        sampling_rate: Hz, 8,000 to 48,000.
        num_mel_bins: at least 1.
        window: povey (Hann to the power of 0.85), hann or hamming, all symmetric.
        preemphasis: what is subtracted of the sample before, 0 to 1.
        low_frequency: lower edge of the first triangle, in Hz, from 0 up to half the sampling rate.
        mel_floor: the least power before the logarithm, above 0.

    Returns:
        (features [frames, num_mel_bins] in the dtype of `waveforms`, cu_frames int32 [n + 1])

    Raises:
        ValueError: for an argument outside of what is written above.
    """
    if waveforms.dim() != 1 or waveforms.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            "waveforms must be float32 or float64 samples, packed into one dimension; "
            f"got {waveforms.dtype} of shape {tuple(waveforms.shape)}"
        )
    check_cu_seqlens(cu_samples, waveforms.numel(), "cu_samples")
    frame_sizes(sampling_rate)
    if num_mel_bins < 1:
        raise ValueError(f"num_mel_bins must be at least 1, got {num_mel_bins}")
    if window not in WINDOWS:
        raise ValueError(f"window must be one of {', '.join(WINDOWS)}; got {window!r}")
    if not 0 <= preemphasis <= 1:
        raise ValueError(f"preemphasis must be from 0 to 1, got {preemphasis}")
    if not 0 <= low_frequency < sampling_rate / 2:
        raise ValueError(
            f"low_frequency must be from 0 to below {sampling_rate / 2:g} Hz, got {low_frequency}"
        )
    if not mel_floor > 0:
        raise ValueError(f"mel_floor must be above 0, got {mel_floor}")
    return choose(waveforms, cu_samples, reference=fbank_reference, cpu=fbank_cpu, triton=fbank_triton)(
        waveforms,
        cu_samples,
        sampling_rate=sampling_rate,
        num_mel_bins=num_mel_bins,
        window=window,
        preemphasis=preemphasis,
        low_frequency=low_frequency,
        mel_floor=mel_floor,
    )


def fbank_reference(
    waveforms: Tensor,
    cu_samples: Tensor,
    *,
    sampling_rate: int = 16_000,
    num_mel_bins: int = 80,
    window: str = "povey",
    preemphasis: float = 0.97,
    low_frequency: float = 20.0,
    mel_floor: float = 1.1920928955078125e-07,
) -> tuple[Tensor, Tensor]:
    """The specification, in plain torch; differentiable in `waveforms`.

    Computes in the dtype of `waveforms`, so float64 waveforms give the oracle. One utterance after the
    other, so that the shape of every product, and with it every bit, depends on that utterance alone.
    """
    length, shift = frame_sizes(sampling_rate)
    padded_length = 1 << (length - 1).bit_length()
    taper = _window(window, length, waveforms.dtype, waveforms.device)
    mel = _mel_matrix(
        sampling_rate, padded_length, num_mel_bins, low_frequency, waveforms.dtype, waveforms.device
    )
    utterances, counts = [waveforms.new_zeros(0, num_mel_bins)], []
    for start, end in spans(cu_samples):
        count = frame_count(end - start, sampling_rate)
        counts.append(count)
        if count == 0:
            continue
        frames = waveforms[start:end].unfold(0, length, shift)  # [frames, length]
        # The mean goes first: folded into the transform, an offset of the recording costs a digit.
        frames = frames - frames.mean(dim=1, keepdim=True)
        before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
        frames = (frames - preemphasis * before) * taper
        spectrum = torch.fft.rfft(frames, n=padded_length)
        power = spectrum.real.square() + spectrum.imag.square()  # [frames, padded_length / 2 + 1]
        utterances.append(torch.log((power @ mel).clamp(min=mel_floor)))
    return torch.cat(utterances), cumulative(counts, waveforms.device)


def fbank_cpu(
    waveforms: Tensor,
    cu_samples: Tensor,
    *,
    sampling_rate: int = 16_000,
    num_mel_bins: int = 80,
    window: str = "povey",
    preemphasis: float = 0.97,
    low_frequency: float = 20.0,
    mel_floor: float = 1.1920928955078125e-07,
) -> tuple[Tensor, Tensor]:
    """The same arithmetic, some frames at a time in a reused buffer: about twice as fast. Forward only."""
    length, shift = frame_sizes(sampling_rate)
    padded_length = 1 << (length - 1).bit_length()
    taper = _window(window, length, waveforms.dtype, waveforms.device)
    mel = _mel_matrix(
        sampling_rate, padded_length, num_mel_bins, low_frequency, waveforms.dtype, waveforms.device
    )
    counts = [frame_count(end - start, sampling_rate) for start, end in spans(cu_samples)]
    features = waveforms.new_empty(sum(counts), num_mel_bins)
    buffer = waveforms.new_zeros(_BLOCK, padded_length)  # stays zero behind each frame
    row = 0
    for (start, end), count in zip(spans(cu_samples), counts, strict=True):
        for first in range(0, count, _BLOCK):
            block = waveforms[start:end].unfold(0, length, shift)[first : first + _BLOCK]
            block = block - block.mean(dim=1, keepdim=True)
            padded = buffer[: len(block)]
            torch.sub(block[:, 1:], block[:, :-1], alpha=preemphasis, out=padded[:, 1:length])
            torch.mul(block[:, 0], 1 - preemphasis, out=padded[:, 0])
            padded[:, :length] *= taper
            spectrum = torch.fft.rfft(padded)
            power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
            # Through a tensor of its own: the bits of a product written in place could depend on where.
            features[row : row + len(block)] = (power @ mel).clamp_(min=mel_floor).log_()
            row += len(block)
    return features, cumulative(counts, waveforms.device)


def fbank_triton(
    waveforms: Tensor,
    cu_samples: Tensor,
    *,
    sampling_rate: int = 16_000,
    num_mel_bins: int = 80,
    window: str = "povey",
    preemphasis: float = 0.97,
    low_frequency: float = 20.0,
    mel_floor: float = 1.1920928955078125e-07,
) -> tuple[Tensor, Tensor]:
    """One launch from samples to log-mel, see `fbank_kernel`. Waits for the device once, for the offsets."""
    length, shift = frame_sizes(sampling_rate)
    quarter = (1 << (length - 1).bit_length()) // 4
    counts = [frame_count(end - start, sampling_rate) for start, end in spans(cu_samples)]
    device = waveforms.device
    features, cu_frames = waveforms.new_empty(sum(counts), num_mel_bins), cumulative(counts, device)
    case = fbank_kernel.case(device)
    lines, bins = case.constant("LINES"), case.constant("BLOCK_BINS")
    case.launch(
        (triton.cdiv(len(features), case.constant("BLOCK_FRAMES")), triton.cdiv(num_mel_bins, bins)),
        ready(waveforms),
        ready(cu_samples),
        cu_frames,
        _padded_window(window, length, 4 * quarter, device),
        transform_pairs(quarter, lines, device),
        _mel_pairs(sampling_rate, quarter, num_mel_bins, low_frequency, lines, bins, device),
        features,
        len(counts),
        len(counts).bit_length(),
        len(features),
        length,
        shift,
        quarter,
        num_mel_bins,
        preemphasis,
        mel_floor,
    )
    return features, cu_frames


@lru_cache(maxsize=8)
def _padded_window(name: str, length: int, padded_length: int, device: torch.device) -> Tensor:
    """The window, and zeros behind it."""
    window = _window(name, length, torch.float32, device)
    return torch.nn.functional.pad(window, (0, padded_length - length))


@lru_cache(maxsize=8)
def _mel_pairs(
    sampling_rate: int, quarter: int, bins: int, low: float, lines: int, block_bins: int, device: torch.device
) -> Tensor:
    """The triangles for `fbank_kernel`: float16 [blocks of bins, 2 * quarter / lines, lines, 2, block_bins].

    Blocks of lines as in `transform_pairs`; upper and lower halves; zero for bins not asked for.
    """
    mel = _mel_matrix(sampling_rate, 4 * quarter, bins, low, torch.float64, torch.device("cpu"))[:-1]
    blocks = torch.nn.functional.pad(mel, (0, -bins % block_bins)).unflatten(1, (-1, block_bins))
    blocks = blocks.unflatten(0, (-1, lines, 2)).permute(3, 0, 2, 1, 4).flatten(1, 2)
    return half_pairs(blocks).contiguous().to(device)


def frame_sizes(sampling_rate: int) -> tuple[int, int]:
    """(length, shift) of a frame in samples: 25 ms and 10 ms, rounded down.

    Raises:
        ValueError: if the rate is not from 8,000 to 48,000 Hz.
    """
    if not RATES[0] <= sampling_rate <= RATES[1]:
        raise ValueError(
            f"sampling_rate must be from {RATES[0]:,} to {RATES[1]:,} Hz, got {sampling_rate}; resample first"
        )
    return sampling_rate * 25 // 1000, sampling_rate * 10 // 1000


def frame_count(samples: int, sampling_rate: int) -> int:
    """Frames of an utterance: only whole ones, so what is left at the end is dropped."""
    length, shift = frame_sizes(sampling_rate)
    return 0 if samples < length else 1 + (samples - length) // shift


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # a tensor made in inference mode could not take part in a later backward pass
def _window(name: str, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The window [length], computed in float64."""
    phase = torch.arange(length, dtype=torch.float64) * (2 * math.pi / (length - 1))
    floor = 0.54 if name == "hamming" else 0.5
    values = floor - (1 - floor) * torch.cos(phase)
    if name == "povey":
        values = values.pow(0.85)
    return values.to(device=device, dtype=dtype)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _mel_matrix(
    sampling_rate: int, padded_length: int, bins: int, low: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Triangles [padded_length / 2 + 1, bins], straight and equally spaced in mel, computed in float64."""
    edges = torch.linspace(_mel(low), _mel(sampling_rate / 2), bins + 2, dtype=torch.float64)
    left, center, right = edges[:-2], edges[1:-1], edges[2:]
    frequencies = torch.arange(padded_length // 2 + 1, dtype=torch.float64) * (sampling_rate / padded_length)
    mels = 1127.0 * torch.log1p(frequencies / 700.0)[:, None]
    rising = (mels - left) / (center - left)
    falling = (right - mels) / (right - center)
    return torch.minimum(rising, falling).clamp(min=0.0).to(device=device, dtype=dtype).contiguous()


def _mel(frequency: float) -> float:
    return 1127.0 * math.log1p(frequency / 700.0)
