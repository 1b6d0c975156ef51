"""Recordings of any length, for models that read one window of them at a time."""

import math
from typing import Any

import numpy as np
from torch import Tensor

from ..config import DEFAULT_MAX_WINDOW, EngineConfig
from .inputs import Inputs, ReadOptions, Recordings
from .inputs import Unwanted as Unwanted
from .inputs import while_wanted as while_wanted

_MIN_WINDOW = 0.08  # seconds: a cut needs some hops of 10 ms to choose from
_MIN_PIECES = 4  # shortest inputs of the model in a window, so that a rest of a quarter of it is one too


class WindowedRecordings(Recordings):
    """Reader of recordings of any length for a model that reads one window at a time.

    Args:
        model, feature_extractor: as of `Recordings`.
        config: configuration with the limits of recordings and windows.

    Attributes:
        max_seconds: duration of the longest accepted recording.
        max_input_seconds: duration of the longest window that the model takes.
        max_window: duration of the longest window where a call gives none: the configuration's, else that of
            the checkpoint's config.json, else 30 s or what the model takes.

    Raises:
        ValueError: the configuration's window is out of range.
    """

    def __init__(self, model: Any, feature_extractor: Any, config: EngineConfig) -> None:
        super().__init__(model, feature_extractor, config)
        self.max_seconds = config.max_seconds
        self.max_window = min(DEFAULT_MAX_WINDOW, self.max_input_seconds)
        if config.max_window is not None:
            self.max_window = self.check_window(config.max_window, "max_window of EngineConfig")
        else:
            own = getattr(model.config, "max_window", None)
            self.max_window = self.check_window(own, "max_window of the checkpoint's config.json")

    def check_window(self, seconds: Any, name: str = "max_window") -> float:
        """Validate a longest window in seconds, a call's by default; None is the engine's.

        Raises:
            ValueError: no number, or a window that the model does not take.
        """
        if seconds is None:
            return self.max_window
        is_number = isinstance(seconds, int | float | np.integer | np.floating)
        lowest = max(_MIN_WINDOW, _MIN_PIECES * self.min_input_seconds)
        if isinstance(seconds, bool) or not is_number or not lowest <= seconds <= self.max_input_seconds:
            longest = math.floor(10 * self.max_input_seconds) / 10
            raise ValueError(
                f"{name} is {seconds!r}; it must be a number of seconds from {lowest:g} to {longest:g}, the "
                f"longest window that this {type(self._model).__name__} takes"
            )
        return float(seconds)

    def prepare(self, source: Any, reading: ReadOptions, options: dict[str, Any]) -> Inputs | None:
        """Inputs of an array of one window that needs no conversion; None for all others."""
        is_array = isinstance(source, np.ndarray | Tensor) and source.ndim == 1
        if not is_array or len(source) > self.max_read_seconds(options) * self.sampling_rate:
            return None
        return super().prepare(source, reading, options)

    def is_part_of_long(self, inputs: Inputs, options: dict[str, Any]) -> bool:
        """True for speech that fits one window, of a recording that does not, whose result has segments."""
        if inputs.speech is None or inputs.values is None:
            return False
        return inputs.speech.duration > self.max_read_seconds(options)

    def max_read_seconds(self, options: dict[str, Any]) -> float:
        """Duration of the longest recording that is one window: the call's, else what the model takes."""
        window: float = options.get("max_window", self.max_input_seconds)
        return window
