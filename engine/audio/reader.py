"""Audio reading: a file, bytes, file object or array to one float32 channel at the model's sampling rate.

Sources are decoded (libsndfile, PyAV), mixed to one channel and resampled (soxr) block by block: memory is
bounded, whatever a header declares. torch is not imported here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import decode
from .arrays import as_array as as_array
from .arrays import as_samples as as_samples
from .arrays import to_float
from .blocks import BLOCK, Block, check_rate
from .downmix import to_one_channel
from .errors import AudioError, TooLongError, TooShortError
from .formats import AUDIO_SUFFIXES as AUDIO_SUFFIXES
from .resample import resample
from .sources import Source, is_encoded

_MAX_FIRST = 1 << 24  # samples that are allocated before they are there
_BYTES_PER_SECOND = 4000.0  # of encoded speech at 32 kbit/s, where a header has no duration
MAX_PEAK = 1e6  # full scale is 1; beyond, the filter bank's powers overflow float32


@dataclass(frozen=True, slots=True)
class Audio:
    """Samples of one channel, float32 [samples], and warnings about their reading."""

    samples: np.ndarray
    warnings: tuple[str, ...] = ()


def load_audio(
    source: Any,
    sampling_rate: int,
    *,
    source_rate: int | None = None,
    max_seconds: float | None = None,
    channel: int | None = None,
    encoding: str | None = None,
    empty: Callable[[int], np.ndarray] | None = lambda size: np.empty(size, np.float32),
) -> Audio:
    """Read a recording as one channel at `sampling_rate` Hz.

    Channels are averaged; where they cancel each other, the louder one is taken, with a warning. Rates are
    converted by soxr at its high quality.

    Args:
        source: path; bytes of encoded audio; binary file object, read from its position to its end; numpy
            array or torch tensor [samples] or [samples, channels], integers being PCM, scaled to -1..1.
        sampling_rate: rate of the result in Hz.
        source_rate: rate in Hz of an array, `sampling_rate` by default, or of audio without a header.
        max_seconds: maximum duration in seconds; decoding stops there, with an error.
        channel: index of the channel to read; None averages all.
        encoding: "mulaw" or "alaw" for audio without a header; 8,000 Hz unless `source_rate` is given.
        empty: function that allocates the copy of an array that needs no conversion, float32 [samples]; None
            returns the array as it is.

    Raises:
        AudioError: the source is missing, empty, not audio, damaged, cut or too long, or has NaN or infinity.
    """
    if type(source) is np.ndarray and is_ready(source, sampling_rate, source_rate, channel):
        return Audio(_checked_whole(source, sampling_rate, max_seconds, empty))
    blocks = audio_blocks(
        source,
        sampling_rate,
        source_rate=source_rate,
        max_seconds=max_seconds,
        channel=channel,
        encoding=encoding,
    )
    # Pages that are never written cost nothing; PCM needs no second array then.
    samples, count = np.empty(min(max(blocks.size, BLOCK), _MAX_FIRST), np.float32), 0
    for block in blocks:
        end = count + len(block)
        if end > len(samples):
            # Without a second array beside it: the result may take most of the memory.
            samples.resize(max(end, len(samples) * 5 // 4), refcheck=False)
        samples[count:end] = block
        count = end
    samples.resize(count, refcheck=False)
    return Audio(samples, tuple(blocks.warnings))


def audio_blocks(
    source: Any,
    sampling_rate: int,
    *,
    source_rate: int | None = None,
    max_seconds: float | None = None,
    channel: int | None = None,
    encoding: str | None = None,
) -> "AudioBlocks":
    """Read a recording in blocks; joined, they are the samples of `load_audio`, which has the arguments.

    Raises:
        AudioError: as `load_audio`, by this call or by the block where it is found.
    """
    check_rate(sampling_rate, "the target rate")
    warnings: list[str] = []
    if is_encoded(source):
        encoded = Source(source)
        if source_rate is not None:
            check_rate(source_rate, encoded.name)
        name, size = encoded.name, encoded.size
        blocks = decode.decode(encoded, encoding, source_rate, warnings)
    else:
        array = as_array(source)
        name, rate = f"array {array.shape}", sampling_rate if source_rate is None else source_rate
        check_rate(rate, name)
        size, blocks = len(array), _array_blocks(array, rate)
    mono = to_one_channel(_limited(blocks, max_seconds, name), channel, name, warnings)
    return AudioBlocks(resample(_checked(mono, name), sampling_rate), name, size, sampling_rate, warnings)


class AudioBlocks:
    """Iterator over the blocks of a recording, float32 [samples].

    Attributes:
        warnings: list of messages about the reading, complete at the end.
        size: bytes of encoded audio, or samples of an array.
        speech: None, as all of the recording is read.
    """

    speech: None = None

    def __init__(
        self, blocks: Iterator[np.ndarray], name: str, size: int, sampling_rate: int, warnings: list[str]
    ) -> None:
        self.warnings, self.size = warnings, size
        self._blocks, self._name, self._rate, self._count = blocks, name, sampling_rate, 0

    def __iter__(self) -> "AudioBlocks":
        return self

    def __next__(self) -> np.ndarray:
        for block in self._blocks:
            if len(block):
                self._count += len(block)
                return block
        if not self._count:
            raise TooShortError(f"{self._name}: too short to resample to {self._rate} Hz")
        raise StopIteration


def count_channels(source: Any, *, encoding: str | None = None) -> int:
    """Number of channels of a recording, from its header. Raises AudioError where it cannot be opened."""
    if is_encoded(source):
        return decode.read_header(Source(source), encoding).channels
    array = as_array(source)
    return 1 if array.ndim == 1 else array.shape[1]


def estimated_seconds(
    source: Any, sampling_rate: int, *, source_rate: int | None = None, encoding: str | None = None
) -> float:
    """Estimate a recording's duration without decoding it: by its header, else by its size.

    Args:
        source, source_rate, encoding: as of `load_audio`.
        sampling_rate: rate in Hz of an array without one of its own.

    Raises:
        AudioError: the recording cannot be opened.
    """
    if not is_encoded(source):
        return len(as_array(source)) / (source_rate or sampling_rate)
    encoded = Source(source)
    seconds = decode.read_header(encoded, encoding, source_rate).seconds
    return encoded.size / _BYTES_PER_SECOND if seconds is None else seconds


def is_ready(array: np.ndarray, sampling_rate: int, source_rate: int | None, channel: int | None) -> bool:
    """Check whether an array needs no conversion: one float32 channel at the rate of the result."""
    return (
        array.ndim == 1
        and array.dtype == np.float32
        and not channel
        and (source_rate is None or (type(source_rate) is int and source_rate == sampling_rate))
    )


def _checked_whole(
    samples: np.ndarray, rate: int, max_seconds: float | None, empty: Callable[[int], np.ndarray] | None
) -> np.ndarray:
    """Samples that need no conversion, or a copy of them, with the checks of all others."""
    check_rate(rate, "the target rate")
    name = f"array {samples.shape}"
    for _ in _limited(iter([Block(samples, rate)] if len(samples) else []), max_seconds, name):
        result = samples if empty is None else empty(len(samples))
        for _ in _checked(_copied(samples, result, rate), name):
            pass
    return result


def _copied(samples: np.ndarray, result: np.ndarray, rate: int) -> Iterator[tuple[np.ndarray, int]]:
    """Copy samples, and yield each block of the copy while it is in the processor's cache."""
    for start in range(0, len(samples), BLOCK):
        block = result[start : start + BLOCK]
        if result is not samples:
            block[:] = samples[start : start + BLOCK]
        yield block, rate


def _array_blocks(array: np.ndarray, rate: int) -> Iterator[Block]:
    columns = array[:, None] if array.ndim == 1 else array
    size = max(BLOCK // max(columns.shape[1], 1), 1)
    for start in range(0, len(columns), size):
        yield Block(to_float(columns[start : start + size]), rate)


def _limited(blocks: Iterator[Block], max_seconds: float | None, name: str) -> Iterator[Block]:
    """Raise AudioError beyond the maximum duration, and for no samples at all."""
    before, count, current = 0.0, 0, 0  # seconds at earlier rates; samples at the current one
    for block in blocks:
        if block.rate != current:
            before, count, current = before + (count / current if current else 0), 0, block.rate
        count += len(block.samples)
        if max_seconds is not None and count > (max_seconds - before) * current:
            raise TooLongError(
                f"{name}: longer than {max_seconds:.1f} s, the most that is taken at once; split it"
            )
        yield block
    if not count:
        raise TooShortError(f"{name}: holds no samples")


def _checked(chunks: Iterator[tuple[np.ndarray, int]], name: str) -> Iterator[tuple[np.ndarray, int]]:
    """Raise AudioError for NaN, infinity and samples far beyond full scale."""
    count = 0
    for samples, rate in chunks:
        # NaN where there is one
        peak = float(max(samples.max(), -samples.min())) if len(samples) else 0.0
        if not np.isfinite(peak):
            bad = int(np.flatnonzero(~np.isfinite(samples))[0])
            raise AudioError(
                f"{name}: sample {count + bad} is {samples[bad]}; repair or re-export the recording"
            )
        if peak > MAX_PEAK:
            raise AudioError(f"{name}: samples up to {peak:.3g}; scale them to -1..1")
        count += len(samples)
        yield samples, rate
