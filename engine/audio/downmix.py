"""Downmix to one channel: the mean of all channels, without those that cancel each other.

One channel recorded with the wrong polarity silences the mean. So energies are compared window by window:
where two channels, or all of them together, have far less energy than each alone, the louder one is taken.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from .blocks import BLOCK, Block
from .errors import AudioError

_WINDOW = 0.25  # seconds
# Energy of a sum, as a share of the summed energies: 2 for two equal channels, 1 for uncorrelated ones, 1/5
# where one is the other's half with the opposite sign.
_CANCELS = 0.25
_SILENCE = 1e-10  # mean square (full scale is 1) below which a window says nothing about its channels

_Kept = tuple[int, ...]  # indices of the channels of the mean


def to_one_channel(
    blocks: Iterator[Block], channel: int | None, name: str, warnings: list[str]
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield float32 [samples] and their rate in Hz: one channel, or the mean where `channel` is None.

    Raises:
        AudioError: there is no such channel.
    """
    mixer: _Mixer | None = None
    for samples, rate in blocks:
        channels = samples.shape[1]
        if channel is not None and not 0 <= channel < channels:
            raise AudioError(
                f"{name}: channel {channel} is asked for, and it has {channels} (counted from 0)"
            )
        if mixer is not None and (channels, rate) != (mixer.channels, mixer.rate):
            yield mixer.finish(warnings), mixer.rate
            mixer = None
        if channel is not None or channels == 1:
            yield samples[:, channel or 0], rate
            continue
        mixer = mixer or _Mixer(channels, rate)
        yield mixer.push(samples), rate
    if mixer is not None:
        yield mixer.finish(warnings), mixer.rate


class _Mixer:
    """Downmix of a stream; its result depends on the position of samples, not on the size of blocks."""

    def __init__(self, channels: int, rate: int) -> None:
        self.channels, self.rate = channels, rate
        self._all: _Kept = tuple(range(channels))
        self._kept = self._all
        self._window = min(max(int(_WINDOW * rate), 1), BLOCK)
        self._rest = np.empty((0, channels), np.float32)  # less than a window
        self._samples = 0
        self._left_out: dict[_Kept, int] = {}  # samples for which only these channels were kept

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Mix the whole windows that are there now."""
        if len(self._rest):
            samples = np.concatenate([self._rest, samples])
        whole = len(samples) - len(samples) % self._window
        self._rest = samples[whole:].copy()
        return self._mix(samples[:whole], self._window)

    def finish(self, warnings: list[str]) -> np.ndarray:
        """Mix the rest, and add a warning if channels were left out."""
        mixed = self._mix(self._rest, len(self._rest))
        for kept, samples in self._left_out.items():
            there = f"{samples / self.rate:.1f} of {self._samples / self.rate:.1f} s"
            if len(kept) == 1:
                choice = f"channel {kept[0]} (counted from 0), the louder one, was taken there"
            else:
                out = " ".join(str(channel) for channel in self._all if channel not in kept)
                choice = f"channel {out} (counted from 0) was left out there"
            warnings.append(f"its channels cancel each other in {there}; {choice}")
        return mixed

    def _mix(self, samples: np.ndarray, window: int) -> np.ndarray:
        self._samples += len(samples)
        if not len(samples):
            return np.empty(0, np.float32)
        columns = np.ascontiguousarray(samples.T)
        mixed = _mean(columns)
        for index, gram in enumerate(_grams(columns.reshape(self.channels, -1, window))):
            self._choose(gram, window)
            if self._kept != self._all:
                part = slice(index * window, (index + 1) * window)
                mixed[part] = _mean(columns[list(self._kept), part])
                self._left_out[self._kept] = self._left_out.get(self._kept, 0) + window
        return mixed

    def _choose(self, gram: np.ndarray, window: int) -> None:
        """Choose the channels of a window by their products [channels, channels]; silence changes nothing."""
        energies = gram.diagonal()
        if not energies.max() > _SILENCE * window:  # NaN too, which is refused later
            return
        kept = list(self._all)
        while (pair := _cancelling_pair(gram, kept)) is not None:
            # The one that was left out before stays out, or the polarity would change in between.
            left_out = [channel for channel in pair if channel not in self._kept]
            louder = _loudest(energies, pair)
            kept.remove(left_out[0] if len(left_out) == 1 else pair[pair[0] == louder])
        if gram[np.ix_(kept, kept)].sum() < _CANCELS * energies[kept].sum():
            kept = [_loudest(energies, kept)]
        self._kept = tuple(kept)


def _loudest(energies: np.ndarray, channels: Sequence[int]) -> int:
    """Channel with the most energy; the first one of those that differ by rounding only."""
    most = max(energies[channel] for channel in channels)
    return next(channel for channel in channels if energies[channel] >= 0.999 * most)


def _mean(columns: np.ndarray) -> np.ndarray:
    """Mean of [channels, samples], added in the order of the channels."""
    if len(columns) == 1:
        return columns[0].copy()
    total = columns[0] + columns[1]
    for column in columns[2:]:
        total += column
    total /= len(columns)
    return total


def _grams(windows: np.ndarray) -> np.ndarray:
    """Products of the channels in each window: [channels, windows, samples] to [windows, channels, channels].

    The mean of a window is taken off first: a constant is no sound.
    """
    centered = (windows - windows.mean(axis=2, keepdims=True)).transpose(1, 0, 2)
    return centered @ centered.transpose(0, 2, 1)


def _cancelling_pair(gram: np.ndarray, kept: list[int]) -> tuple[int, int] | None:
    """Pair of channels whose sum has the smallest share of their energies; None where none cancels."""
    worst, pair = _CANCELS, None
    for index, first in enumerate(kept):
        for second in kept[index + 1 :]:
            energy = gram[first, first] + gram[second, second]
            share = (energy + 2 * gram[first, second]) / energy if energy > 0 else 1.0
            if share < worst:
                worst, pair = share, (first, second)
    return pair
