"""Blocks of decoded samples, and the bounds on them."""

from typing import NamedTuple

import numpy as np

from .errors import AudioError

BLOCK = 1 << 16  # values (samples x channels) decoded at a time
MAX_CHANNELS = 64
# Hz. Beyond, a header is wrong, and resampling could take any memory.
MIN_RATE, MAX_RATE = 1_000, 768_000


class Block(NamedTuple):
    """Decoded samples, float32 [samples, channels], and their rate in Hz."""

    samples: np.ndarray
    rate: int


class Header(NamedTuple):
    """Content of a header: number of channels, and seconds of audio, None where it does not say."""

    channels: int
    seconds: float | None


def check_rate(rate: int, name: str) -> None:
    """Raise AudioError for a rate that is no whole number from 1,000 to 768,000 Hz."""
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer) or not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"{name}: sampling rate {rate!r}; it must be a whole number from {MIN_RATE} to {MAX_RATE} Hz"
        )


def check_channels(channels: int, name: str) -> None:
    """Raise AudioError for more than 64 channels."""
    if not 0 < channels <= MAX_CHANNELS:
        raise AudioError(f"{name}: {channels} channels; at most {MAX_CHANNELS} are read")
