"""Sessions: recordings that take several requests, one after another or at once, and have one result."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..scheduler.request import FinishReason, GenerationOptions, RequestOutput

if TYPE_CHECKING:
    from torch import Tensor

    from ..scheduler.request import AudioExcerpt
    from .audio.speech import SpeechTimes


class Part(Protocol):
    """Part of a session's result that is final, such as a window's; parts follow each other in order."""

    @property
    def text(self) -> str: ...  # texts of all parts join to that of the result


P = TypeVar("P")


class PartsInOrder(Generic[P]):
    """Parts of pieces of a recording that end in any order, returned in the order of the pieces."""

    def __init__(self) -> None:
        self._parts = dict[int, list[P]]()  # not returned yet, by piece
        self._ended = set[int]()
        self._begun = self._first = 0  # number of pieces begun; the first that is open

    @property
    def is_open(self) -> bool:
        """True where a piece has begun and its parts have not all been returned."""
        return self._first < self._begun

    def begin(self) -> int:
        """Begin the next piece, and return its number."""
        number = self._begun
        self._parts[number] = []
        self._begun += 1
        return number

    def add(self, number: int, part: P) -> None:
        """Add the next part of a piece."""
        self._parts[number].append(part)

    def end(self, number: int) -> None:
        """Note that a piece has no more parts."""
        self._ended.add(number)

    def take(self) -> list[P]:
        """Parts behind those that have been returned, up to the first that is still missing."""
        taken = list[P]()
        while self.is_open:
            taken += self._parts[self._first]
            self._parts[self._first].clear()
            if self._first not in self._ended:
                break
            self._ended.remove(self._first)
            del self._parts[self._first]
            self._first += 1
        return taken


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """Request of a session to the loop.

    Attributes:
        key: number by which the session knows its output.
        inputs, options, keep_encoded: as of a `Request`; no options for an encoder-only model.
        duration: seconds of audio, which count among those in flight.
    """

    key: int
    inputs: "Tensor | AudioExcerpt"
    options: GenerationOptions | None
    keep_encoded: bool = False
    duration: float = 0.0


@dataclass(frozen=True, slots=True)
class SessionCall:
    """Computation of a session with the model, by the loop's thread between two of its steps.

    Attributes:
        key: number by which the session knows its value.
        compute: function of the computation.
    """

    key: int
    compute: Callable[[], Any]


class Session(ABC):
    """Base class of recordings that are decoded by several requests.

    Reading threads call its methods, one at a time, and never with a lock held. What it raises ends its job.

    Attributes:
        duration: seconds of audio read so far, at the end those of the recording, or of its speech.
        warnings: warnings about the reading.
        finish_reason: reason of the result.
        speech: times of the speech that was kept alone; None where all of the recording is read.
    """

    duration: float = 0.0
    warnings: tuple[str, ...] = ()
    finish_reason: FinishReason = FinishReason.STOP
    speech: "SpeechTimes | None" = None

    @property
    @abstractmethod
    def is_complete(self) -> bool:
        """True once all parts of the result have been returned."""

    @abstractmethod
    def next_request(self) -> SessionRequest | SessionCall | None:
        """Next request or computation; None where that depends on outputs still to come, or at the end."""

    @abstractmethod
    def receive(self, key: int, output: RequestOutput | Any) -> Sequence[Part]:
        """Take the output of a request that has succeeded, or the value of a computation.

        Returns:
            Parts that are final by it.
        """
