"""Classification task of an engine: encoder-only requests whose logits become labels."""

from typing import Any

from ...scheduler.request import RequestOutput
from ..config import DEFAULT_TOP_K, EngineConfig
from ..outputs import Classification, Label, OutputProcessor, not_finite
from .base import EncoderOnlyTask, Verb
from .inputs import Recordings, Texts

_DEFAULTS = {"top_k": DEFAULT_TOP_K, "truncate": False}


class ClassificationTask(EncoderOnlyTask):
    """Task of an engine with a classifier of recordings or texts.

    Args:
        model: an `EncoderOnlyModel` whose predictions hold `logits`, one row per request.
        inputs: reader of recordings or texts.
        config: configuration, as of `EncoderOnlyTask`.
    """

    verb: Verb = "classify"

    def __init__(self, model: Any, inputs: Recordings | Texts, config: EngineConfig) -> None:
        super().__init__(model, inputs, config)
        self._model_config = model.config

    def check(self, language: str | None, options: dict[str, Any]) -> dict[str, Any]:
        """Validate `top_k` and `truncate`, add defaults. Raises ValueError for a bad or unknown option."""
        if language is not None:
            raise ValueError(f"language {language!r}: a {self.name} gives labels; leave it out")
        for name in options:
            if name not in _DEFAULTS:
                raise ValueError(
                    f"unknown option {name!r}: a {self.name} gives labels, and takes {', '.join(_DEFAULTS)}"
                )
        options = _DEFAULTS | options
        top_k, truncate = options["top_k"], options["truncate"]
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k must be a number of labels, 1 or more, or None for all; got {top_k!r}")
        if not isinstance(truncate, bool):
            raise ValueError(f"truncate must be True or False, got {truncate!r}")
        if truncate and isinstance(self.inputs, Recordings):
            raise ValueError(f"truncate=True is for texts; a {self.name} takes recordings, which are not cut")
        return options

    def output_processor(self, options: dict[str, Any]) -> "LabelProcessor":
        """Output processor that keeps the `top_k` best labels, as the options ask."""
        return LabelProcessor(self._model_config, options["top_k"])


class LabelProcessor(OutputProcessor[Classification]):
    """Output processor of classifiers: converts logits to scores, and the best scores to labels.

    Args:
        model_config: configuration of the model, with `id2label` and `problem_type`.
        top_k: number of labels in a result; None for all.
    """

    def __init__(self, model_config: Any, top_k: int | None) -> None:
        self._model_config = model_config
        self._top_k = top_k

    def error_of(self, output: RequestOutput) -> Exception | None:
        """Error of logits that are not finite."""
        if output.predictions is None or output.predictions["logits"].isfinite().all():
            return None
        return not_finite("logits")

    def process(
        self, output: RequestOutput, token_ids: tuple[int, ...], duration: float, source: Any
    ) -> Classification:
        """Build the Classification of a request, without labels where it failed or has no frame."""
        if output.predictions is None:
            return Classification((), output.finish_reason, duration, output.error, source=source)
        logits = output.predictions["logits"][0].double()
        match self._model_config.problem_type:
            case "regression":
                scores = logits.tolist()
            case "multi_label_classification":
                scores = logits.sigmoid().tolist()
            case _:
                scores = (logits.softmax(0) if len(logits) > 1 else logits.sigmoid()).tolist()
        best = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[: self._top_k]
        names = self._model_config.id2label
        labels = tuple(Label(str(names.get(index, f"LABEL_{index}")), scores[index]) for index in best)
        return Classification(labels, output.finish_reason, duration, source=source)

    def to_text(self, result: Classification) -> str:
        """Text of the best label; empty where there is none."""
        return result.labels[0].label if result.labels else ""
