"""Sessions: recordings that take several requests, one after another or at once, and have one result."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..scheduler.request import FinishReason, GenerationOptions, RequestOutput

if TYPE_CHECKING:
    from torch import Tensor

    from ..scheduler.request import AudioExcerpt


class Part(Protocol):
    """Part of a session's result that is final, such as a window's; parts follow each other in order."""

    @property
    def text(self) -> str: ...  # texts of all parts join to that of the result


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
        duration: seconds of audio read so far, at the end those of the recording.
        warnings: warnings about the reading.
        finish_reason: reason of the result.
    """

    duration: float = 0.0
    warnings: tuple[str, ...] = ()
    finish_reason: FinishReason = FinishReason.STOP

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
