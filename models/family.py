"""Registry entry of a model family, which names its classes without importing them."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import cache
from importlib import import_module
from typing import Any

MODELS = {  # kinds of model, and the public name by which one is loaded
    "speech_seq2seq": "AutoModelForSpeechSeq2Seq",
    "ctc": "AutoModelForCTC",
    "audio_classification": "AutoModelForAudioClassification",
    "sequence_classification": "AutoModelForSequenceClassification",
    "speech_encoder": "SpeechEncoderDecoderModel.from_encoder_decoder_pretrained, as encoder",
    "text_decoder": "SpeechEncoderDecoderModel.from_encoder_decoder_pretrained, as decoder",
}


@dataclass(frozen=True)
class Family:
    """Paths of the classes of one model family, which are imported on first use.

    Each family's folder, its model_type with "_" for "-", has one entry, `FAMILY`. "module.Class" is a class
    of that folder, public as `tritone.Class`; "folder/module.Class" is another family's class, or not public.
    """

    model_type: str  # as in config.json
    config: str
    _: KW_ONLY
    speech_seq2seq: str | None = None  # speech-to-text model with `generate`
    speech_encoder: str | None = None  # model without head; an encoder for `SpeechEncoderDecoderModel`
    text_decoder: str | None = None  # causal language model; a decoder for `SpeechEncoderDecoderModel`
    ctc: str | None = None
    audio_classification: str | None = None  # classifier of recordings
    sequence_classification: str | None = None  # classifier of texts
    feature_extractor: str | None = None
    tokenizer: str | None = None
    processor: str | None = None
    other_tokenizers: tuple[str, ...] = ()  # further classes that tokenizer files of its checkpoints name
    exports: tuple[str, ...] = ()  # further public classes of the folder
    other_names: tuple[str, ...] = ()  # abbreviations of model_type in checkpoint names

    @property
    def folder(self) -> str:
        """Name of the family's folder in models/."""
        return self.model_type.replace("-", "_")

    @property
    def names(self) -> set[str]:
        """Substrings of checkpoint names that identify the family where config.json has no model_type."""
        return {self.model_type, self.folder, self.folder.replace("_", "-"), *self.other_names}

    def load(self, kind: str) -> Any:
        """Import the class of one kind, which is a field of this entry; None where the family has none."""
        path = getattr(self, kind)
        return None if path is None else _load(*self._home(path))

    def class_name(self, kind: str) -> str:
        """Name of the class of one kind, without its module; "None" where the family has none."""
        return str(getattr(self, kind)).rpartition(".")[2]

    def named(self, kind: str, name: str) -> Any:
        """Import the family's class of this kind with this name; None where it has none."""
        others = self.other_tokenizers if kind == "tokenizer" else ()
        homes = [self._home(path) for path in (getattr(self, kind), *others) if path is not None]
        return next((_load(module, own) for module, own in homes if own == name), None)

    def public(self, name: str) -> Any:
        """Import the public class of the family's folder with this name; None where it has none."""
        return next((_load(module, own) for own, module in self.public_names() if own == name), None)

    def public_names(self) -> Iterator[tuple[str, str]]:
        """Pairs (class name, module below models/) of the public classes, those in the family's folder."""
        kinds = (*MODELS, "config", "feature_extractor", "tokenizer", "processor")
        for path in (*(getattr(self, kind) for kind in kinds), *self.other_tokenizers, *self.exports):
            if path is not None and "/" not in path:
                module, name = self._home(path)
                yield name, module

    def _home(self, path: str) -> tuple[str, str]:
        """Split a class path of this entry into (module below models/, class name)."""
        module, _, name = path.rpartition(".")
        return (module.replace("/", ".") if "/" in module else f"{self.folder}.{module}"), name


@cache
def _load(module: str, name: str) -> Any:
    return getattr(import_module(f".{module}", __package__), name)
