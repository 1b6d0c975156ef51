"""How an engine drives a model that gives recordings or texts labels: encoder-only requests."""

from typing import Any

from ..classification import TOP_K, LabelReader
from ..config import Settings
from .encoder_only import EncoderOnlyTask
from .inputs import Recordings, Texts

_OPTIONS = {"top_k": TOP_K, "truncate": False}


class Classifier(EncoderOnlyTask):
    """A classifier in an engine.

    Args:
        model: see `EncoderOnlyModel`; its answer holds `logits`, one row.
        inputs: recordings or texts.
        settings: see `EncoderOnlyTask`.
    """

    verb = "classify"

    def __init__(self, model: Any, inputs: Recordings | Texts, settings: Settings) -> None:
        super().__init__(model, inputs, settings)
        self._config = model.config

    def check(self, language: str | None, options: dict[str, Any]) -> dict[str, Any]:
        """`top_k` and `truncate`; raises ValueError for bad ones and for any other option."""
        if language is not None:
            raise ValueError(f"language {language!r}: a {self.name} gives labels; leave it out")
        for name in options:
            if name not in _OPTIONS:
                raise ValueError(
                    f"unknown option {name!r}: a {self.name} gives labels, and takes {', '.join(_OPTIONS)}"
                )
        options = _OPTIONS | options
        top_k, truncate = options["top_k"], options["truncate"]
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k must be a number of labels, 1 or more, or None for all; got {top_k!r}")
        if not isinstance(truncate, bool):
            raise ValueError(f"truncate must be True or False, got {truncate!r}")
        if truncate and isinstance(self.inputs, Recordings):
            raise ValueError(f"truncate=True is for texts; a {self.name} takes recordings, which are not cut")
        return options

    def reader(self, options: dict[str, Any]) -> LabelReader:
        """What reads the answer to a request with these options."""
        return LabelReader(self._config, options["top_k"])
