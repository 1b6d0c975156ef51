"""Cutting of recordings of any length into windows, at their quietest places, in flat memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

_HOP_SECONDS = 0.01  # between places to cut at; energy is taken over two of them
_MIN_SHARE = 0.75  # of a window that is cut at a pause


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


def pieces(blocks: Iterable[np.ndarray], sampling_rate: int, max_seconds: float) -> Iterator[Piece]:
    """Pieces of a recording for windows of at most `max_seconds`, in the way that all families cut.

    A cut is at the quietest place in the last quarter of a window, as of `cut_at_pauses`.

    Args:
        blocks: samples float32 [samples] in a row, as of `Recordings.blocks`.
        sampling_rate: rate in Hz.
        max_seconds: maximum duration of a piece, at least 0.08.
    """
    return cut_at_pauses(blocks, sampling_rate, max_seconds, _MIN_SHARE * max_seconds)


def cut_at_pauses(
    blocks: Iterable[np.ndarray], sampling_rate: int, max_seconds: float, min_seconds: float
) -> Iterator[Piece]:
    """Cut a recording into pieces of at most `max_seconds`, which together are all of it.

    A cut is at the place with the lowest energy over 20 ms, the last of equal ones, among those that leave a
    piece of at least `min_seconds` and a rest of `max_seconds - min_seconds`. So only the last piece may be
    shorter than `min_seconds`. Cuts do not depend on the sizes of the blocks. At most one piece and the block
    behind it are in memory.

    Args:
        blocks: samples float32 [samples] in a row, as of `audio_blocks`.
        sampling_rate: rate in Hz.
        max_seconds: maximum duration of a piece, at least 0.02.
        min_seconds: minimum duration of a piece, at least half of `max_seconds` and below it by 0.02 or more.

    Raises:
        ValueError: durations out of range.
    """
    hop = round(_HOP_SECONDS * sampling_rate)
    longest, shortest = (round(seconds * sampling_rate) for seconds in (max_seconds, min_seconds))
    if hop < 1 or not longest / 2 <= shortest <= longest - 2 * hop:
        raise ValueError(
            f"min_seconds {min_seconds} must be from half of max_seconds {max_seconds} to "
            f"{2 * _HOP_SECONDS} below it, at a sampling rate of at least {round(1 / _HOP_SECONDS)} Hz"
        )
    start, remaining = 0, iter(blocks)
    kept, count = list[np.ndarray](), 0
    lookahead = 2 * longest - shortest
    is_open = True
    while is_open or count:
        while is_open and count <= lookahead:
            if (block := next(remaining, None)) is None:
                is_open = False
                break
            kept.append(block)
            count += len(block)
        joined = kept[0] if len(kept) == 1 else np.concatenate(kept or [np.empty(0, np.float32)])
        end = count
        if count > longest:
            latest = max(min(longest, count - (longest - shortest)), shortest)
            end = _quietest(joined, shortest, latest, hop)
        if end:
            yield Piece(start, joined[:end].astype(np.float32))
        start, count, kept = start + end, count - end, [joined[end:]]


def _quietest(samples: np.ndarray, earliest: int, latest: int, hop: int) -> int:
    """Place from `earliest` to `latest` with the lowest energy over two hops, the last of equal ones."""
    hops = (latest - earliest) // hop
    begin = earliest - hop
    span = samples[begin : begin + (hops + 2) * hop].astype(np.float64)
    energy = np.square(span).reshape(hops + 2, hop).sum(1)
    around = energy[:-1] + energy[1:]  # place i is between hops i and i + 1
    return earliest + hop * int(len(around) - 1 - np.argmin(around[::-1]))
