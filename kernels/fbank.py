"""Log-mel filter bank over packed waveforms, as Kaldi computes it.

Source: Kaldi's feature-window.cc and mel-computations.cc (frames of 25 ms every 10 ms, `snip_edges`, no
dither, no energy), the features that Speech2Text and most fairseq models were trained on.
"""

import math
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .dispatch import choose
from .launch import ARCHITECTURES, kernel, ready
from .packing import check_cu_seqlens, cumulative, spans

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
    features = waveforms.new_empty(sum(counts), num_mel_bins)
    cu_frames = cumulative(counts, waveforms.device)
    device = waveforms.device
    case = fbank_kernel.case(device)
    lines, bins = case.constant("LINES"), case.constant("BLOCK_BINS")
    case.launch(
        (triton.cdiv(len(features), case.constant("BLOCK_FRAMES")), triton.cdiv(num_mel_bins, bins)),
        ready(waveforms),
        ready(cu_samples),
        cu_frames,
        _window(window, length, torch.float32, device),
        _transform_pairs(quarter, lines, device),
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


@kernel()
def fbank_kernel(
    waveforms_ptr,  # [samples]
    cu_samples_ptr,  # [utterances + 1]
    cu_frames_ptr,  # [utterances + 1]
    window_ptr,  # [length]
    transform_ptr,  # [K / LINES, 4, 2, K, LINES], see `_transform_pairs`
    mel_ptr,  # [blocks of bins, K / LINES, 2, 2, LINES, BLOCK_BINS], see `_mel_pairs`
    out_ptr,  # [frames, bins]
    utterances: tl.int32,
    search_steps: tl.int32,  # halvings that bring the number of utterances to 1
    frames: tl.int32,
    length: tl.int32,  # of a frame in samples
    shift: tl.int32,  # from one frame to the next, in samples
    K: tl.int32,  # a quarter of the padded frame: 64 at 8 kHz, 128 at 16 kHz, 512 at 48 kHz
    bins: tl.int32,
    preemphasis: tl.float32,
    mel_floor: tl.float32,
    BLOCK_FRAMES: tl.constexpr,
    BLOCK_K: tl.constexpr,
    LINES: tl.constexpr,  # of each parity at a time
    BLOCK_BINS: tl.constexpr,
):
    # A line's power does not depend on where time 0 lies. Taken from the middle of the padded frame, P samples
    # long, the transform folds twice, as an FFT begins: samples at the same distance before and behind the
    # middle are added for its cosines and subtracted for its sines, and so are then those that lie as far from
    # the quarters, with one sign for even lines and the other for odd ones. Of the [length, P] products, four
    # of [P / 4, P / 4] are left, three times fewer, and the tables are smaller in the same measure.
    frame = tl.program_id(0) * BLOCK_FRAMES + tl.arange(0, BLOCK_FRAMES)
    inside = frame < frames
    first = tl.zeros((BLOCK_FRAMES,), tl.int32)  # the utterance of each frame lies in first <= it < last
    last = first + utterances
    for _ in range(search_steps):
        middle = (first + last) // 2
        behind = tl.load(cu_frames_ptr + middle) <= frame
        first = tl.where(behind, middle, first)
        last = tl.where(behind, last, middle)
    start = tl.load(cu_samples_ptr + first) + (frame - tl.load(cu_frames_ptr + first)) * shift
    samples = waveforms_ptr + start[:, None]  # less than 2^31 of them, as their offsets are int32

    # The mean goes first: folded into the transform, an offset of the recording costs a digit.
    total = tl.zeros((BLOCK_FRAMES,), tl.float32)
    highest = tl.full((BLOCK_FRAMES,), float("-inf"), tl.float32)
    lowest = tl.full((BLOCK_FRAMES,), float("inf"), tl.float32)
    for begin in range(0, length, 2 * BLOCK_K):
        place = begin + tl.arange(0, 2 * BLOCK_K)
        there = inside[:, None] & (place < length)[None, :]
        values = tl.load(samples + place[None, :], mask=there, other=0.0)
        total += tl.sum(values, axis=1)
        highest = tl.maximum(highest, tl.max(tl.where(there, values, float("-inf")), axis=1))
        lowest = tl.minimum(lowest, tl.min(tl.where(there, values, float("inf")), axis=1))
    mean = total / length
    peak = tl.where(inside, tl.maximum(highest - mean, mean - lowest), 0.0)
    # Pre-emphasis at most doubles a sample and four are added: below 2^16 float16 holds them.
    scale, unscale = _powers_of_two(peak, 11)

    mel_power = tl.zeros((BLOCK_FRAMES, BLOCK_BINS), tl.float32)
    line = tl.arange(0, LINES)
    bin_ = tl.arange(0, BLOCK_BINS)
    size = K * LINES  # of a table
    for block in range(0, K // LINES):
        tables = transform_ptr + block * 8 * size
        even_cosines = tl.zeros((BLOCK_FRAMES, LINES), tl.float32)
        even_sines = tl.zeros((BLOCK_FRAMES, LINES), tl.float32)
        odd_cosines = tl.zeros((BLOCK_FRAMES, LINES), tl.float32)
        odd_sines = tl.zeros((BLOCK_FRAMES, LINES), tl.float32)
        for begin in range(0, K, BLOCK_K):
            k = begin + tl.arange(0, BLOCK_K)
            a = _tapered(samples, k, inside, mean, window_ptr, length, preemphasis)
            b = _tapered(samples, 2 * K - 1 - k, inside, mean, window_ptr, length, preemphasis)
            c = _tapered(samples, 2 * K + k, inside, mean, window_ptr, length, preemphasis)
            d = _tapered(samples, 4 * K - 1 - k, inside, mean, window_ptr, length, preemphasis)
            near, far = (c + b) * scale[:, None], (a + d) * scale[:, None]
            near_difference, far_difference = (c - b) * scale[:, None], (a - d) * scale[:, None]
            table = tables + k[:, None] * LINES + line[None, :]
            even_cosines = _add_product(near + far, table, size, even_cosines)
            even_sines = _add_product(near_difference + far_difference, table + 2 * size, size, even_sines)
            odd_cosines = _add_product(near - far, table + 4 * size, size, odd_cosines)
            odd_sines = _add_product(near_difference - far_difference, table + 6 * size, size, odd_sines)
        mel = mel_ptr + (tl.program_id(1) * (K // LINES) + block) * (4 * LINES * BLOCK_BINS)
        mel += line[:, None] * BLOCK_BINS + bin_[None, :]
        mel_power = _add_mel(even_cosines, even_sines, mel, mel_power)
        mel_power = _add_mel(odd_cosines, odd_sines, mel + 2 * LINES * BLOCK_BINS, mel_power)

    # Both tables are 2^14 times what they stand for, the transform's in the power twice.
    unscale *= 2.0**-21
    mel_power = mel_power * unscale[:, None] * unscale[:, None]
    bin_ += tl.program_id(1) * BLOCK_BINS
    values = tl.log(tl.where(mel_power < mel_floor, mel_floor, mel_power))  # keeps NaN
    places = out_ptr + frame.to(tl.int64)[:, None] * bins + bin_[None, :]
    tl.store(places, values, mask=inside[:, None] & (bin_ < bins)[None, :])


@triton.jit
def _tapered(samples, place, inside, mean, window_ptr, length, preemphasis):
    """Samples at these places of the frames without mean, after pre-emphasis and window; 0 in the padding."""
    there = inside[:, None] & (place < length)[None, :]
    own = tl.load(samples + place[None, :], mask=there, other=0.0) - mean[:, None]
    before = tl.load(samples + tl.maximum(place - 1, 0)[None, :], mask=there, other=0.0) - mean[:, None]
    return (own - preemphasis * before) * tl.load(window_ptr + place, mask=place < length, other=0.0)[None, :]


@triton.jit
def _add_mel(cosines, sines, mel, mel_power):
    """`mel_power` and what these lines add to it. Each frame's lines are brought to float16's range."""
    power = cosines * cosines + sines * sines
    scale, unscale = _powers_of_two(tl.max(power, axis=1), 14)
    nothing = tl.zeros(mel_power.shape, tl.float32)
    added = _add_product(power * scale[:, None], mel, mel.shape[0] * mel.shape[1], nothing)
    return mel_power + added * unscale[:, None]


@triton.jit
def _add_product(values, table, size, accumulator):
    """`accumulator + values @ table` about as exact as in float32, but on the matrix units.

    A float32 number is a sum of two float16 numbers within 2^-24 of itself (if its exponent allows, hence the
    scales), and three of the four products of such sums matter. The tables come in two halves, `size` apart.
    """
    high = values.to(tl.float16)
    low = (values - high.to(tl.float32)).to(tl.float16)
    table_high, table_low = tl.load(table), tl.load(table + size)
    accumulator = tl.dot(low, table_high, accumulator)
    accumulator = tl.dot(high, table_low, accumulator)
    return tl.dot(high, table_high, accumulator)


@triton.jit
def _powers_of_two(peak, PLACES: tl.constexpr):
    """What brings a number to 2^PLACES up to twice that, and what brings it back; exact, as powers of two."""
    exponent = (peak.to(tl.int32, bitcast=True) >> 23) & 0xFF
    exponent = tl.minimum(tl.maximum(exponent, 40), 254)  # 0, and what has no place between: infinity, NaN
    scale = ((254 + PLACES - exponent) << 23).to(tl.float32, bitcast=True)
    return scale, ((exponent - PLACES) << 23).to(tl.float32, bitcast=True)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _transform_pairs(quarter: int, lines: int, device: torch.device) -> Tensor:
    """Cosines and sines for `fbank_kernel`: float16 [quarter / lines, 4, 2, quarter, lines].

    By blocks of lines; cosines of even lines, their sines, cosines of odd lines, their sines; upper and lower
    half of each number. Line 2 * quarter, half the sampling rate, is in no triangle and left out.
    """
    pair = 2 * torch.arange(quarter, dtype=torch.float64)
    time = torch.arange(quarter, dtype=torch.float64)[:, None] + 0.5
    angles = [time * (pair + parity) * (math.pi / (2 * quarter)) for parity in (0, 1)]
    tables = torch.stack([function(angle) for angle in angles for function in (torch.cos, torch.sin)])
    blocks = tables.reshape(4, quarter, -1, lines).permute(2, 0, 1, 3)
    return _pairs(blocks, 2).to(device)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _mel_pairs(
    sampling_rate: int, quarter: int, bins: int, low: float, lines: int, block_bins: int, device: torch.device
) -> Tensor:
    """The triangles for `fbank_kernel`, float16 [blocks of bins, quarter / lines, 2, 2, lines, block_bins].

    By blocks of bins and lines; even, odd; upper and lower half of each number; zero for bins not asked for.
    """
    mel = _mel_matrix(sampling_rate, 4 * quarter, bins, low, torch.float64, torch.device("cpu"))[:-1]
    mel = torch.nn.functional.pad(mel, (0, -bins % block_bins))
    blocks = mel.reshape(-1, lines, 2, mel.shape[1] // block_bins, block_bins).permute(3, 0, 2, 1, 4)
    return _pairs(blocks, 3).to(device)


def _pairs(numbers: Tensor, dim: int) -> Tensor:
    """2^14 times float64 numbers up to 1 as float16 sums, upper and lower half along a new dimension."""
    numbers = numbers * 2.0**14
    high = numbers.half()
    return torch.stack([high, (numbers - high.double()).half()], dim).contiguous()


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
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    frequencies = torch.arange(padded_length // 2 + 1, dtype=torch.float64) * (sampling_rate / padded_length)
    mels = 1127.0 * torch.log1p(frequencies / 700.0)[:, None]
    rising = (mels - left) / (centre - left)
    falling = (right - mels) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0.0).to(device=device, dtype=dtype).contiguous()


def _mel(frequency: float) -> float:
    return 1127.0 * math.log1p(frequency / 700.0)


def _declare() -> None:
    """One kernel for every rate, number of bins and window."""
    for architecture in ARCHITECTURES:
        float32 = ("waveforms_ptr", "window_ptr", "out_ptr")
        pointers = dict.fromkeys(float32, torch.float32)
        pointers |= dict.fromkeys(("cu_samples_ptr", "cu_frames_ptr"), torch.int32)
        pointers |= dict.fromkeys(("transform_ptr", "mel_ptr"), torch.float16)
        fbank_kernel.declare(
            architecture=architecture,
            pointers=pointers,
            BLOCK_FRAMES=64,
            BLOCK_K=32,
            LINES=64,
            BLOCK_BINS=128,
            num_warps=8,
            num_stages=2,
        )


_declare()
