"""Speech of recordings: its spans from a detector's probabilities, its samples joined, and their times."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..openmp import one_core
from .reader import AudioBlocks
from .segments import Piece
from .vad import SileroVad, load_vad

_GROUP = 128  # chunks of one call of the detector, 4 s

Range = tuple[int, int]  # first sample, and the one behind the last


@dataclass(frozen=True, slots=True)
class VadOptions:
    """Options of speech spans, with the names of Silero's and faster-whisper's, and the latter's defaults.

    A span has no maximum duration: windows of long ones are cut at their quietest places.

    Attributes:
        threshold: probability from which on a chunk is speech.
        neg_threshold: probability below which a span can end; None for 0.15 below `threshold`.
        min_speech_duration_ms: shorter spans are dropped, in milliseconds.
        min_silence_duration_ms: shorter pauses are part of their span.
        speech_pad_ms: audio that is kept before and behind a span.
    """

    threshold: float = 0.5
    neg_threshold: float | None = None
    min_speech_duration_ms: int = 0
    min_silence_duration_ms: int = 2000
    speech_pad_ms: int = 400

    @property
    def exit_threshold(self) -> float:
        """Probability below which a span can end."""
        return max(self.threshold - 0.15, 0.01) if self.neg_threshold is None else self.neg_threshold


class SpeechSpans:
    """Spans of speech in a recording, from probabilities that come bit by bit.

    Their ranges of samples are those of Silero's `get_speech_timestamps`. A range is returned once it is
    certain, so that a long span comes in several that follow each other without a gap.

    Args:
        options: thresholds and durations.
        sampling_rate: rate in Hz.
        chunk: samples of a chunk.
    """

    def __init__(self, options: VadOptions, sampling_rate: int, chunk: int) -> None:
        def samples(milliseconds: float) -> int:
            return round(sampling_rate * milliseconds / 1000)

        self._enter, self._exit, self._chunk = options.threshold, options.exit_threshold, chunk
        self._min_speech = samples(options.min_speech_duration_ms)
        self._min_silence = samples(options.min_silence_duration_ms)
        self._pad = samples(options.speech_pad_ms)
        self._now = 0  # first sample of the next chunk
        self._start: int | None = None  # of the open span
        self._silence: int | None = None  # start of a pause in it
        self._returned: int | None = None  # end of the part of it that has been returned, with its pad
        self._tail: int | None = None  # end of the last span, while the pad behind it is open
        self._ranges: list[Range] = []

    @property
    def needed(self) -> int:
        """First sample that a later range may have."""
        if self._returned is not None:
            return self._returned
        if self._tail is not None:
            return self._tail
        return max((self._now if self._start is None else self._start) - self._pad, 0)

    def add(self, probabilities: Sequence[float]) -> list[Range]:
        """Ranges that are certain by the probabilities of the next chunks."""
        for probability in probabilities:
            if probability >= self._enter:
                self._silence = None
                if self._start is None:
                    self._start = self._now
            elif probability < self._exit and self._start is not None:
                if self._silence is None:
                    self._silence = self._now
                if self._now - self._silence >= self._min_silence:
                    self._close(self._silence)
            self._now += self._chunk
        if self._start is not None:
            # The last chunk is left out: the recording may end in it, and the span before the minimum.
            self._extend(self._now - self._chunk if self._silence is None else self._silence)
        if self._returned is None:
            self._close_tail(self._now if self._start is None else self._start)
        return self._take()

    def finish(self, samples: int) -> list[Range]:
        """Ranges that are left at the end of a recording of so many samples."""
        if self._start is not None:
            self._close(samples)
        if self._tail is not None:
            self._return(self._tail, min(self._tail + self._pad, samples))
        return self._take()

    def _close(self, end: int) -> None:
        """End the open span."""
        self._extend(end)
        if self._returned is not None:
            self._tail = end
        self._start = self._silence = self._returned = None

    def _extend(self, end: int) -> None:
        """Return the open span up to `end`, if that makes it long enough."""
        assert self._start is not None
        if self._returned is None:
            if end - self._start <= self._min_speech:
                return
            self._close_tail(self._start)
            if self._tail is None:
                begin = max(self._start - self._pad, 0)
            else:  # two pads do not fit between the spans
                begin = self._tail + (self._start - self._tail) // 2
                self._return(self._tail, begin)
                self._tail = None
            self._returned = begin
        self._return(self._returned, end)
        self._returned = max(end, self._returned)

    def _close_tail(self, start: int) -> None:
        """Return the pad behind the last span where the next one starts at `start` or later."""
        if self._tail is not None and start - self._tail >= 2 * self._pad:
            self._return(self._tail, self._tail + self._pad)
            self._tail = None

    def _return(self, start: int, end: int) -> None:
        if end > start:
            self._ranges.append((start, end))

    def _take(self) -> list[Range]:
        ranges, self._ranges = self._ranges, []
        return ranges


class SpeechTimes:
    """Map from times of the speech of a recording, joined, to times of the recording.

    Args:
        sampling_rate: rate in Hz.
        pad: seconds of audio around speech that are kept with it.

    Attributes:
        samples: samples of the recording that have been read.
    """

    def __init__(self, sampling_rate: int, pad: float) -> None:
        self.samples = 0
        self._rate, self._pad = sampling_rate, pad
        self._starts, self._ends = list[float](), list[float]()  # of spans, in seconds of the recording
        self._joined = list[float]()  # starts, in seconds of joined speech
        self._count = 0

    def add(self, start: int, end: int) -> None:
        """Append a range of samples that is kept, which may go on from the last one."""
        if self._ends and self._ends[-1] == start / self._rate:
            self._ends[-1] = end / self._rate
        else:
            self._starts.append(start / self._rate)
            self._ends.append(end / self._rate)
            self._joined.append(self._count / self._rate)
        self._count += end - start

    @property
    def spans(self) -> list[tuple[float, float]]:
        """Starts and ends of the spans that are kept, in seconds of the recording."""
        return list(zip(self._starts, self._ends, strict=True))

    @property
    def duration(self) -> float:
        """Seconds of the recording."""
        return self.samples / self._rate

    @property
    def speech_duration(self) -> float:
        """Seconds that are kept of it."""
        return self._count / self._rate

    def split(self, pieces: Iterable[Piece], min_seconds: float) -> Iterator[Piece]:
        """Pieces of joined speech, cut further between spans: each with audio that is in a row.

        Args:
            pieces: pieces in order.
            min_seconds: minimum duration of a piece. No cut leaves less, or pads alone.
        """
        shortest = math.ceil(max(min_seconds, 2 * self._pad) * self._rate)
        for piece in pieces:
            start, first = piece.start, bisect_right(self._joined, piece.start / self._rate)
            for joint in self._joined[first:]:
                cut = round(joint * self._rate)
                if cut > piece.end - shortest:
                    break
                if cut - start >= shortest:
                    yield Piece(start, piece.samples[start - piece.start : cut - piece.start].copy())
                    start = cut
            yield piece if start == piece.start else Piece(start, piece.samples[start - piece.start :].copy())

    def word(self, start: float, end: float) -> tuple[float, float]:
        """Times of a word, which is in the span of its middle."""
        if not self._starts:
            return start, end
        span = self._span((start + end) / 2)
        return self._time(start, span), self._time(end, span)

    def segment(self, start: float, end: float) -> tuple[float, float]:
        """Times of a segment, which has none of the pauses before and behind its speech.

        A time in the pad at the end of a span, or at its beginning, is that of speech in the next one, or in
        the one before, if the segment has part of that.
        """
        if not self._starts:
            return start, end
        first, last = self._span(start), max(bisect_left(self._joined, end) - 1, 0)
        if first < last and start >= self._joined[first + 1] - self._pad:
            first += 1
        if first < last and end <= self._joined[last] + self._pad:
            last -= 1
        return self._time(start, first), self._time(end, max(first, last))

    def _span(self, seconds: float) -> int:
        """Index of the span in which a time lies; that between two belongs to the later one."""
        return max(bisect_right(self._joined, seconds) - 1, 0)

    def _time(self, seconds: float, span: int) -> float:
        """Time of the recording, within a span."""
        time = self._starts[span] + (seconds - self._joined[span])
        return min(max(time, self._starts[span]), self._ends[span])


class SpeechBlocks:
    """Iterator over the speech of a recording, float32 [samples], joined, in flat memory.

    Blocks are empty where 4 s have no speech.

    Args:
        blocks: blocks of the recording, at 8,000 or 16,000 Hz.
        sampling_rate: rate in Hz.
        options: options of spans.

    Attributes:
        speech: times of the speech so far.

    Raises:
        ValueError: as `load_vad`.
    """

    def __init__(self, blocks: AudioBlocks, sampling_rate: int, options: VadOptions | None = None) -> None:
        options = options or VadOptions()
        self._recording = blocks
        self._model = load_vad(sampling_rate)
        self._spans = SpeechSpans(options, sampling_rate, self._model.chunk)
        self.speech = SpeechTimes(sampling_rate, options.speech_pad_ms / 1000)
        self._blocks = self._speech(iter(blocks))

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._blocks

    @property
    def warnings(self) -> list[str]:
        """Messages about the reading so far."""
        return self._recording.warnings

    def _speech(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        kept = _Kept()
        for samples, probabilities in _detected(blocks, self._model):
            kept.add(samples)
            self.speech.samples += len(samples)
            ranges = self._spans.add(probabilities)
            for start, end in ranges:
                self.speech.add(start, end)
                yield kept.part(start, end)
            if not ranges:
                yield np.empty(0, np.float32)  # so that a reader that is not wanted any more can stop
            kept.drop(self._spans.needed)
        for start, end in self._spans.finish(self.speech.samples):
            self.speech.add(start, end)
            yield kept.part(start, end)


def _detected(blocks: Iterable[np.ndarray], model: SileroVad) -> Iterator[tuple[np.ndarray, list[float]]]:
    """Groups of whole chunks with their probabilities; the last chunk is padded with silence for these.

    Groups are counted from the recording's beginning, so that the bits do not depend on the blocks.
    """
    size = _GROUP * model.chunk
    state, waiting, count = None, list[np.ndarray](), 0
    remaining = iter(blocks)
    is_open = True
    while is_open or count:
        while is_open and count < size:
            if (block := next(remaining, None)) is None:
                is_open = False
            else:
                waiting.append(block)
                count += len(block)
        joined = waiting[0] if len(waiting) == 1 else np.concatenate(waiting or [np.empty(0, np.float32)])
        group, rest = joined[:size], joined[size:]
        waiting, count = [rest], len(rest)
        if len(group):
            padded = np.zeros(-(-len(group) // model.chunk) * model.chunk, np.float32)
            padded[: len(group)] = group
            with torch.inference_mode(), one_core():
                probabilities, state = model(torch.from_numpy(padded)[None], state)
            yield group, probabilities[0].tolist()


class _Kept:
    """Samples of a recording from the first that is still needed to the last that has been read."""

    def __init__(self) -> None:
        self._start, self._samples = 0, np.empty(0, np.float32)

    def add(self, samples: np.ndarray) -> None:
        self._samples = np.concatenate([self._samples, samples])

    def part(self, start: int, end: int) -> np.ndarray:
        return self._samples[start - self._start : end - self._start].copy()  # which keeps no other alive

    def drop(self, before: int) -> None:
        if before > self._start:
            self._samples, self._start = self._samples[before - self._start :], before
