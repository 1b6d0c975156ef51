"""Kernel of the filter banks: a discrete Fourier transform, folded twice, on the matrix units.

One kernel has two modes: Kaldi's (`fbank`) and Whisper's (`log_mel`).
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.launch import kernel
from ..runtime.optional_triton import tl, triton


@kernel(outputs=("out_ptr", "peaks_ptr"))
def fbank_kernel(
    waveforms_ptr,  # [samples]
    cu_samples_ptr,  # [utterances + 1]
    cu_frames_ptr,  # [utterances + 1]
    window_ptr,  # [4 * quarter], with zeros after the frame
    transform_ptr,  # [2 * K / LINES, K, 4, LINES], from `transform_pairs`
    mel_ptr,  # [blocks of bins, 2 * K / LINES, LINES, 2, BLOCK_BINS], from `mel_pairs`
    out_ptr,  # [frames, bins]
    peaks_ptr,  # [frames, blocks of bins], the largest values; not written in Kaldi's mode
    utterances: tl.int32,
    search_steps: tl.int32,  # halvings that bring the number of utterances to 1
    frames: tl.int32,
    length: tl.int32,  # samples of a frame
    shift: tl.int32,  # samples from one frame to the next
    K: tl.int32,  # a quarter of the padded frame: 64 at 8 kHz, 128 at 16 kHz, 512 at 48 kHz; 128 for Whisper
    bins: tl.int32,
    preemphasis: tl.float32,
    mel_floor: tl.float32,
    gain: tl.float32,  # factor of the samples
    QUARTER: tl.constexpr,  # Whisper's mode: a quarter of its frame, up to K, where tables hold 0; Kaldi's: 0
    BLOCK_FRAMES: tl.constexpr,
    BLOCK_K: tl.constexpr,
    LINES: tl.constexpr,  # frequencies at a time, all even or all odd
    BLOCK_BINS: tl.constexpr,
):
    # The power of a spectral line does not depend on the origin of time. From the middle of the padded frame
    # the transform folds twice, like the first steps of an FFT. Samples at one distance before and behind the
    # middle are added for the cosines and subtracted for the sines; then samples at one distance from the
    # quarters, with one sign for even lines and the other for odd ones. That leaves a third of the product
    # and of its tables.
    frame = tl.program_id(0) * BLOCK_FRAMES + tl.arange(0, BLOCK_FRAMES)
    inside = frame < frames
    frame = tl.minimum(frame, frames - 1)
    first = tl.zeros((BLOCK_FRAMES,), tl.int32)  # the utterance of each frame lies in first <= it < last
    last = first + utterances
    for _ in range(search_steps):
        middle = (first + last) // 2
        behind = tl.load(cu_frames_ptr + middle) <= frame
        first = tl.where(behind, middle, first)
        last = tl.where(behind, last, middle)
    start = tl.load(cu_samples_ptr + first) + (frame - tl.load(cu_frames_ptr + first)) * shift

    # The mean goes first: folded into the transform, an offset of the recording costs a digit. Summed from
    # the frame's first sample, in float32, so that a constant frame becomes exactly 0.
    sample = tl.load(waveforms_ptr + start)
    total = tl.zeros((BLOCK_FRAMES,), tl.float32)
    highest = tl.full((BLOCK_FRAMES,), float("-inf"), tl.float32)
    lowest = tl.full((BLOCK_FRAMES,), float("inf"), tl.float32)
    for begin in range(0, length, 32):
        index = begin + tl.arange(0, 32)
        values = tl.load(waveforms_ptr + start[:, None] + tl.minimum(index, length - 1)[None, :])
        if not QUARTER:
            total += tl.sum(tl.where((index < length)[None, :], values - sample[:, None], 0.0), axis=1)
        highest = tl.maximum(highest, tl.max(values, axis=1))
        lowest = tl.minimum(lowest, tl.min(values, axis=1))
    mean = sample + total / length
    if QUARTER:
        mean = tl.zeros((BLOCK_FRAMES,), tl.float32)
    # Pre-emphasis at most doubles a sample and four are added, so that float16 holds them, below 2^16.
    scale, unscale = _powers_of_two(tl.maximum(highest - mean, mean - lowest), 11)

    mel_power = tl.zeros((BLOCK_FRAMES, BLOCK_BINS), tl.float32)
    line = tl.arange(0, LINES)
    bin_ = tl.arange(0, BLOCK_BINS)
    for block in range(0, 2 * K // LINES):  # even lines, odd lines, even lines
        sign = 1.0 - 2.0 * (block % 2)
        tables = transform_ptr + block * K * 4 * LINES
        cosines = tl.zeros((BLOCK_FRAMES, LINES), tl.float32)
        sines = tl.zeros((BLOCK_FRAMES, LINES), tl.float32)
        for begin in range(0, K, BLOCK_K):
            k = begin + tl.arange(0, BLOCK_K)
            a = tl.zeros((BLOCK_FRAMES, BLOCK_K), tl.float32)
            b = a
            c = a
            d = a
            # Always true. Outside of a branch the compiler pipelines these loads through shared memory: three
            # times as much of it on sm_90, and more registers than there are.
            if begin < K:
                if QUARTER:
                    a = _windowed(waveforms_ptr, start, k, window_ptr)
                    b = _windowed(waveforms_ptr, start, 2 * QUARTER - 1 - k, window_ptr)
                    c = _windowed(waveforms_ptr, start, 2 * QUARTER + k, window_ptr)
                    d = _windowed(waveforms_ptr, start, 4 * QUARTER - 1 - k, window_ptr)
                else:
                    back = tl.minimum(k, 1)[None, :]  # the first sample stands for the one before it
                    a = _emphasized(waveforms_ptr, start, k, back, mean, window_ptr, length, preemphasis)
                    b, c, d = 2 * K - 1 - k, 2 * K + k, 4 * K - 1 - k
                    b = _emphasized(waveforms_ptr, start, b, 1, mean, window_ptr, length, preemphasis)
                    c = _emphasized(waveforms_ptr, start, c, 1, mean, window_ptr, length, preemphasis)
                    d = _emphasized(waveforms_ptr, start, d, 1, mean, window_ptr, length, preemphasis)
            added = ((c + b) + sign * (a + d)) * scale[:, None]
            subtracted = ((c - b) + sign * (a - d)) * scale[:, None]
            table = tables + k[:, None] * (4 * LINES) + line[None, :]
            cosines += _product(added, table)
            sines += _product(subtracted, table + 2 * LINES)
        power = cosines * cosines + sines * sines
        power_scale, power_unscale = _powers_of_two(tl.max(power, axis=1), 14)
        mel = mel_ptr + (tl.program_id(1) * (2 * K // LINES) + block) * (2 * LINES * BLOCK_BINS)
        mel += line[:, None] * (2 * BLOCK_BINS) + bin_[None, :]
        mel_power += _product(power * power_scale[:, None], mel) * power_unscale[:, None]

    # Both tables are scaled by 2^14; the transform's scale enters the power squared, as the gain does.
    unscale *= 2.0**-21 * gain
    mel_power = mel_power * unscale[:, None] * unscale[:, None]
    bin_ += tl.program_id(1) * BLOCK_BINS
    present = (bin_ < bins)[None, :]
    values = tl.log(tl.where(mel_power < mel_floor, mel_floor, mel_power))  # NaN stays NaN
    if QUARTER:
        # The lowest value is exactly that of rows which `log_mel` does not compute.
        values = tl.where(mel_power <= mel_floor, -10.0, values * 0.4342944819032518)
        highest = tl.max(tl.where(present, values, -10.0), axis=1)
        tl.store(peaks_ptr + frame * tl.num_programs(1) + tl.program_id(1), highest, mask=inside)
    outputs = out_ptr + frame.to(tl.int64)[:, None] * bins + bin_[None, :]
    tl.store(outputs, values, mask=inside[:, None] & present)


@triton.jit
def _windowed(waveforms_ptr, start, index, window_ptr):
    """Samples of each frame at `index`, times the window function."""
    values = tl.load(waveforms_ptr + (start[:, None] + index[None, :]))
    return values * tl.load(window_ptr + index)[None, :]


@triton.jit
def _emphasized(waveforms_ptr, start, index, back, mean, window_ptr, length, preemphasis):
    """Samples of each frame at `index`, minus the frame's mean, pre-emphasized, times the window function."""
    # Padding, where the window is 0, reads the last sample: the one after it could be NaN.
    own = waveforms_ptr + (start[:, None] + tl.minimum(index, length - 1)[None, :])
    values = (tl.load(own) - mean[:, None]) - preemphasis * (tl.load(own - back) - mean[:, None])
    return values * tl.load(window_ptr + index)[None, :]


@triton.jit
def _product(values, table):
    """Matrix product `values @ table` on the matrix units, about as exact as in float32.

    A float32 value is the sum of two float16 values to within 2^-24 of itself (where its exponent allows,
    hence the scales), and three of the four products of such sums matter: tf32x3 at twice its rate, and on
    AMD's units too. In a table each row of upper halves is followed by its row of lower halves. Matrix units
    truncate instead of rounding, which accumulates: sums are short here, small terms first, and the caller
    adds them up in float32.
    """
    high = values.to(tl.float16)
    low = (values - high.to(tl.float32)).to(tl.float16)
    table_high, table_low = tl.load(table), tl.load(table + table.shape[1])
    product = tl.dot(low, table_high)
    product = tl.dot(high, table_low, product)
    return tl.dot(high, table_high, product)


@triton.jit
def _powers_of_two(peak, EXPONENT: tl.constexpr):
    """Powers of two that scale `peak` to 2^EXPONENT or up to twice that, and back; both are exact."""
    exponent = (peak.to(tl.int32, bitcast=True) >> 23) & 0xFF
    exponent = tl.minimum(tl.maximum(exponent, 40), 254)  # for 0, infinity and NaN too
    scale = ((254 + EXPONENT - exponent) << 23).to(tl.float32, bitcast=True)
    return scale, ((exponent - EXPONENT) << 23).to(tl.float32, bitcast=True)


@lru_cache(maxsize=8)
def transform_pairs(quarter: int, lines: int, block: int, device: torch.device) -> Tensor:
    """Cosine and sine table of `fbank_kernel`: float16 [blocks, K, 4, lines], K a multiple of `block`.

    Blocks of spectral lines, even and odd ones in turn; upper and lower halves of cosines, then of sines;
    zeros after the last line and after `quarter` rows. The line at half the sampling rate is left out, since
    no mel triangle covers it.
    """
    numbers = torch.arange(2 * quarter + -2 * quarter % (2 * lines)).reshape(-1, lines, 2).transpose(1, 2)
    numbers = numbers.reshape(-1, 1, lines)
    positions = torch.arange(quarter + -quarter % block, dtype=torch.float64)[:, None] + 0.5
    angles = positions * numbers * (math.pi / (2 * quarter))
    inside = (numbers < 2 * quarter) & (positions < quarter)
    return torch.cat([half_pairs(angles.cos() * inside), half_pairs(angles.sin() * inside)], dim=2).to(device)


def mel_pairs(mel: Tensor, lines: int, block_bins: int) -> Tensor:
    """Mel triangles, float64 [spectral lines, bins], as the float16 table `mel_ptr` of `fbank_kernel`.

    Blocks of spectral lines as in `transform_pairs`; upper and lower halves; zeros after the last of either.
    """
    mel = F.pad(mel, (0, -mel.shape[1] % block_bins, 0, -mel.shape[0] % (2 * lines)))
    blocks = mel.unflatten(1, (-1, block_bins)).unflatten(0, (-1, lines, 2))
    return half_pairs(blocks.permute(3, 0, 2, 1, 4).flatten(1, 2)).contiguous()


def half_pairs(numbers: Tensor) -> Tensor:
    """Upper and lower float16 halves of float64 values up to 1, times 2^14: [..., rows, 2, columns]."""
    numbers = numbers * 2.0**14
    high = numbers.half()
    return torch.stack([high, (numbers - high.double()).half()], dim=-2)


def _blocks(architecture: str, mode: str) -> dict[str, int]:
    """Tile sizes and warps of a mode, the same for every sampling rate, window and number of bins.

    Every block of frames reads the tables from the L2 cache, so blocks are large. On sm_90 blocks twice as
    large, with 8 warps, need a few bytes of stack under some versions of Triton.
    """
    return {
        "QUARTER": 100 if mode == "whisper" else 0,
        "BLOCK_FRAMES": 64,
        "BLOCK_K": 32,
        "LINES": 64,
        "BLOCK_BINS": 128,
        "num_warps": 4 if architecture == "sm_90" else 8,
    }


_types = dict.fromkeys(("cu_samples_ptr", "cu_frames_ptr"), torch.int32)
fbank_kernel.declare_all(
    ("kaldi", "whisper"),
    pointers=_types | dict.fromkeys(("transform_ptr", "mel_ptr"), torch.float16),
    blocks=_blocks,
)
