"""Classifications: what a recording or text became, and how a model's logits are read as one."""

from dataclasses import dataclass, field
from typing import Any

from ..scheduler.request import FinishReason
from .handle import RequestOutput

TOP_K = 5  # labels of a result where nobody says


@dataclass(frozen=True, slots=True)
class Label:
    """A label and its score."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Classification:
    """What one recording or text became.

    Args:
        labels: the best ones, best first; empty where `error` is set or the request was cancelled. Scores are
            probabilities: of one label among all (they add up to 1 over all), or where several may hold, and
            where there is but one, of each by itself; of a regression what the model says.
        finish_reason: "stop", "cancelled" or "error".
        duration: seconds of audio; 0 where the recording could not be read, and of a text.
        error: why there are no labels.
        source: what was submitted.
    """

    labels: tuple[Label, ...]
    finish_reason: FinishReason
    duration: float = 0.0
    error: Exception | None = None
    source: Any = field(default=None, repr=False, compare=False)


class LabelReader:
    """Reads a classifier's logits. See `Reader`.

    Args:
        config: with `id2label` and `problem_type`.
        top_k: labels of a result; None for all.
    """

    whole_words = False

    def __init__(self, config: Any, top_k: int | None) -> None:
        self._config = config
        self._top_k = top_k

    def text(self, token_ids: tuple[int, ...]) -> str:
        """Nothing: a classifier goes on by no tokens."""
        return ""

    def result(self, outcome: RequestOutput, source: Any) -> Classification:
        """The classification of an outcome without an error; without labels where it was cancelled."""
        if outcome.answer is None:
            return Classification((), outcome.finish_reason, outcome.duration, source=source)
        logits = outcome.answer["logits"][0].double()
        if not logits.isfinite().all():
            error = RuntimeError("the model's logits are not finite; run it in float32, or in bfloat16")
            return Classification((), FinishReason.ERROR, outcome.duration, error, source)
        match self._config.problem_type:
            case "regression":
                scores = logits
            case "multi_label_classification":
                scores = logits.sigmoid()
            case _:
                scores = logits.softmax(0) if len(logits) > 1 else logits.sigmoid()
        numbers = scores.tolist()
        best = sorted(range(len(numbers)), key=lambda label: (-numbers[label], label))
        names = [str(self._config.id2label.get(one, f"LABEL_{one}")) for one in best[: self._top_k]]
        labels = tuple(Label(name, numbers[one]) for name, one in zip(names, best, strict=False))
        return Classification(labels, outcome.finish_reason, outcome.duration, source=source)

    def failure(self, outcome: RequestOutput, source: Any) -> Classification:
        """A classification without labels."""
        return Classification((), outcome.finish_reason, outcome.duration, outcome.error, source)

    def said(self, result: Classification) -> str:
        """Its best label."""
        return result.labels[0].label if result.labels else ""
