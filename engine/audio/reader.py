"""Audio reading: a file or array to one float32 channel at the model's sampling rate.

Files are decoded by libsndfile (WAV, FLAC, OGG Vorbis, Opus, MP3, AIFF and more) and resampled by soxr.
torch is not imported here: an array is tested for being a tensor only if the caller has imported torch.
"""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from .paths import path_problem

AUDIO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("wav", "wave", "w64", "rf64", "flac", "ogg", "oga", "opus", "mp3"),
        *("aif", "aiff", "aifc", "au", "snd", "caf", "sph", "nist"),
        # libsndfile cannot read these: a failure with a remedy is better than a recording silently skipped.
        *("m4a", "aac", "mp4", "wma", "webm", "amr"),
    )
)
# Hz. Beyond, a header is wrong, and resampling could take any memory.
MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_PEAK = 1e6  # full scale is 1; beyond, the filter bank's powers overflow float32
BLOCK = 1 << 16  # frames decoded at a time

# A size in a WAV header from here on is a placeholder of a writer that cannot seek back: ffmpeg or sox into a
# pipe, arecord.
_UNKNOWN_SIZE = 0x7FFF_0000
_CHUNK_BEYOND_THE_FILE = re.compile(r"^(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_OGG_WITHOUT_END = "Last page lacks an end-of-stream bit"


class AudioError(ValueError):
    """Error for an unusable recording; the message gives its name, the problem and the remedy."""


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
) -> Audio:
    """Read a recording as one channel at `sampling_rate` Hz.

    Channels are averaged; rates are converted by soxr at its high quality.

    Args:
        source: path, or numpy array or torch tensor [samples] or [samples, channels]. Integers are PCM,
            scaled to -1..1.
        sampling_rate: rate of the result in Hz.
        source_rate: rate of an array in Hz; `sampling_rate` by default.
        max_seconds: maximum duration in seconds; decoding stops there, with an error.
        channel: index of the channel to read; None averages all.

    Raises:
        AudioError: the source is missing, empty, not audio, truncated or too long, or holds NaN or
            infinity. A truncated MP3 without a length in its header is not detected, and read to its end.
    """
    _check_rate(sampling_rate, "the target rate")
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        samples, rate = _decode(name, max_seconds, channel)
    else:
        samples, rate = as_samples(source), source_rate if source_rate is not None else sampling_rate
        name = f"array {samples.shape}"
        _check_rate(rate, name)
        samples = _one_channel(samples, channel, name)
        if max_seconds is not None and len(samples) > max_seconds * rate:
            raise _too_long(name, max_seconds)
    if not len(samples):
        raise AudioError(f"{name}: holds no samples; record it again, or leave it out")
    _check_samples(samples, name)
    if rate != sampling_rate:
        samples = soxr.resample(samples, rate, sampling_rate, quality="HQ")
        if not len(samples):
            raise AudioError(f"{name}: too short to resample from {rate} to {sampling_rate} Hz; leave it out")
    return Audio(np.ascontiguousarray(samples, dtype=np.float32))


def count_channels(source: Any) -> int:
    """Number of channels of a recording, from its header. Raises AudioError where it cannot be opened."""
    if not isinstance(source, str | os.PathLike):
        samples = as_samples(source)
        return 1 if samples.ndim == 1 else samples.shape[1]
    name = os.fspath(source)
    _check_file(name)
    try:
        with soundfile.SoundFile(os.fsencode(name)) as file:
            return int(file.channels)
    except (TypeError, soundfile.SoundFileError) as error:
        raise AudioError(
            f"{name}: damaged, or not audio ({error}); convert it: ffmpeg -i IN out.wav"
        ) from error


def as_samples(source: Any) -> np.ndarray:
    """Copy a numpy array or torch tensor to float32 [samples] or [samples, channels].

    Raises:
        AudioError: an unsupported type, not 1 or 2 dimensions, or channels before samples.
    """
    if (torch := sys.modules.get("torch")) is not None and isinstance(source, torch.Tensor):
        tensor = source.detach().cpu()
        source = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if not isinstance(source, np.ndarray):
        raise AudioError(
            f"cannot read audio from {type(source).__name__}; "
            "pass a path, a numpy array or a torch tensor of samples"
        )
    if source.ndim not in (1, 2):
        raise AudioError(
            f"array {source.shape}: has {source.ndim} dimensions; pass [samples] or [samples, channels]"
        )
    if source.ndim == 2 and 0 < source.shape[0] < source.shape[1]:
        raise AudioError(
            f"array {source.shape}: reads as {source.shape[1]} channels of {source.shape[0]} samples; "
            "pass [samples, channels], for instance array.T"
        )
    if np.issubdtype(source.dtype, np.floating):
        with np.errstate(over="ignore"):
            return np.array(source, dtype=np.float32)
    if source.dtype == np.uint8:  # the one unsigned PCM: silence is 128
        return (source.astype(np.float32) - 128) / 128
    if source.dtype in (np.int8, np.int16, np.int32):
        return source.astype(np.float32) / -float(np.iinfo(source.dtype).min)
    raise AudioError(
        f"array {source.shape}: samples of type {source.dtype}; "
        "pass floats in -1..1, or int16, int32 or uint8 PCM"
    )


def _decode(name: str, max_seconds: float | None, channel: int | None) -> tuple[np.ndarray, int]:
    """Decode one file to float32 [samples], one channel, and return it with its sampling rate in Hz."""
    _check_file(name)
    try:
        with soundfile.SoundFile(os.fsencode(name)) as file:
            _check_rate(file.samplerate, name)
            limit = None if max_seconds is None else max_seconds * file.samplerate
            blocks, count = [], 0
            for block in _blocks(file):
                count += len(block)
                if limit is not None and count > limit:
                    raise _too_long(name, max_seconds)
                blocks.append(_one_channel(block, channel, name))
            _check_whole(file, name)
            return (np.concatenate(blocks) if blocks else np.empty(0, np.float32)), file.samplerate
    except TypeError as error:  # soundfile takes .raw for headerless PCM and asks for the missing numbers
        raise AudioError(
            f"{name}: headerless audio; convert it: ffmpeg -f s16le -ar RATE -i IN out.wav"
        ) from error
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise AudioError(
            f"{name}: damaged, or not audio that libsndfile {soundfile.__libsndfile_version__} reads "
            f"({reason}); convert it: ffmpeg -i IN out.wav"
        ) from error


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    # In blocks, not by the header's number of frames: headers lie, and the array is allocated first.
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        yield block


def _one_channel(samples: np.ndarray, channel: int | None, name: str) -> np.ndarray:
    """Average the channels, or take one: [samples] or [samples, channels] to [samples]."""
    columns = samples[:, None] if samples.ndim == 1 else samples
    if channel is None:
        return columns[:, 0] if columns.shape[1] == 1 else columns.mean(axis=1, dtype=np.float32)
    if not 0 <= channel < columns.shape[1]:
        raise AudioError(
            f"{name}: channel {channel} is asked for, and it has {columns.shape[1]} (counted from 0)"
        )
    return columns[:, channel]


def _check_file(name: str) -> None:
    path = Path(name)
    try:
        if path.is_dir():
            raise AudioError(f"{name}: is a folder; name its recordings (find_audio lists them)")
        if path.exists() and not path.is_file():
            raise AudioError(f"{name}: is a pipe or device; write it to a file first")
        with path.open("rb") as file:
            if not file.read(1):
                raise AudioError(f"{name}: is empty (0 bytes); copy or record it again")
    except AudioError:
        raise
    except (OSError, ValueError) as error:
        raise AudioError(path_problem(name, error)) from error


def _check_whole(file: soundfile.SoundFile, name: str) -> None:
    # libsndfile reports a cut file in its log alone.
    log = file.extra_info
    remedy = "copy it again, or keep what is there: ffmpeg -i IN out.wav"
    for declared, present in _CHUNK_BEYOND_THE_FILE.findall(log):
        if int(declared) > int(present) and int(declared) < _UNKNOWN_SIZE:
            raise AudioError(f"{name}: cut short: {present} of {declared} bytes of audio are there; {remedy}")
    if _OGG_WITHOUT_END in log:
        raise AudioError(f"{name}: cut short: its last page is missing; {remedy}")


def _check_rate(rate: int, name: str) -> None:
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer) or not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"{name}: sampling rate {rate!r}; it must be a whole number from {MIN_RATE} to {MAX_RATE} Hz"
        )


def _check_samples(samples: np.ndarray, name: str) -> None:
    peak = float(np.abs(samples).max())  # NaN when there is one
    if not np.isfinite(peak):
        bad = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise AudioError(f"{name}: sample {bad} is {samples[bad]}; repair or re-export the recording")
    if peak > MAX_PEAK:
        raise AudioError(f"{name}: samples up to {peak:.3g}; scale them to -1..1")


def _too_long(name: str, max_seconds: float | None) -> AudioError:
    return AudioError(f"{name}: longer than {max_seconds:.1f} s, the most that is taken at once; split it")
