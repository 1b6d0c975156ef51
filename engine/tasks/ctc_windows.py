"""Session of a recording that a CTC model reads in overlapping windows, each frame in the middle of one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from ...scheduler.request import RequestOutput
from ..audio.reader import AudioBlocks, AudioError
from ..audio.segments import Piece
from ..audio.speech import SpeechBlocks
from ..outputs import Span
from ..session import PartsInOrder, Session, SessionRequest


@dataclass(frozen=True, slots=True)
class Frames:
    """Best path of a CTC model over frames in a row.

    Attributes:
        token_ids: int32 [frames], repeats and blanks included.
        log_probabilities: float32 [frames], of these.
    """

    token_ids: np.ndarray
    log_probabilities: np.ndarray

    @classmethod
    def of(cls, output: RequestOutput) -> "Frames":
        """Frames of a request's output."""
        assert output.predictions is not None  # it has succeeded
        token_ids = output.predictions["token_ids"].numpy().astype(np.int32)
        return cls(token_ids, output.predictions["log_probabilities"].float().numpy())

    @classmethod
    def joined(cls, several: Iterable["Frames"]) -> "Frames":
        """Frames of several paths, one behind the other."""
        paths = [(one.token_ids, one.log_probabilities) for one in several]
        token_ids, log_probabilities = (np.concatenate(part) for part in zip(*paths, strict=True))
        return cls(token_ids, log_probabilities)

    def __len__(self) -> int:
        return len(self.token_ids)

    def __getitem__(self, span: slice) -> "Frames":
        return Frames(self.token_ids[span], self.log_probabilities[span])


@dataclass(frozen=True, slots=True)
class Section:
    """Section of a path that is decoded: whole words, or all of a recording.

    Attributes:
        frames: its frames.
        text: its text.
        words, characters: these with times in the recording.
    """

    frames: Frames
    text: str
    words: tuple[Span, ...]
    characters: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """Windows of a recording, and the frames that each of them has to give.

    Windows begin at multiples of the model's step, so that their frames are at the places of those of the
    whole recording. A frame is taken from the window in whose middle the samples that it reads lie.

    Attributes:
        size: samples of a window; the last may be shorter.
        step: samples from one window to the next.
        hop: samples from one frame to the next.
        receptive_field: samples that a frame reads.
    """

    size: int
    step: int
    hop: int
    receptive_field: int

    @classmethod
    def of(cls, size: int, context: float, unit: int, hop: int, receptive_field: int) -> "WindowGrid":
        """Grid of windows that overlap by about `context` of their `size` on either side.

        Args:
            unit: samples of which the start of a window is a multiple.
        """
        return cls(size, max(int(size * (1 - 2 * context)) // unit, 1) * unit, hop, receptive_field)

    def first(self, window: int) -> int:
        """First frame, counted from the recording's beginning, that is taken from a window."""
        if not window:
            return 0
        border = window * self.step + (self.size - self.step) / 2  # in the middle of the overlap
        return max(-int((self.receptive_field / 2 - border) // self.hop), 0)

    def taken(self, window: int, is_last: bool) -> slice:
        """Frames of a window, counted from its beginning, that are taken from it."""
        begin = window * self.step // self.hop
        end = None if is_last else self.first(window + 1) - begin
        return slice(self.first(window) - begin, end)


class CTCWindowSession(Session):
    """Session of a recording in overlapping windows, whose joined path is decoded in whole words.

    Args:
        blocks: blocks that the recording is read in, for warnings and for the times of speech.
        windows: windows of these, and True with the last, read as far as they are needed.
        grid: places of the windows and their frames.
        sampling_rate: rate in Hz.
        min_samples: samples of the model's shortest input.
        decode: function that decodes frames, given the number of the first of them.
        delimiter: token id between words; without one, None, the path is decoded at once.
    """

    def __init__(
        self,
        blocks: AudioBlocks | SpeechBlocks,
        windows: Iterable[tuple[Piece, bool]],
        grid: WindowGrid,
        sampling_rate: int,
        min_samples: int,
        decode: Callable[[Frames, int], Section],
        delimiter: int | None,
    ) -> None:
        self._blocks, self.speech = blocks, blocks.speech
        self._windows, self._grid, self._rate = iter(windows), grid, sampling_rate
        self._min_samples, self._decode, self._delimiter = min_samples, decode, delimiter
        self._results = PartsInOrder[Frames]()
        self._last: int | None = None  # number of the last window, once it has begun
        self._kept = list[Frames]()  # of a word that may go on
        self._decoded = 0  # number of frames before these

    @property
    def is_complete(self) -> bool:
        """True once all windows have ended."""
        return self._last is not None and not self._results.is_open

    def next_request(self) -> SessionRequest | None:
        """Request for the next window; None behind the last."""
        if self._last is not None:
            return None
        piece, is_last = next(self._windows)
        self.warnings = tuple(self._blocks.warnings)
        if len(piece.samples) < self._min_samples:
            raise AudioError("the recording has become shorter while it was read; leave it alone meanwhile")
        key = self._results.begin()
        if is_last:
            self._last = key
        self.duration = piece.end / self._rate
        seconds = len(piece.samples) / self._rate
        return SessionRequest(key, torch.from_numpy(piece.samples), None, duration=seconds)

    def receive(self, key: int, output: RequestOutput) -> list[Section]:
        """Take the path of a window; returns the words that are complete by it."""
        self._results.add(key, Frames.of(output)[self._grid.taken(key, key == self._last)])
        self._results.end(key)
        new = self._results.take()
        if not new:
            return []
        kept = Frames.joined([*self._kept, *new])
        end = len(kept) if self.is_complete else self._last_delimiter(kept.token_ids)
        self._kept = [kept[end:]]
        if not end and not self.is_complete:
            return []
        section = self._decode(kept[:end], self._decoded)
        self._decoded += end
        return [section]

    def _last_delimiter(self, token_ids: np.ndarray) -> int:
        """First frame of the last delimiter between words; 0 where there is none."""
        if self._delimiter is None:
            return 0
        found = np.flatnonzero(token_ids == self._delimiter)
        if not len(found):
            return 0
        gaps = np.flatnonzero(np.diff(found) > 1)
        return int(found[gaps[-1] + 1 if len(gaps) else 0])
