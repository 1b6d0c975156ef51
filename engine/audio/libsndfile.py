"""Decoding by libsndfile: WAV, FLAC, Ogg, AIFF, CAF and more."""

from collections.abc import Iterator
from functools import cache
from typing import Any, BinaryIO

import numpy as np

from .blocks import BLOCK, Block, Header, check_channels, check_rate
from .errors import COPY_AGAIN, AudioError
from .packages import package

# Encodings whose decoders print about damage: libmpg123 to standard error, ALAC's to standard output.
_NOISY = ("MPEG", "ALAC")


class UnsupportedError(Exception):
    """Error for a file that libsndfile does not open."""


@cache
def _sequential_file() -> Any:
    """Class of files that are read from start to end.

    As a file that can seek, one would be moved to where it already is after each block, which FLAC pays for
    by a search, and would be read up to its header's number of samples only.
    """

    class SequentialFile(_soundfile().SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    return SequentialFile


def decode(file: BinaryIO | int, name: str, limit: int | None = None) -> Iterator[Block]:
    """Decode a file, or a file descriptor, from its position to its end, or a limited number of samples.

    Raises:
        UnsupportedError: not a format that libsndfile reads; raised before the first block.
        AudioError: damaged, or cut.
    """
    with _open(file) as sound:
        check_rate(sound.samplerate, name)
        check_channels(sound.channels, name)
        declared, rate, count = sound.frames, sound.samplerate, 0
        for samples in _blocks(sound, name, limit):
            count += len(samples)
            yield Block(samples, rate)
    if count < declared < 1 << 62:
        raise AudioError(f"{name}: cut short: {count} of {declared} samples are there; {COPY_AGAIN}")


def read_header(file: BinaryIO | int) -> Header:
    """Header of a file. Raises UnsupportedError for one that libsndfile does not open."""
    with _open(file) as sound:
        seconds = sound.frames / sound.samplerate if 0 < sound.frames < 1 << 62 else None
        return Header(int(sound.channels), seconds)


def _soundfile() -> Any:
    return package("soundfile", "reading this recording")


def _open(file: BinaryIO | int) -> Any:
    file_class = _sequential_file()
    try:
        sound = file_class(file, closefd=False) if isinstance(file, int) else file_class(file)
    except (TypeError, _soundfile().SoundFileError) as error:
        raise UnsupportedError(_reason(error)) from error
    if sound.subtype.startswith(_NOISY):
        sound.close()
        raise UnsupportedError(sound.subtype)
    return sound


def _blocks(sound: Any, name: str, limit: int | None) -> Iterator[np.ndarray]:
    # In blocks, not by the header's number of samples: headers lie, and the array is allocated first.
    size, count = max(BLOCK // sound.channels, 1), 0
    try:
        while limit is None or count < limit:
            block = sound.read(min(size, (limit or count + size) - count), dtype="float32", always_2d=True)
            if not len(block):
                return
            count += len(block)
            yield block
    except _soundfile().SoundFileError as error:
        there = f"behind {count / sound.samplerate:.1f} s"
        raise AudioError(f"{name}: damaged {there} ({_reason(error)}); {COPY_AGAIN}") from error


def _reason(error: Any) -> str:
    return str(getattr(error, "error_string", error)).rstrip(".")
