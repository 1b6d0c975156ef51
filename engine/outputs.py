"""Results of requests, and the base of their output processors."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ..scheduler.request import FinishReason, RequestOutput


@dataclass(frozen=True, slots=True)
class Span:
    """A word or character of a transcription, and its time in the recording, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Transcription:
    """The text of one recording.

    Args:
        text: empty where `error` is set. Without special tokens, except for those that a CTC model decodes.
        token_ids: with the start token and the end token, as `generate` returns them; CTC's without
            repetitions and blanks.
        finish_reason: "stop" at an end token, "length" at the maximum length, "cancelled" or "error"; CTC
            always ends with "stop".
        duration: seconds of audio; 0 where the recording could not be read.
        score: beam search's sequence score, otherwise the tokens' mean log-probability, for CTC that of the
            best path's frames; None without tokens.
        error: the reason why there is no text.
        words: of a CTC model, in order; None of others.
        characters: likewise, spaces included.
        source: the recording as it was submitted.
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


@dataclass(frozen=True, slots=True)
class Label:
    """A label and its score."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The labels of one recording or text.

    Args:
        labels: best first; empty where `error` is set or the request was cancelled. Scores are
            probabilities: softmax over all labels, or where several may hold, and where there is but one,
            the sigmoid of each; of a regression the model's own numbers.
        finish_reason: "stop", "cancelled" or "error".
        duration: seconds of audio; 0 where the recording could not be read, and of a text.
        error: the reason why there are no labels.
        source: the recording or text as it was submitted.
    """

    labels: tuple[Label, ...]
    finish_reason: FinishReason
    duration: float = 0.0
    error: Exception | None = None
    source: Any = field(default=None, repr=False, compare=False)


R = TypeVar("R", bound=Transcription | Classification)


class OutputProcessor(ABC, Generic[R]):
    """Maker of results from a model's outputs. Any thread may call it."""

    whole_words = False  # True where more tokens may change the last word of a text

    def decode(self, token_ids: tuple[int, ...]) -> str:
        """The text of streamed tokens; empty for a model that streams none."""
        return ""

    @abstractmethod
    def process(self, output: RequestOutput, token_ids: tuple[int, ...], duration: float, source: Any) -> R:
        """The result of a request that has ended.

        Args:
            output: its end.
            token_ids: of its best hypothesis; where there is none, those that were streamed.
            duration: seconds of audio.
            source: the recording or text as it was submitted.
        """

    @abstractmethod
    def to_text(self, result: R) -> str:
        """The text that streaming ends with."""
