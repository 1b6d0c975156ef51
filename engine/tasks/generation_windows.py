"""Session of a recording whose pieces, cut at pauses, are decoded independently of each other."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from ...scheduler.request import FinishReason, GenerationOptions, RequestOutput
from ..audio.reader import AudioBlocks
from ..audio.segments import Piece, sound_span
from ..audio.speech import SpeechBlocks
from ..outputs import Segment
from ..session import PartsInOrder, Session, SessionCall, SessionRequest
from .window_results import WindowResult

MIN_SHARE = 0.25  # of the longest window in the shortest piece, so that there is a long pause to cut in
_MARGIN = 0.3  # seconds of quiet that are left around a piece's sound


class PieceSession(Session):
    """Session of a recording in pieces. A piece without any sound is not decoded: its text is empty.

    Args:
        blocks: blocks that the recording is read in, for warnings and for the times of speech.
        pieces: pieces of these in order, read as far as they are decoded.
        sampling_rate: rate in Hz.
        min_seconds: duration of the model's shortest input.
        resolve: function that returns the options of a piece by its number and its duration in seconds.
        to_text: function that decodes token ids.
        special_tokens: token ids that are no part of a segment.
    """

    def __init__(
        self,
        blocks: AudioBlocks | SpeechBlocks,
        pieces: Iterable[Piece],
        sampling_rate: int,
        min_seconds: float,
        resolve: Callable[[int, float], GenerationOptions],
        to_text: Callable[[tuple[int, ...]], str],
        special_tokens: Iterable[int],
    ) -> None:
        self._blocks, self.speech = blocks, blocks.speech
        self._pieces, self._rate = iter(pieces), sampling_rate
        self._margin = round(max(_MARGIN, min_seconds) * sampling_rate)  # samples
        self._resolve, self._to_text = resolve, to_text
        self._special_tokens = frozenset(special_tokens)
        self._spans = dict[int, tuple[float, float]]()  # of pieces in progress: seconds of their sound
        self._results = PartsInOrder[WindowResult]()
        self._all_begun = False

    @property
    def is_complete(self) -> bool:
        """True once all pieces have ended."""
        return self._all_begun and not self._results.is_open

    def next_request(self) -> SessionRequest | SessionCall | None:
        """Request for the next piece, with at most 0.3 s of quiet around its sound."""
        piece = next(self._pieces, None)
        self.warnings = tuple(self._blocks.warnings)
        if piece is None:
            self._all_begun = True
            return None
        key = self._results.begin()
        self.duration = piece.end / self._rate
        first, last = sound_span(piece.samples, self._rate)
        if first == last:
            return SessionCall(key, lambda: None)
        self._spans[key] = (piece.start + first) / self._rate, (piece.start + last) / self._rate
        samples = piece.samples[max(first - self._margin, 0) : last + self._margin]
        duration = len(samples) / self._rate
        options = self._resolve(key, duration)
        return SessionRequest(key, torch.from_numpy(samples), options, duration=duration)

    def receive(self, key: int, output: RequestOutput | None) -> list[WindowResult]:
        """Take the result of a piece; returns those that none is missing before."""
        self._results.add(key, WindowResult("") if output is None else self._result(key, output))
        self._results.end(key)
        return self._results.take()

    def _result(self, key: int, output: RequestOutput) -> WindowResult:
        """Result of a piece that has been decoded: one segment, or none where it has no text."""
        start, end = self._spans.pop(key)
        if output.finish_reason is FinishReason.LENGTH:
            self.finish_reason = FinishReason.LENGTH
        best = output.hypotheses[0]
        text = self._to_text(best.token_ids).strip()
        generated, log_probs = best.token_ids[1:], best.token_log_probs  # behind the start token
        kept = [place for place, token in enumerate(generated) if token not in self._special_tokens]
        segment = Segment(text, start, end, tuple(generated[place] for place in kept), best.score)
        if log_probs is not None:
            segment = replace(segment, token_log_probs=tuple(log_probs[place] for place in kept))
        return WindowResult(text, (segment,) if text else (), best.score, len(generated))
