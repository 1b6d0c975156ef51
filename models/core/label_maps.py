"""Label fields of configurations: names and ids of a classifier's labels, and its type of problem."""

import re
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from .field_types import shown

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
# Far beyond any classifier, and small enough that a hostile configuration costs nothing.
MAX_LABELS = 2**20


class LabelMaps:
    """Configuration fields `id2label`, `label2id` and `problem_type`, as in transformers.

    The number of labels, `num_labels`, is the size of `id2label`; setting another number resets both maps to
    placeholder names. `label2id` stays None where `id2label` is given without it.
    """

    # Number of labels of a configuration that names none; these labels are not written to config.json.
    default_num_labels: ClassVar[int] = 2
    id2label: dict[int, str]
    label2id: dict[str, int] | None
    problem_type: str | None

    def take_labels(self, fields: dict[str, Any]) -> None:
        """Set the label fields from a constructor's keyword arguments `fields`, and remove them there.

        Raises:
            ValueError: a map of another type, a number of labels out of range, an unknown problem type, or
                "single_label_classification" with one label.
        """
        names, numbers = fields.pop("id2label", None), fields.pop("label2id", None)
        count, problem = fields.pop("num_labels", None), fields.pop("problem_type", None)
        if problem not in (None, *PROBLEM_TYPES):
            raise ValueError(
                f"problem_type {shown(problem)} is not known; one of {', '.join(PROBLEM_TYPES)}, or None "
                "to go by the labels"
            )
        if numbers is not None and not isinstance(numbers, Mapping):
            raise ValueError(f"label2id must map names to numbers, it is a {type(numbers).__name__}")
        if names is None:
            self.id2label, self.label2id = {}, {}
            self.num_labels = self.default_num_labels if count is None else count
        else:
            self.id2label, self.label2id = _numbered(names), None if numbers is None else dict(numbers)
            if count is not None and count != len(self.id2label):
                if self.id2label != default_labels(len(self.id2label)):
                    warnings.warn(
                        f"num_labels is {count}, and id2label names {len(self.id2label)}: there are {count} "
                        "now, with other names",
                        stacklevel=3,
                    )
                self.num_labels = count
        if problem == "single_label_classification" and self.num_labels == 1:
            raise ValueError(
                f"problem_type {problem!r} needs several labels, and num_labels is 1; give 2 for yes and no, "
                "or problem_type 'regression' for a number"
            )
        self.problem_type = problem

    @property
    def num_labels(self) -> int:
        """Number of a classifier's labels; 1 for regression."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_LABELS:
            raise ValueError(f"num_labels must be a number from 0 to {MAX_LABELS}, got {shown(count)}")
        if count != len(self.id2label):
            self.id2label = default_labels(count)
            self.label2id = {name: number for number, name in self.id2label.items()}

    def without_default_labels(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Configuration fields to write to config.json, without the label fields where all are default."""
        names = default_labels(self.default_num_labels)
        defaults = {
            "id2label": names,
            "label2id": {name: number for number, name in names.items()},
            "problem_type": None,
        }
        if any(fields.get(name) != value for name, value in defaults.items()):
            return fields
        return {name: value for name, value in fields.items() if name not in defaults}


def default_labels(count: int) -> dict[int, str]:
    """Placeholder label names "LABEL_0", "LABEL_1", ... by label id, as in transformers."""
    return {number: f"LABEL_{number}" for number in range(count)}


def _numbered(names: Any) -> dict[int, str]:
    """Label names by integer label id, from a map whose ids may be text, as in JSON."""
    if isinstance(names, Mapping) and len(names) <= MAX_LABELS:
        numbered = {_number(number): name for number, name in names.items()}
        if None not in numbered and all(isinstance(name, str | int | float) for name in numbered.values()):
            return numbered
    raise ValueError(
        f'id2label must map numbers to names, such as {{"0": "no", "1": "yes"}}; got {shown(names)}'
    )


def _number(written: Any) -> Any:
    """Label id from a number or its text; None for anything else."""
    if isinstance(written, str) and re.fullmatch(r"\d{1,9}", written):
        return int(written)
    return written if type(written) is int and written >= 0 else None
