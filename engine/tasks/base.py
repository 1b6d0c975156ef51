"""Protocol of an engine's tasks, and the part that all encoder-only tasks share."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from ...scheduler.loop import GenerationLoop
from ...scheduler.request import GenerationOptions
from ...scheduler.runner import ModelRunner
from ..config import EngineConfig
from ..outputs import OutputProcessor
from .inputs import Recordings, Texts

Verb = Literal["transcribe", "classify"]


class EngineTask(Protocol):
    """A model with its inputs, its loop, and the way from options to results."""

    name: str  # of the model's class, for messages
    verb: Verb  # the method of `Engine` that serves it
    inputs: Recordings | Texts
    loop: GenerationLoop
    max_in_flight: int  # requests that may be read and not finished at a time
    max_in_flight_seconds: float  # of audio, likewise
    warm_up_options: Sequence[GenerationOptions | None]  # that together launch every kernel

    @abstractmethod
    def check(self, language: str | None, options: dict[str, Any]) -> dict[str, Any]:
        """Complete the options of a call. Raises ValueError for one that is not supported."""

    @abstractmethod
    def resolve(self, options: dict[str, Any], duration: float) -> GenerationOptions | None:
        """Options of a recording of `duration` seconds; None of an encoder-only request."""

    @abstractmethod
    def output_processor(self, options: dict[str, Any]) -> OutputProcessor[Any]:
        """The maker of the result of a request with these options."""


class EncoderOnlyTask(EngineTask):
    """A task whose results are complete in the step that encodes them: CTC, classification.

    Args:
        model: an `EncoderOnlyModel`.
        inputs: recordings or texts.
        config: budgets; without sizes of a cache, as there is none.
    """

    warm_up_options = (None,)

    def __init__(self, model: Any, inputs: Recordings | Texts, config: EngineConfig) -> None:
        self.name = type(model).__name__
        self.inputs = inputs
        runner = ModelRunner(model, inputs.front_end, config=config.runner)
        self.loop = GenerationLoop(runner, config.predict_budget)
        on_gpu = model.device.type == "cuda"
        self.max_in_flight = config.in_flight_on_gpu if on_gpu else config.in_flight_on_cpu
        if isinstance(inputs, Texts):
            self.max_in_flight = config.in_flight_texts
        self.max_in_flight_seconds = config.in_flight_seconds

    def resolve(self, options: dict[str, Any], duration: float) -> None:
        """None: an encoder-only request has no generation options."""
        return None
