"""Conversion of a checkpoint, in any format that is read, to a folder in the form that transformers reads."""

import contextlib
import os
import warnings
from pathlib import Path
from typing import Any

import typer

from ..builtin_models import named
from .outputs.lines import message_of
from .terminal import note, refuse, show_warning


def convert(source: str, target: Path, dtype: str | None, overwrite: bool) -> None:
    """Write a checkpoint's weights as safetensors, with its configuration and its processor's files.

    Args:
        source: built-in name, folder, file of weights, or id of a repository on the Hub.
        target: folder to write to, created if needed.
        dtype: dtype of the written weights; None for that of the source.
        overwrite: True to write into a folder that has files; those of other names stay.

    Raises:
        typer.Exit: code 2 where the source cannot be read or the target must not be written, 1 where
            writing fails.
    """
    _check_target(source, target, overwrite)
    with warnings.catch_warnings():
        warnings.showwarning = show_warning  # type: ignore[assignment]
        try:
            model, parts = _load(source, dtype)
        except (ImportError, OSError, RuntimeError, ValueError, MemoryError) as error:
            refuse(message_of(error))
        try:
            for part in (model, *parts):
                part.save_pretrained(target)
        except OSError as error:
            note(f"error: {target}: cannot be written ({error.strerror or error})")
            raise typer.Exit(1) from None
    written = ", ".join(type(part).__name__ for part in (model, *parts))
    note(f"{target}: {written}, {str(model.dtype).removeprefix('torch.')}")


def _check_target(source: str, target: Path, overwrite: bool) -> None:
    """End the command where the target is the source, no folder, or one with files that are to stay."""
    try:
        if not os.path.lexists(target):
            return
        if not target.is_dir():
            refuse(f"{target}: is not a folder; name another")
        if os.path.isdir(source) and os.path.samefile(source, target):
            refuse(f"{target}: is the checkpoint itself; name another folder")
        if not overwrite and any(target.iterdir()):
            refuse(f"{target}: has files; name another folder, or add --overwrite")
    except OSError as error:
        refuse(f"{target}: cannot be written ({error.strerror or error})")


def _load(source: str, dtype: str | None) -> tuple[Any, list[Any]]:
    """Load the model of a checkpoint by the class that saved it, and the parts of its processor."""
    from ...models.checkpoints.convert import ARGUMENTS, foreign_checkpoint, framework_of_file
    from ...models.checkpoints.files import open_checkpoint
    from ...models.checkpoints.weights import framework_of

    builtin = named(source)
    framework = framework_of_file(source)
    opened = foreign_checkpoint(source if builtin is None else builtin.folder, framework)
    checkpoint, _ = open_checkpoint(source if opened is None else opened)
    framework = framework or framework_of(checkpoint)
    options: dict[str, Any] = {} if framework is None else {ARGUMENTS[framework]: True}
    model = _class_of(checkpoint).from_pretrained(checkpoint, dtype=dtype, **options)
    return model, _parts_of(model, checkpoint)


def _class_of(checkpoint: Any) -> Any:
    """Class that a checkpoint was saved by; the family's first where config.json names none.

    Raises:
        ValueError: a class that is not here.
    """
    from ...models.family import MODELS
    from ...models.registry import FAMILIES, family_of_checkpoint

    family = family_of_checkpoint(checkpoint, FAMILIES)
    saved_as = family.load("config").from_pretrained(checkpoint).architectures or []
    if not saved_as:
        return next(filter(None, map(family.load, MODELS)))
    if (found := family.public(saved_as[0])) is not None:
        return found
    if saved_as[0].endswith("ForCausalLM") and family.text_decoder:  # BertLMHeadModel, as Flax has it
        return family.load("text_decoder")
    known = ", ".join(sorted({family.class_name(kind) for kind in MODELS if getattr(family, kind)}))
    raise ValueError(f"{checkpoint} is a {saved_as[0]}; of {family.model_type} there are here: {known}")


def _parts_of(model: Any, checkpoint: Any) -> list[Any]:
    """Load a processor, or those of its parts that the checkpoint has the files of."""
    from ...models.auto import AutoFeatureExtractor, AutoProcessor, AutoTokenizer
    from ...models.registry import FAMILIES, family_of_checkpoint
    from ...scheduler.model_protocol import Task

    family = family_of_checkpoint(checkpoint, FAMILIES)
    whole = getattr(model, "task", None) in (Task.GENERATION, Task.CTC)
    if whole:
        try:
            return [AutoProcessor.from_pretrained(checkpoint)]
        except FileNotFoundError as error:
            show_warning(f"without a processor: {error}")
    parts = []
    for auto, exists in ((AutoFeatureExtractor, family.feature_extractor), (AutoTokenizer, family.tokenizer)):
        if whole or exists:
            with contextlib.suppress(FileNotFoundError):
                parts.append(auto.from_pretrained(checkpoint))
    return parts
