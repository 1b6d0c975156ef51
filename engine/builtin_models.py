"""Models whose checkpoints ship with the package."""

from dataclasses import dataclass
from pathlib import Path

_MODELS = Path(__file__).parent.parent / "models"


@dataclass(frozen=True, slots=True)
class BuiltinModel:
    """Model that ships with the package, the default of a command or engine that is given none."""

    name: str  # name of the model's folder in `models/`, also given in results
    description: str  # for the note that a command prints

    @property
    def folder(self) -> Path:
        """Path of the model's checkpoint folder."""
        return _MODELS / self.name


DIGITS = BuiltinModel("digits", "the built-in digits model, which knows English digits only")
DIGIT_CLASSIFIER = BuiltinModel(
    "digit_classifier", "the built-in classifier, which tells single spoken English digits apart"
)
