"""Log-mel spectrogram over packed waveforms, as Whisper computes it.

Source: log_mel_spectrogram of openai/whisper (audio.py) and transformers' WhisperFeatureExtractor: centered
frames of 25 ms every 10 ms, with a periodic Hann window, the recording reflected at both ends; Slaney's mel
triangles; the decimal logarithm, at most 8 below the recording's maximum; (x + 4) / 4.

The floor depends on the whole recording, and frames at a window's edges on samples around it: an `Excerpt`
describes each packed waveform's part of its recording.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.packing import check_cu_seqlens, cumulative, keep_on_host, spans
from ..runtime.upload import upload_all
from .dft import fbank_kernel, mel_pairs, transform_pairs
from .framing import TABLE_COLUMNS, frame_samples_kernel, log_mel_floor_kernel

SILENCE = -10.0  # decimal logarithm of the lowest mel power
DYNAMIC_RANGE = 8.0  # of the logarithm, below the maximum
FRAME = 400  # samples, the length of the Fourier transform
MAX_FREQUENCY = 8_000.0  # Hz, upper edge of the last triangle
_BLOCK = 256  # frames that the CPU takes at a time, in the cache


@dataclass(frozen=True, slots=True)
class LogMelOptions:
    """Options of Whisper's log-mel spectrogram; the triangles reach from 0 to 8,000 Hz.

    Args:
        num_mel_bins: at least 1; Whisper has 80 or 128.
        sampling_rate: Hz, at least 16,000.
        hop_length: samples from one frame to the next.

    Raises:
        ValueError: an option outside of these limits.
    """

    num_mel_bins: int = 80
    sampling_rate: int = 16_000
    hop_length: int = 160

    def __post_init__(self) -> None:
        if self.num_mel_bins < 1:
            raise ValueError(f"num_mel_bins must be at least 1, got {self.num_mel_bins}")
        if self.sampling_rate < 2 * MAX_FREQUENCY:
            raise ValueError(f"sampling_rate must be at least 16,000 Hz, got {self.sampling_rate}")
        if self.hop_length < 1:
            raise ValueError(f"hop_length must be at least 1 sample, got {self.hop_length}")


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Frames to compute from the samples of a recording or a part of it, and rows to fill behind them.

    Frame t is centered at sample `context` + t * hop_length. The samples begin FRAME / 2 or more before the
    first center, or at the recording's start, where they are reflected; at the end likewise.

    Args:
        frames: frames that are computed.
        rows: rows of the features, at least `frames`.
        context: samples before the center of the first frame.
        length: samples and zeros after them, up to the recording's end; None for no zeros.
        maximum: maximum of the whole recording's decimal logarithms (`log_mel_maxima`); None for that of the
            computed frames.
        fill: value of the rows after `frames`; None for the value that silence has.
    """

    frames: int
    rows: int
    context: int = 0
    length: int | None = None
    maximum: float | None = None
    fill: float | None = None


DEFAULT = LogMelOptions()  # that of most of Whisper's sizes


def log_mel(
    waveforms: Tensor, cu_samples: Tensor, excerpts: Sequence[Excerpt], options: LogMelOptions = DEFAULT
) -> tuple[Tensor, Tensor]:
    """Whisper's features of each excerpt.

    Args:
        waveforms: float32 or float64 [samples], -1 to 1, packed.
        cu_samples: int32 [n + 1], offsets of the excerpts' samples.
        excerpts: frames and rows of each.
        options: frames and triangles.

    Returns:
        (features [rows, num_mel_bins] in the dtype of `waveforms`, cu_rows int32 [n + 1])

    Raises:
        ValueError: another dtype or shape, offsets that do not fit, or an excerpt with too few samples.
    """
    _check(waveforms, cu_samples, excerpts, options)
    return _log_mel(waveforms, cu_samples, excerpts, options)


def log_mel_maxima(
    waveforms: Tensor, cu_samples: Tensor, excerpts: Sequence[Excerpt], options: LogMelOptions = DEFAULT
) -> Tensor:
    """Maximum of the decimal logarithms of each excerpt's computed frames, at least -10: [n].

    Takes the arguments of `log_mel`. The maximum of a recording is the maximum of its parts', to the bit.
    """
    _check(waveforms, cu_samples, excerpts, options)
    return _log_mel_maxima(waveforms, cu_samples, excerpts, options)


def log_mel_reference(
    waveforms: Tensor, cu_samples: Tensor, excerpts: Sequence[Excerpt], options: LogMelOptions = DEFAULT
) -> tuple[Tensor, Tensor]:
    """Reference implementation of `log_mel` in plain torch; differentiable in `waveforms`.

    Computes in the dtype of `waveforms`; float64 is the oracle of tests.
    """
    features = [waveforms.new_zeros(0, options.num_mel_bins)]
    for (start, end), excerpt in zip(spans(cu_samples), excerpts, strict=True):
        logs = _logs_reference(waveforms[start:end], excerpt, options)
        silence = logs.new_full((1, options.num_mel_bins), SILENCE)
        maximum = torch.cat([logs, silence]).max() if excerpt.maximum is None else excerpt.maximum
        logs, silence = (_scaled(one, maximum) for one in (logs, silence))
        if excerpt.fill is not None:
            silence = torch.full_like(silence, excerpt.fill)
        features += [logs, silence.expand(excerpt.rows - excerpt.frames, -1)]
    return torch.cat(features), cumulative([excerpt.rows for excerpt in excerpts], waveforms.device)


def log_mel_maxima_reference(
    waveforms: Tensor, cu_samples: Tensor, excerpts: Sequence[Excerpt], options: LogMelOptions = DEFAULT
) -> Tensor:
    """Reference implementation of `log_mel_maxima` in plain torch."""
    maxima = waveforms.new_full((len(excerpts),), SILENCE)
    for i, (start, end) in enumerate(spans(cu_samples)):
        if excerpts[i].frames:
            maxima[i] = _logs_reference(waveforms[start:end], excerpts[i], options).max()
    return maxima


def log_mel_cpu(
    waveforms: Tensor, cu_samples: Tensor, excerpts: Sequence[Excerpt], options: LogMelOptions = DEFAULT
) -> tuple[Tensor, Tensor]:
    """Whisper's features on the CPU, by blocks of frames; forward only."""
    rows = [excerpt.rows for excerpt in excerpts]
    features = waveforms.new_empty(sum(rows), options.num_mel_bins)
    own = features.split(rows) if rows else ()
    for (start, end), excerpt, out in zip(spans(cu_samples), excerpts, own, strict=True):
        logs = out[: excerpt.frames]
        for first, block in _log_blocks(waveforms[start:end], excerpt, options):
            logs[first : first + len(block)] = block
        maximum = excerpt.maximum
        if maximum is None:
            maximum = float(logs.max()) if excerpt.frames else SILENCE
        logs.clamp_(min=maximum - DYNAMIC_RANGE).add_(4.0).mul_(0.25)
        silence = _scaled(logs.new_full((1,), SILENCE), maximum)
        out[excerpt.frames :] = silence if excerpt.fill is None else excerpt.fill
    return features, cumulative(rows, waveforms.device)


def log_mel_maxima_cpu(
    waveforms: Tensor, cu_samples: Tensor, excerpts: Sequence[Excerpt], options: LogMelOptions = DEFAULT
) -> Tensor:
    """Maxima on the CPU; memory does not grow with the number of frames."""
    maxima = waveforms.new_full((len(excerpts),), SILENCE)
    for (start, end), excerpt, maximum in zip(spans(cu_samples), excerpts, maxima, strict=True):
        for _, block in _log_blocks(waveforms[start:end], excerpt, options):
            torch.maximum(maximum, block.max(), out=maximum)
    return maxima


def log_mel_triton(
    waveforms: Tensor, cu_samples: Tensor, excerpts: Sequence[Excerpt], options: LogMelOptions = DEFAULT
) -> tuple[Tensor, Tensor]:
    """Whisper's features in three launches: framed samples, logarithms with their peaks, floor and scale."""
    device, bins, rows = waveforms.device, options.num_mel_bins, [excerpt.rows for excerpt in excerpts]
    tables = _tables(cu_samples, excerpts, options, device)
    logs, peaks = _launch_logs(waveforms, excerpts, tables, options)
    features = waveforms.new_empty(sum(rows), bins)
    case = log_mel_floor_kernel.case(device)
    grid = case.block_count("BLOCK", max(rows, default=0) * bins), len(rows)
    tensors = logs, peaks, tables.cu_frames, tables.cu_rows, tables.levels, features
    case.launch(grid, *tensors, peaks.shape[1], bins)
    return features, tables.cu_rows


def log_mel_maxima_triton(
    waveforms: Tensor, cu_samples: Tensor, excerpts: Sequence[Excerpt], options: LogMelOptions = DEFAULT
) -> Tensor:
    """Maxima by the kernels that `log_mel` begins with."""
    tables = _tables(cu_samples, excerpts, options, waveforms.device)
    _, peaks = _launch_logs(waveforms, excerpts, tables, options)
    maxima = waveforms.new_full((len(excerpts),), SILENCE)
    for i, own in enumerate(peaks.split([excerpt.frames for excerpt in excerpts])):
        if len(own):
            maxima[i] = own.max()
    return maxima


_log_mel = Operation(log_mel_reference, cpu=log_mel_cpu, triton=log_mel_triton)
_log_mel_maxima = Operation(log_mel_maxima_reference, cpu=log_mel_maxima_cpu, triton=log_mel_maxima_triton)


@dataclass(frozen=True, slots=True)
class _Tables:
    """Excerpts as the kernels take them, on the device."""

    places: Tensor  # int32 [n, TABLE_COLUMNS]
    levels: Tensor  # float32 [n, 2], maximum and fill, NaN for None
    cu_framed: Tensor  # offsets int32 [n + 1] of the samples of all frames
    cu_frames: Tensor  # of the frames that are computed
    cu_rows: Tensor


def _tables(
    cu_samples: Tensor, excerpts: Sequence[Excerpt], options: LogMelOptions, device: torch.device
) -> _Tables:
    places, levels = [], []
    for (start, end), excerpt in zip(spans(cu_samples), excerpts, strict=True):
        length = end - start if excerpt.length is None else excerpt.length
        places.append((start, end - start, excerpt.context - FRAME // 2, length))
        levels.append([math.nan if level is None else level for level in (excerpt.maximum, excerpt.fill)])
    counts = (
        [_span(excerpt, options) for excerpt in excerpts],
        [excerpt.frames for excerpt in excerpts],
        [excerpt.rows for excerpt in excerpts],
    )
    host = [
        torch.tensor(places, dtype=torch.int32).reshape(-1, TABLE_COLUMNS),
        torch.tensor(levels, dtype=torch.float32).reshape(-1, 2),
        *map(cumulative, counts),
    ]
    placed, levelled, *offsets = upload_all([*host], device)
    kept = [keep_on_host(own, known.tolist()) for own, known in zip(offsets, host[2:], strict=True)]
    return _Tables(placed, levelled, *kept)


def _launch_logs(
    waveforms: Tensor, excerpts: Sequence[Excerpt], tables: _Tables, options: LogMelOptions
) -> tuple[Tensor, Tensor]:
    """Decimal logarithms [frames, bins] and their peaks [frames, blocks of bins]."""
    device, bins, lengths = waveforms.device, options.num_mel_bins, [_span(one, options) for one in excerpts]
    framed = waveforms.new_empty(sum(lengths))
    framing = frame_samples_kernel.case(device)
    grid = framing.block_count("BLOCK", max(lengths, default=0)), len(lengths)
    framing.launch(grid, waveforms, tables.places, tables.cu_framed, framed)

    case = fbank_kernel.case(device, "whisper")
    lines, block_bins = case.constant("LINES"), case.constant("BLOCK_BINS")
    transform = transform_pairs(FRAME // 4, lines, case.constant("BLOCK_K"), device)
    window, mel = _window(torch.float32, device), _mel_pairs(options, lines, block_bins, device)
    frames = sum(excerpt.frames for excerpt in excerpts)
    grid = case.block_count("BLOCK_FRAMES", frames), case.block_count("BLOCK_BINS", bins)
    logs, peaks = waveforms.new_empty(frames, bins), waveforms.new_empty(frames, grid[1])
    tensors = framed, tables.cu_framed, tables.cu_frames, window, transform, mel, logs, peaks
    sizes = (
        len(lengths),
        len(lengths).bit_length(),
        frames,
        FRAME,
        options.hop_length,
        transform.shape[1],
        bins,
    )
    case.launch(grid, *tensors, *sizes, 0.0, 10.0**SILENCE, 1.0)
    return logs, peaks


def _span(excerpt: Excerpt, options: LogMelOptions) -> int:
    """Samples from the begin of the first frame to the end of the last; 0 without frames."""
    return (excerpt.frames - 1) * options.hop_length + FRAME if excerpt.frames else 0


def _logs_reference(samples: Tensor, excerpt: Excerpt, options: LogMelOptions) -> Tensor:
    """Decimal logarithms of the mel band powers [frames, bins]."""
    if not excerpt.frames:
        return samples.new_zeros(0, options.num_mel_bins)
    framed = _framed(samples, excerpt, options).unfold(0, FRAME, options.hop_length)
    spectrum = torch.fft.rfft(framed * _window(samples.dtype, samples.device))
    power = spectrum.real.square() + spectrum.imag.square()  # [frames, FRAME / 2 + 1]
    mel_power = power @ _mel_matrix(options, samples.dtype, samples.device)
    return mel_power.clamp(min=10.0**SILENCE).log10()


def _log_blocks(samples: Tensor, excerpt: Excerpt, options: LogMelOptions) -> Iterator[tuple[int, Tensor]]:
    """First frame and logarithms of blocks of frames; a frame's bits do not depend on its place in them."""
    if not excerpt.frames:
        return
    window = _window(samples.dtype, samples.device)
    mel = _mel_matrix(options, samples.dtype, samples.device)
    framed = _framed(samples, excerpt, options).unfold(0, FRAME, options.hop_length)
    # Always as many rows: a product of fewer could sum in another order.
    power = samples.new_zeros(_BLOCK, len(mel))
    for first in range(0, excerpt.frames, _BLOCK):
        spectrum = torch.fft.rfft(framed[first : first + _BLOCK] * window)
        own = power[: len(spectrum)]
        torch.square(spectrum.real, out=own).addcmul_(spectrum.imag, spectrum.imag)
        yield first, (power @ mel)[: len(own)].clamp_(min=10.0**SILENCE).log10_()


def _framed(samples: Tensor, excerpt: Excerpt, options: LogMelOptions) -> Tensor:
    """Samples from the begin of the first frame to the end of the last, with reflections and zeros."""
    half = FRAME // 2
    length = len(samples) if excerpt.length is None else excerpt.length
    start = excerpt.context - half
    stop = start + _span(excerpt, options)
    left, right = max(0, -start), max(0, stop - length)
    end = min(length, max(stop, left + 1))
    body = samples[:end] if end <= len(samples) else F.pad(samples, (0, end - len(samples)))
    middle = body[max(start, 0) : min(stop, length)]
    if not left and not right:
        return middle
    return torch.cat([body[1 : left + 1].flip(0), middle, body[length - 1 - right : length - 1].flip(0)])


def _scaled(logs: Tensor, maximum: float | Tensor) -> Tensor:
    """Logarithms at least `maximum` - 8, plus 4, divided by 4."""
    return (logs.clamp(min=maximum - DYNAMIC_RANGE) + 4.0) * 0.25


def _check(
    waveforms: Tensor, cu_samples: Tensor, excerpts: Sequence[Excerpt], options: LogMelOptions
) -> None:
    if waveforms.dim() != 1 or waveforms.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            "waveforms must be float32 or float64 samples, packed into one dimension; "
            f"got {waveforms.dtype} of shape {tuple(waveforms.shape)}"
        )
    check_cu_seqlens(cu_samples, waveforms.numel(), "cu_samples")
    if len(excerpts) != cu_samples.numel() - 1:
        raise ValueError(
            f"{len(excerpts)} excerpts for {cu_samples.numel() - 1} waveforms; give one for each"
        )
    half = FRAME // 2
    for excerpt, (start, end) in zip(excerpts, spans(cu_samples), strict=True):
        if not 0 <= excerpt.frames <= excerpt.rows or excerpt.context < 0:
            raise ValueError(f"{excerpt} must have 0 <= frames <= rows and a context of at least 0 samples")
        length = end - start if excerpt.length is None else excerpt.length
        if length < end - start:
            raise ValueError(f"{excerpt} is shorter than its {end - start} samples")
        # Samples that a reflection needs; a reflected frame may reach no further than the other end.
        beyond = excerpt.context + (excerpt.frames - 1) * options.hop_length + half - length
        if excerpt.frames and (half - excerpt.context >= length or beyond >= length):
            raise ValueError(
                f"{excerpt} has {end - start} samples, too few for its frames of {FRAME}, which are "
                f"reflected at both ends; give more than {half} samples, or a length with zeros"
            )


@lru_cache(maxsize=8)
def _mel_pairs(options: LogMelOptions, lines: int, block_bins: int, device: torch.device) -> Tensor:
    """Mel triangles for `fbank_kernel`, from `mel_pairs`."""
    mel = _mel_matrix(options, torch.float64, torch.device("cpu"))[:-1]
    return mel_pairs(mel, lines, block_bins).to(device)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # a tensor made in inference mode could not take part in a later backward pass
def _window(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Periodic Hann window [FRAME], computed in float64."""
    phase = torch.arange(FRAME, dtype=torch.float64) * (2 * math.pi / FRAME)
    return (0.5 - 0.5 * torch.cos(phase)).to(device=device, dtype=dtype)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _mel_matrix(options: LogMelOptions, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Slaney's mel triangles [FRAME / 2 + 1, bins], of equal area, computed in float64."""
    mels = torch.linspace(0.0, _mel(MAX_FREQUENCY), options.num_mel_bins + 2, dtype=torch.float64)
    linear = mels * _LINEAR
    edges = torch.where(
        mels < 1000 / _LINEAR, linear, 1000 * torch.exp((mels - 1000 / _LINEAR) / _PER_E_FOLD)
    )
    left, center, right = edges[:-2], edges[1:-1], edges[2:]
    lines = torch.arange(FRAME // 2 + 1, dtype=torch.float64)
    frequencies = (lines * (options.sampling_rate / FRAME))[:, None]
    rising = (frequencies - left) / (center - left)
    falling = (right - frequencies) / (right - center)
    triangles = torch.minimum(rising, falling).clamp(min=0.0) * (2 / (right - left))
    return triangles.to(device=device, dtype=dtype).contiguous()


_LINEAR = 200 / 3  # Hz of a mel below 1,000 Hz
_PER_E_FOLD = 27 / math.log(6.4)  # mels of a factor e above


def _mel(frequency: float) -> float:
    if frequency < 1000:
        return frequency / _LINEAR
    return 1000 / _LINEAR + math.log(frequency / 1000) * _PER_E_FOLD
