"""Transcriptions: what a recording became, and how a model's tokens are read as one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..scheduler.request import FinishReason
from .handle import RequestOutput


@dataclass(frozen=True, slots=True)
class Span:
    """A word or a character of a transcription, and from when to when it is said, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Transcription:
    """What one recording became.

    Args:
        text: empty where `error` is set. Without special tokens, but for those that a CTC model says.
        token_ids: with the start token and the end token, as `generate` returns them; CTC's without
            repetitions and blanks.
        finish_reason: "stop" at an end token, "length" at the longest length, "cancelled" or "error"; CTC
            always ends with "stop".
        duration: seconds of audio; 0 where the recording could not be read.
        score: beam search's sequence score, otherwise the tokens' mean log-probability, for CTC that of the
            best path's frames; None without tokens.
        error: why there is no text.
        words: of a model that knows when they are said (CTC), in order; None of others.
        characters: likewise, spaces included.
        source: what was submitted.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    duration: float
    score: float | None = None
    error: Exception | None = None
    words: tuple[Span, ...] | None = None
    characters: tuple[Span, ...] | None = None
    source: Any = field(default=None, repr=False, compare=False)


class TranscriptionReader:
    """What readers of transcriptions have in common; see `Reader`."""

    def failure(self, outcome: RequestOutput, source: Any) -> Transcription:
        """A transcription without text."""
        end = outcome
        return Transcription(
            "", end.token_ids, end.finish_reason, end.duration, end.score, end.error, source=source
        )

    def said(self, result: Transcription) -> str:
        """Its text."""
        return result.text


class TokenReader(TranscriptionReader):
    """Reads what a model generates.

    Args:
        decode: token ids to text, without special tokens.
        whole_words: see `Reader`.
    """

    def __init__(self, decode: Callable[[tuple[int, ...]], str], whole_words: bool) -> None:
        self.text = decode
        self.whole_words = whole_words

    def result(self, outcome: RequestOutput, source: Any) -> Transcription:
        """The transcription of an outcome without an error."""
        return Transcription(
            self.text(outcome.token_ids),
            outcome.token_ids,
            outcome.finish_reason,
            outcome.duration,
            outcome.score,
            source=source,
        )
