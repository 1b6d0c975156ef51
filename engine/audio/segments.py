"""Cutting of recordings of any length into windows, at their longest pauses, in flat memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

_HOP_SECONDS = 0.01  # of which each is quiet or not
_MIN_SHARE = 0.75  # of a window that is cut at a pause
# A hop is quiet at 25 dB below what a tenth of all hops exceed, which is speech and no single bang; or, in
# noise, at 6 dB above the quietest 20 ms.
_LOUD_QUANTILE, _QUIET_SHARE, _NOISE_FACTOR = 0.9, 3e-3, 4.0
_SILENT_PEAK = 2.0**-15  # a step of 16-bit samples


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a recording between two cuts.

    Attributes:
        start: first sample, counted from the recording's beginning.
        samples: float32 [samples], in an array of its own.
    """

    start: int
    samples: np.ndarray

    @property
    def end(self) -> int:
        """Sample behind the last."""
        return self.start + len(self.samples)


def pieces(
    blocks: Iterable[np.ndarray], sampling_rate: int, max_seconds: float, min_share: float = _MIN_SHARE
) -> Iterator[Piece]:
    """Pieces of a recording for windows of at most `max_seconds`, in the way that all families cut.

    A cut is in the longest pause of the last part of a window, as of `cut_at_pauses`.

    Args:
        blocks: samples float32 [samples] in a row, as of `Recordings.blocks`.
        sampling_rate: rate in Hz.
        max_seconds: maximum duration of a piece, at least 0.08.
        min_share: minimum duration of a piece, as a share of `max_seconds`.
    """
    return cut_at_pauses(blocks, sampling_rate, max_seconds, min_share * max_seconds)


def cut_at_pauses(
    blocks: Iterable[np.ndarray], sampling_rate: int, max_seconds: float, min_seconds: float
) -> Iterator[Piece]:
    """Cut a recording into pieces of at most `max_seconds`, which together are all of it.

    A cut is in the middle of the longest pause, the last of equal ones, among the places that leave a piece
    of at least `min_seconds`, and a rest of as much or of `max_seconds - min_seconds`. So only the last piece
    may be shorter than `min_seconds`. Cuts do not depend on the sizes of the blocks. At most one piece and
    the block behind it are in memory.

    Args:
        blocks: samples float32 [samples] in a row, as of `audio_blocks`.
        sampling_rate: rate in Hz.
        max_seconds: maximum duration of a piece.
        min_seconds: minimum duration of a piece, at least 0.02, and below `max_seconds` by 0.02 or more.

    Raises:
        ValueError: durations out of range.
    """
    hop = round(_HOP_SECONDS * sampling_rate)
    longest, shortest = (round(seconds * sampling_rate) for seconds in (max_seconds, min_seconds))
    if hop < 1 or not 2 * hop <= shortest <= longest - 2 * hop:
        raise ValueError(
            f"min_seconds {min_seconds} must be at least {2 * _HOP_SECONDS}, and that much below max_seconds "
            f"{max_seconds}, at a sampling rate of at least {round(1 / _HOP_SECONDS)} Hz"
        )
    start, remaining = 0, iter(blocks)
    kept, count = list[np.ndarray](), 0
    rest = min(shortest, longest - shortest)
    is_open = True
    while is_open or count:
        while is_open and count <= longest + rest:
            if (block := next(remaining, None)) is None:
                is_open = False
                break
            kept.append(block)
            count += len(block)
        joined = kept[0] if len(kept) == 1 else np.concatenate(kept or [np.empty(0, np.float32)])
        end = count
        if count > longest:
            end = _pause(joined, shortest, max(min(longest, count - rest), shortest), hop)
        if end:
            yield Piece(start, joined[:end].astype(np.float32))
        start, count, kept = start + end, count - end, [joined[end:]]


def overlapping(blocks: Iterable[np.ndarray], size: int, step: int) -> Iterator[tuple[Piece, bool]]:
    """Windows of `size` samples, one every `step`, and True with the last, which may be shorter.

    The last is the first that reaches the end; so it is longer than `size - step`, unless it is the only one.
    At most one window and the block behind it are in memory.
    """
    start, remaining = 0, iter(blocks)
    kept, count = list[np.ndarray](), 0
    while True:
        while count <= size and (block := next(remaining, None)) is not None:
            kept.append(block)
            count += len(block)
        joined = np.concatenate(kept or [np.empty(0, np.float32)])
        if count <= size:
            yield Piece(start, joined.astype(np.float32)), True
            return
        yield Piece(start, joined[:size].astype(np.float32)), False
        start, count, kept = start + step, count - step, [joined[step:]]


def sound_span(samples: np.ndarray, sampling_rate: int) -> tuple[int, int]:
    """First sample of a piece's sound, and the one behind its last; (0, 0) where it has none.

    No sound is a peak below the step of 16-bit samples. Otherwise only a quiet beginning and end are left
    out, by the measure by which pauses are found.

    Args:
        samples: float32 [samples].
        sampling_rate: rate in Hz.
    """
    if not len(samples) or max(samples.max(), -samples.min()) < _SILENT_PEAK:
        return 0, 0
    hop = round(_HOP_SECONDS * sampling_rate)
    padded = np.pad(samples, (0, -len(samples) % hop))
    loud = np.flatnonzero(~_quiet(_energy(padded, hop)))
    if not len(loud):
        return 0, len(samples)
    return int(loud[0]) * hop, min((int(loud[-1]) + 1) * hop, len(samples))


def _pause(samples: np.ndarray, earliest: int, latest: int, hop: int) -> int:
    """Middle of the longest pause from `earliest` to `latest`, the last of equal ones."""
    hops = (latest - earliest) // hop + 2
    begin = earliest - hop
    quiet = _quiet(_energy(samples[begin : begin + hops * hop], hop))
    edges = np.flatnonzero(np.diff(np.concatenate(([False], quiet, [False])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    last = len(starts) - 1 - int(np.argmax((ends - starts)[::-1]))
    middle = begin + hop * int(starts[last] + ends[last]) // 2
    return min(max(middle, earliest), latest)


def _energy(samples: np.ndarray, hop: int) -> np.ndarray:
    """Energy of each whole hop, float64."""
    hops = len(samples) // hop
    return np.square(samples[: hops * hop].astype(np.float64)).reshape(hops, hop).sum(1)


def _quiet(energy: np.ndarray) -> np.ndarray:
    """Hops that are quiet beside the others; among them the quietest two neighbors."""
    loud = np.quantile(energy, _LOUD_QUANTILE, method="lower")
    noise = (energy[:-1] + energy[1:]).min(initial=energy.max()) / 2
    return energy <= max(_QUIET_SHARE * loud, _NOISE_FACTOR * noise)
