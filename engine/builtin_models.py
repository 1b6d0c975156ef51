"""The models that come along."""

from dataclasses import dataclass
from pathlib import Path

_MODELS = Path(__file__).parent.parent / "models"


@dataclass(frozen=True, slots=True)
class Bundled:
    """A model that comes along.

    Args:
        name: of its folder in `models/`, and in results.
        knows: what it can do, for who did not ask for it by name.
    """

    name: str
    knows: str

    @property
    def folder(self) -> Path:
        """Its checkpoint."""
        return _MODELS / self.name


DIGITS = Bundled("digits", "the digits model that comes along, which knows English digits only")
DIGIT_CLASSIFIER = Bundled(
    "digit_classifier", "the classifier that comes along, which tells single spoken English digits apart"
)
