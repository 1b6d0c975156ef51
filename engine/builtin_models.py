"""Models that are part of the package."""

from dataclasses import dataclass
from pathlib import Path

_MODELS = Path(__file__).parent.parent / "models"


@dataclass(frozen=True, slots=True)
class BuiltinModel:
    """A model in the package, used where a command or an engine is given none."""

    name: str  # of its folder in `models/`, and in results
    description: str  # for the note that a command prints

    @property
    def folder(self) -> Path:
        """The folder of its checkpoint."""
        return _MODELS / self.name


DIGITS = BuiltinModel("digits", "the built-in digits model, which knows English digits only")
DIGIT_CLASSIFIER = BuiltinModel(
    "digit_classifier", "the built-in classifier, which tells single spoken English digits apart"
)
