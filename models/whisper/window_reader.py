"""Windows of long recordings, read block by block: their maximum, and the samples of each window.

The floor of Whisper's features depends on the maximum of the whole recording, so that a file is read twice:
once for the maximum, once for the windows. A stream that cannot seek has the maximum of the part read so far
in its place; its features differ from those of a file where a louder part follows.

    level = measure(audio_blocks("a.flac", 16_000), extractor)
    reader = WindowReader(audio_blocks("a.flac", 16_000), extractor, level.maximum)
    part = reader.window(0)
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...kernels.features.log_mel import FRAME, SILENCE, Excerpt, log_mel_maxima
from ...kernels.runtime.packing import cumulative
from ...scheduler.request import AudioExcerpt
from .feature_extractor import WhisperFeatureExtractor

_HALF = FRAME // 2


@dataclass(frozen=True, slots=True)
class Level:
    """Maximum of a recording's features before scaling, decimal logarithms, and its number of samples."""

    maximum: float
    samples: int


def measure(
    blocks: Iterable[np.ndarray | Tensor],
    extractor: WhisperFeatureExtractor,
    device: torch.device | str = "cpu",
) -> Level:
    """Maximum of a whole recording, equal to the bit to that of one computation, in flat memory.

    Args:
        blocks: samples float32 [samples] in a row, as of `audio_blocks`.
        extractor: feature extractor of the model.
        device: device that computes it, that of the model.
    """
    reader = WindowReader(blocks, extractor, device=device)
    frame = 0
    while (part := reader.window(frame)) is not None:
        frame += part.excerpt.frames
    return Level(reader.maximum, reader.end)


class WindowReader:
    """Reader of a recording's windows, in rising order, which keeps no block that lies behind.

    Args:
        blocks: samples float32 [samples] in a row, as of `audio_blocks`; a waveform in memory is one block.
        extractor: feature extractor of the model.
        maximum: maximum of the recording, as of `measure`; None for that of the frames read so far.
        device: device that computes the running maximum, that of the model.

    Attributes:
        end: samples read so far, at the end those of the recording.
        maximum: maximum given, or of the frames read so far.
    """

    def __init__(
        self,
        blocks: Iterable[np.ndarray | Tensor],
        extractor: WhisperFeatureExtractor,
        maximum: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.end = 0
        self.maximum = SILENCE if maximum is None else maximum
        self._running = maximum is None
        self._blocks, self._extractor, self._device = iter(blocks), extractor, torch.device(device)
        self._kept: list[Tensor] = []  # samples from `_start` to `end`
        self._start = 0
        self._first = 0  # frame of the window before
        self._measured = 0  # frames that the running maximum has seen

    def window(self, first: int, frames: int | None = None) -> AudioExcerpt | None:
        """Window from frame `first` on, as the input of a request; None at the recording's end.

        Rows after the recording's last frame are 0, as where transformers cuts long features.

        Args:
            first: first frame, not below that of the window before.
            frames: frames of the window; None for `nb_max_frames`.

        Raises:
            ValueError: frames that were left behind.
        """
        rows = self._extractor.nb_max_frames if frames is None else frames
        hop = self._extractor.hop_length
        if first < self._first:
            raise ValueError(f"frame {first} lies before the last window's {self._first}; windows must rise")
        self._first = first
        needed = (first + rows) * hop + _HALF
        self._read_to(needed)
        present = rows if self.end >= needed else min(self.end // hop - first, rows)
        if present <= 0:
            return None
        if self._running:
            self._measure(first + present)
        self._drop(first * hop - _HALF)
        excerpt = Excerpt(present, rows, self._context(first), maximum=self.maximum, fill=0.0)
        return AudioExcerpt(self._samples(first, present), excerpt)

    def _read_to(self, sample: int) -> None:
        while self.end < sample:
            block = next(self._blocks, None)
            if block is None:
                return
            self._kept.append(torch.as_tensor(block))
            self.end += len(block)

    def _measure(self, stop: int) -> None:
        """Raise the running maximum to that of the frames before `stop`."""
        first = self._measured
        if stop <= first:
            return
        samples = self._samples(first, stop - first).to(self._device)
        excerpt = Excerpt(stop - first, stop - first, self._context(first))
        cu_samples = cumulative([len(samples)], self._device)
        found = float(log_mel_maxima(samples, cu_samples, [excerpt], self._extractor.options))
        self.maximum, self._measured = max(self.maximum, found), stop

    def _context(self, first: int) -> int:
        """Samples before a frame's center that come along: half a frame, or all from the start."""
        return min(first * self._extractor.hop_length, _HALF)

    def _samples(self, first: int, frames: int) -> Tensor:
        """Samples of frames, with context on both sides."""
        hop = self._extractor.hop_length
        begin = first * hop - self._context(first)
        end = min((first + frames) * hop + _HALF, self.end)
        parts, start = [], self._start
        for block in self._kept:
            if begin < start + len(block) and start < end:
                parts.append(block[max(begin - start, 0) : end - start])
            start += len(block)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _drop(self, sample: int) -> None:
        """Release the blocks that end before `sample`."""
        while self._kept and self._start + len(self._kept[0]) <= sample:
            self._start += len(self._kept.pop(0))
