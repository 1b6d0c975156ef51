"""Protocol of an engine's tasks, and the base class of encoder-only tasks."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from ...scheduler.loop import GenerationLoop
from ...scheduler.request import GenerationOptions
from ...scheduler.runner import ModelRunner
from ..config import EngineConfig
from ..gpu.memory import encode_size, filling_budget
from ..jobs import Prepared
from ..outputs import OutputProcessor
from ..session import Session
from .inputs import Inputs, ReadOptions, Recordings, Texts

Verb = Literal["transcribe", "classify"]


class EngineTask(Protocol):
    """Task of an engine: a model with its inputs, generation loop, options and output processors."""

    name: str  # name of the model's class, for messages
    verb: Verb  # method of `Engine` that serves the task
    inputs: Recordings | Texts
    loop: GenerationLoop
    max_in_flight: int  # requests that may be read and not finished at a time
    max_in_flight_seconds: float  # seconds of audio, likewise
    warm_up_options: Sequence[GenerationOptions | None]  # options that together launch every kernel
    usual_demands: Sequence[tuple[GenerationOptions, int]]  # default options, numbers of encoder positions

    @abstractmethod
    def check(self, language: str | None, options: dict[str, Any]) -> dict[str, Any]:
        """Validate the options of a call and add defaults. Raises ValueError for an unsupported one."""

    @abstractmethod
    def resolve(self, options: dict[str, Any], duration: float) -> GenerationOptions | None:
        """Generation options for a recording of `duration` seconds; None for an encoder-only request."""

    def start(
        self, snapshot: Any, reading: ReadOptions, options: dict[str, Any], is_wanted: Callable[[], bool]
    ) -> Prepared | Session:
        """Read a snapshot: its inputs and options, or a session of several requests. For a reading thread.

        Args:
            snapshot: inputs that need no reading, or as `Recordings.snapshot` returns it.
            reading: options of reading.
            options: options as `check` returns them.
            is_wanted: function that returns False once the result is not wanted any more.
        """
        inputs = snapshot
        if not isinstance(snapshot, Inputs):
            inputs = self.inputs.read(snapshot, reading, options, is_wanted)
        return inputs, self.resolve(options, inputs.duration)

    @abstractmethod
    def output_processor(self, options: dict[str, Any]) -> OutputProcessor[Any]:
        """Output processor that builds the results of requests with these options."""


class EncoderOnlyTask(EngineTask):
    """Base class of tasks whose results are complete once encoded: CTC and classification.

    Args:
        model: an `EncoderOnlyModel`.
        inputs: reader of recordings or texts.
        config: configuration with the step budget and the limits of requests in flight.
    """

    warm_up_options = (None,)
    usual_demands = ()

    def __init__(self, model: Any, inputs: Recordings | Texts, config: EngineConfig) -> None:
        self.name = type(model).__name__
        self.inputs = inputs
        runner = ModelRunner(model, inputs.front_end, config=config.runner)
        on_gpu = model.device.type == "cuda"
        budget = config.predict_budget
        if on_gpu and isinstance(inputs, Recordings):
            budget = encode_size(model, inputs.front_end, inputs.max_input_seconds, budget, config).budget
        elif on_gpu:
            budget = budget or filling_budget(model.device, config)  # halved where memory runs out
        self.loop = GenerationLoop(runner, budget or config.predict_budget_on_cpu)
        self.max_in_flight = config.in_flight_on_gpu if on_gpu else config.in_flight_on_cpu
        if isinstance(inputs, Texts):
            self.max_in_flight = config.in_flight_texts
        self.max_in_flight_seconds = config.in_flight_seconds

    def resolve(self, options: dict[str, Any], duration: float) -> None:
        """Return None: an encoder-only request has no generation options."""
        return None
