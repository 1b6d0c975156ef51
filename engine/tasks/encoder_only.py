"""How an engine drives a model that has its whole answer once it has encoded: CTC, classification."""

from typing import Any

from ...scheduler.loop import GenerationLoop
from ...scheduler.runner import ModelRunner
from ..config import Settings
from .inputs import Recordings, Texts

# Encoder positions a step, 160 s of audio: a GPU needs many to be busy, and the cores of a processor to have
# about the same to do, of recordings of all lengths.
BUDGET = 8192
# Recordings, and seconds of audio, that are read ahead: a few steps of short ones, and 230 MB of long ones.
PLACES_ON_GPU, PLACES_ON_CPU = 1024, 64
SECONDS = 3600.0
TEXT_PLACES = 1024  # texts likewise; a few hundred tokens each take no memory to speak of


class EncoderOnlyTask:
    """A encoder-only model in an engine; what it answers is left to who builds on this.

    Args:
        model: see `EncoderOnlyModel`.
        inputs: what it is given.
        settings: without sizes of a cache: nothing of a request outlives its step.

    Raises:
        ValueError: a size for a cache that is not there.
    """

    def __init__(self, model: Any, inputs: Recordings | Texts, settings: Settings) -> None:
        self.name = type(model).__name__
        for size in ("num_rows", "num_pages", "memory_fraction"):
            if getattr(settings, size) is not None:
                raise ValueError(f"{size} is the size of a cache, and a {self.name} has none; leave it out")
        on_gpu = model.device.type == "cuda"
        runner = ModelRunner(model, inputs.front_end)
        self.inputs = inputs
        self.loop = GenerationLoop(runner, BUDGET)
        self.places = PLACES_ON_GPU if on_gpu else PLACES_ON_CPU
        if isinstance(inputs, Texts):
            self.places = TEXT_PLACES
        self.seconds = SECONDS
        self.ways = [None]

    def resolve(self, options: dict[str, Any], duration: float) -> None:
        """None: the request is encoder-only."""
