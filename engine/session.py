"""Sessions: recordings that take several requests, one after another or at once, and have one result."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

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
        inputs, options: as of a `Request`.
    """

    key: int
    inputs: "Tensor | AudioExcerpt"
    options: GenerationOptions


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
    def next_request(self) -> SessionRequest | None:
        """Next request; None where it depends on outputs that are still to come, or there is no more."""

    @abstractmethod
    def receive(self, key: int, output: RequestOutput) -> Sequence[Part]:
        """Take the output of a request that has succeeded, and return the parts that are final by it."""
