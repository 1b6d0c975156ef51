"""Checkpoints in formats of other programs, read as if a folder of transformers' files had been converted.

A family converts names and writes the configuration files that its classes read; weights are converted when
they are asked for.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from .contents import read_json, unreadable
from .ctranslate2 import FILENAME, CTranslate2Model, read_ctranslate2
from .files import Checkpoint, write_json

_CONVERTERS = {"WhisperSpec": "whisper"}  # specifications of CTranslate2, and the folder of their family
_OPENAI = "whisper"  # the folder of the family that openai's .pt files are of
PT = ".pt"


@dataclass(frozen=True, slots=True)
class Conversion:
    """Result of a family's converter.

    Attributes:
        files: content of each JSON file by name, such as config.json.
        tensors: weights by transformers' names.
    """

    files: Mapping[str, dict[str, Any]]
    tensors: dict[str, Tensor]


class OriginalCheckpoint(Checkpoint):
    """Checkpoint in another program's format, with the files that a conversion would write.

    Files of the folder that the conversion does not replace, such as tokenizer.json, are found there.
    """

    def __init__(self, name: str, folder: Path, convert: Callable[[], Conversion], own: set[str]) -> None:
        super().__init__(name, folder)
        self._convert = convert
        self._own = own  # names of files in the other format
        self._made: TemporaryDirectory[str] | None = None
        self._tensors: dict[str, Tensor] | None = None

    def find(self, filename: str) -> Path | None:
        """Path of a file: one that the conversion writes, or else one of the folder."""
        made = Path(self._files().name) / filename
        if made.is_file():
            return made
        return None if filename in self._own else super().find(filename)

    def read_weights(self) -> dict[str, Tensor]:
        """Weights by transformers' names; read again by a later call, so that none are kept here."""
        if self._tensors is None:
            return self._convert().tensors
        tensors, self._tensors = self._tensors, None
        return tensors

    def _files(self) -> "TemporaryDirectory[str]":
        """Folder of the converted files, which lasts as long as this object."""
        if self._made is None:
            conversion = self._convert()
            made = TemporaryDirectory(prefix="tritone-")
            for name, content in conversion.files.items():
                write_json(Path(made.name) / name, content)
            self._made, self._tensors = made, conversion.tensors
        return self._made


def open_original(name: str | os.PathLike[str], path: Path) -> OriginalCheckpoint | None:
    """Open a folder of CTranslate2 or a .pt of openai's; None for anything else.

    Args:
        name: name of the checkpoint as it was given.
        path: its path, which exists.

    Raises:
        OSError: no rights to look into the folder, or to read its config.json.
        ValueError: a config.json that is not JSON.
    """
    if path.is_dir():
        if not _is_ctranslate2(path):
            return None
        return OriginalCheckpoint(
            os.fspath(name), path, lambda: _from_ctranslate2(path), {FILENAME, "config.json"}
        )
    if path.suffix != PT or not path.is_file():
        return None
    return OriginalCheckpoint(os.fspath(name), path.parent, lambda: _from_openai(path), {"config.json"})


def _is_ctranslate2(folder: Path) -> bool:
    """True for a folder with a model.bin whose config.json, if there is one, is not transformers'."""
    try:
        if not (folder / FILENAME).is_file():
            return False
    except OSError as error:
        raise unreadable(folder, error) from None
    config = folder / "config.json"
    return not config.is_file() or not {"model_type", "architectures"} & read_json(config).keys()


def _from_ctranslate2(folder: Path) -> Conversion:
    model: CTranslate2Model = read_ctranslate2(folder / FILENAME)
    if model.spec not in _CONVERTERS:
        raise ValueError(
            f"{folder / FILENAME} is a {model.spec[:80]!r}; of CTranslate2's models these are read: "
            f"{', '.join(sorted(_CONVERTERS))}"
        )
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    converter = import_module(f"..{_CONVERTERS[model.spec]}.originals", __package__)
    conversion: Conversion = converter.from_ctranslate2(model, config, str(folder / FILENAME))
    return conversion


def _from_openai(path: Path) -> Conversion:
    converter = import_module(f"..{_OPENAI}.originals", __package__)
    conversion: Conversion = converter.from_openai(path)
    return conversion
