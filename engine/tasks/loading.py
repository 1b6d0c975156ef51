"""Which model an engine is asked for: its class, its processor, and what drives it."""

import os
from typing import Any

import torch

from ...models.auto import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoModelForCTC,
    AutoModelForSequenceClassification,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
)
from ...models.checkpoints.files import Checkpoint, open_checkpoint, read_json
from ...models.registry import FAMILIES, Family, family_of_fields
from ..builtin_models import DIGITS
from ..config import Settings
from .classification import Classifier
from .ctc import CTC
from .generation import Generation
from .inputs import Recordings, Texts

# The kinds of model that an engine runs, as `Family` names them: how it is loaded, and what goes with it.
_AUTO: dict[str, tuple[Any, Any]] = {
    "speech_seq2seq": (AutoModelForSpeechSeq2Seq, AutoProcessor),
    "ctc": (AutoModelForCTC, AutoProcessor),
    "audio_classification": (AutoModelForAudioClassification, AutoFeatureExtractor),
    "sequence_classification": (AutoModelForSequenceClassification, AutoTokenizer),
}


def load(model: Any, device: Any, dtype: Any, processor: Any) -> tuple[Any, Any]:
    """A model, ready to run, and its processor; arguments and errors as of `Engine`."""
    if model is None or isinstance(model, str | os.PathLike):
        name = DIGITS.folder if model is None else model
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        checkpoint, _ = open_checkpoint(name)
        auto, auto_processor = _AUTO[_kind_of(checkpoint)]
        loaded = auto.from_pretrained(checkpoint, device=device, dtype=dtype or torch.float32)
        return loaded, processor or auto_processor.from_pretrained(checkpoint)
    if not hasattr(model, "generation_loop") and not hasattr(model, "predict"):
        raise ValueError(
            f"model is a {type(model).__name__}; give a checkpoint's name or folder, or a loaded model"
        )
    if processor is None:
        raise ValueError(
            "a loaded model needs its processor: Engine(model, processor=AutoProcessor.from_pretrained(...))"
        )
    if device is not None or dtype is not None:
        raise ValueError("device and dtype are a loaded model's own; use model.to(...) before")
    return model.eval(), processor


def make_task(model: Any, processor: Any, settings: Settings) -> Generation | CTC | Classifier:
    """A loaded model, with its inputs and its loop.

    Raises:
        ValueError: a processor that does not go with the model, or settings of a cache that is not there.
    """
    classifies = type(model).__name__.endswith("ForSequenceClassification")
    if classifies and model.main_input_name == "input_ids":
        if not hasattr(processor, "model_max_length"):
            raise _wrong_processor(model, processor, "texts", "tokenizer")
        return Classifier(model, Texts(model, processor), settings)
    # A classifier of recordings has no tokenizer, so that its feature extractor comes alone.
    feature_extractor = getattr(processor, "feature_extractor", processor)
    if not hasattr(feature_extractor, "frame_count") or not (classifies or hasattr(processor, "tokenizer")):
        wanted = "feature extractor" if classifies else "processor"
        raise _wrong_processor(model, processor, "recordings", wanted)
    inputs = Recordings(model, feature_extractor)
    if classifies:
        return Classifier(model, inputs, settings)
    kind = CTC if hasattr(model, "predict") else Generation
    return kind(model, inputs, processor.tokenizer, settings)


def _kind_of(checkpoint: Checkpoint) -> str:
    """What kind of model a checkpoint is: by what its configuration says it was saved as, else by its family.

    Raises:
        ValueError: a family that is not here, or an encoder that says nothing.
    """
    config = read_json(checkpoint.require("config.json"))
    saved_as = [str(name) for name in config.get("architectures") or []]
    families = [family for family in FAMILIES if any(getattr(family, kind) for kind in _AUTO)]
    family = family_of_fields(config, checkpoint.name, checkpoint.own_name, families)
    if any(name.endswith("ForCTC") for name in saved_as):
        return "ctc"
    if any(name.endswith("ForSequenceClassification") for name in saved_as):
        return "audio_classification" if family.audio_classification else "sequence_classification"
    if family.speech_seq2seq:
        return "speech_seq2seq"
    if saved_as:
        raise ValueError(
            f"{checkpoint} is a {saved_as[0]}, which has no head to say anything with; give a "
            f"checkpoint that was trained with one, such as a {_headed(family)}"
        )
    return "ctc" if family.ctc else "sequence_classification"


def _wrong_processor(model: Any, processor: Any, reads: str, wanted: str) -> ValueError:
    return ValueError(
        f"processor is a {type(processor).__name__}, and a {type(model).__name__} reads {reads}; give the "
        f"{wanted} of its checkpoint"
    )


def _headed(family: Family) -> str:
    return "ForCTC" if family.ctc else "ForSequenceClassification"
