"""Loading of an engine's model and processor, and construction of the task that serves them."""

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
from ...models.checkpoints.contents import read_json
from ...models.checkpoints.files import Checkpoint, open_checkpoint
from ...models.registry import FAMILIES, family_of_checkpoint
from ...models.whisper.generation import WhisperGenerationMixin
from ...scheduler.model_protocol import Task
from ..builtin_models import DIGITS, named
from ..config import EngineConfig
from .base import EngineTask
from .classification import ClassificationTask
from .ctc import CTCTask
from .generation import GenerationTask
from .inputs import Recordings, Texts
from .whisper import WhisperTask
from .windowed_recordings import WindowedRecordings

# For each task the classes that load a checkpoint's model and its processor.
_AUTO: dict[Task, tuple[Any, Any]] = {
    Task.GENERATION: (AutoModelForSpeechSeq2Seq, AutoProcessor),
    Task.CTC: (AutoModelForCTC, AutoProcessor),
    Task.AUDIO_CLASSIFICATION: (AutoModelForAudioClassification, AutoFeatureExtractor),
    Task.SEQUENCE_CLASSIFICATION: (AutoModelForSequenceClassification, AutoTokenizer),
}


def load(model: Any, device: Any, dtype: Any, processor: Any) -> tuple[Any, Any]:
    """Load a model in evaluation mode and its processor; arguments and errors are those of `Engine`."""
    model = DIGITS.name if model is None else model
    if isinstance(model, str | os.PathLike):
        builtin = named(model)
        name = model if builtin is None else builtin.folder
        device, dtype = resolve_device(device), dtype or default_dtype(name, device)
        checkpoint, _ = open_checkpoint(name)
        auto, auto_processor = _AUTO[_task_of(checkpoint)]
        loaded = auto.from_pretrained(checkpoint, device=device, dtype=dtype)
        return loaded, processor or auto_processor.from_pretrained(checkpoint)
    if getattr(model, "task", None) not in _AUTO:
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


def resolve_device(device: Any) -> torch.device:
    """Device of an engine: by default a GPU if there is one.

    Raises:
        ValueError: no name of a device, or a GPU that is not there.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device {device!r} is none; give cpu, cuda or cuda:INDEX") from None
    if resolved.type == "cuda" and (resolved.index or 0) >= (count := torch.cuda.device_count()):
        found = (
            f"torch finds {count} GPUs"
            if torch.version.cuda or torch.version.hip
            else "this torch has no CUDA"
        )
        raise ValueError(
            f"device {device!r} is not there: {found}; leave it out for what there is, or give cpu"
        )
    return resolved


def default_dtype(name: str | os.PathLike[str], device: Any) -> str:
    """Name of the dtype in which an engine computes a checkpoint where none is given.

    On a CPU float32, in which half-precision weights are exact and most processors are faster. On a GPU the
    half precision that the checkpoint's config.json names, else float16: its matrix units take no float32.
    """
    if resolve_device(device).type == "cpu":
        return "float32"
    checkpoint, _ = open_checkpoint(name)  # whose files may last as long as this object
    config = read_json(checkpoint.require("config.json"))
    stored = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    return stored if stored in ("float16", "bfloat16") else "float16"


def make_task(model: Any, processor: Any, config: EngineConfig) -> EngineTask:
    """Build the engine task of a loaded model, with its inputs and generation loop.

    Raises:
        ValueError: the processor does not belong to the model, or a cache size is set and it has no cache.
    """
    config.validate_for(model)
    if model.task is Task.SEQUENCE_CLASSIFICATION:
        if not hasattr(processor, "model_max_length"):  # transformers' tokenizers will do too
            raise _wrong_processor(model, processor, "texts", "tokenizer")
        return ClassificationTask(model, Texts(model, processor), config)
    # A classifier of recordings has no tokenizer, so its feature extractor comes alone.
    classifies = model.task is Task.AUDIO_CLASSIFICATION
    feature_extractor = getattr(processor, "feature_extractor", processor)
    if not hasattr(feature_extractor, "frame_count") or not (classifies or hasattr(processor, "tokenizer")):
        wanted = "feature extractor" if classifies else "processor"
        raise _wrong_processor(model, processor, "recordings", wanted)
    if classifies:
        return ClassificationTask(model, Recordings(model, feature_extractor, config), config)
    windowed = WindowedRecordings(model, feature_extractor, config)
    if model.task is Task.CTC:
        return CTCTask(model, windowed, processor.tokenizer, config)
    task = WhisperTask if isinstance(model, WhisperGenerationMixin) else GenerationTask
    return task(model, windowed, processor.tokenizer, config)


def _task_of(checkpoint: Checkpoint) -> Task:
    """Task of a checkpoint, by the head of the class that saved it, else by its model family.

    Raises:
        ValueError: the family has no task, or the checkpoint is an encoder without a head.
    """
    families = [family for family in FAMILIES if any(getattr(family, task) for task in Task)]
    family = family_of_checkpoint(checkpoint, families)
    tasks = [task for task in Task if getattr(family, task)]
    saved_as = family.load("config").from_pretrained(checkpoint).architectures or []
    heads = {_head(name) for name in saved_as}
    for task in tasks:
        if _head(family.class_name(task)) in heads:
            return task
    if saved_as and Task.GENERATION not in tasks:
        raise ValueError(
            f"{checkpoint} is a {saved_as[0]}, which has no head to say anything with; give a "
            f"checkpoint that was trained with one, such as a For{_head(family.class_name(tasks[0]))}"
        )
    return tasks[0]


def _head(class_name: str) -> str:
    """Head in the name of a class, which transformers puts after "For": CTC in HubertForCTC."""
    return class_name.rpartition("For")[2]


def _wrong_processor(model: Any, processor: Any, reads: str, wanted: str) -> ValueError:
    return ValueError(
        f"processor is a {type(processor).__name__}, and a {type(model).__name__} reads {reads}; give the "
        f"{wanted} of its checkpoint"
    )
