"""Registry of all model families, with lookup by checkpoint, configuration, model_type or class."""

import pkgutil
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from .checkpoints.contents import read_json
from .checkpoints.files import Checkpoint
from .family import MODELS, Family


def _discover() -> tuple[Family, ...]:
    """Collect the registry entry `FAMILY` of each package of models/ that has one."""
    packages = [found.name for found in pkgutil.iter_modules([str(Path(__file__).parent)]) if found.ispkg]
    entries = {name: getattr(import_module(f".{name}", __package__), "FAMILY", None) for name in packages}
    for folder, family in entries.items():
        if family is not None and family.folder != folder:
            raise ValueError(
                f"models/{folder} registers {family.model_type!r}; call it models/{family.folder}"
            )
    return tuple(family for family in entries.values() if family is not None)


FAMILIES = _discover()


def families_with(kind: str) -> tuple[Family, ...]:
    """Families that have a class of this kind, a field of `Family`."""
    return tuple(family for family in FAMILIES if getattr(family, kind) is not None)


def family_of_class(name: str) -> tuple[Family, str] | None:
    """Find (family, kind) of a model class by its name in config.json's `architectures`; None if unknown."""
    for kind in MODELS:
        for family in families_with(kind):
            if family.class_name(kind) == name:
                return family, kind
    return None


def family_of_model_type(model_type: Any, families: Iterable[Family], where: str, note: str = "") -> Family:
    """Family with this `model_type` among `families`.

    Raises:
        ValueError: no such family; the message has `where` the name comes from, supported names and `note`.
    """
    known = {family.model_type: family for family in families}
    if not isinstance(model_type, str) or model_type not in known:
        raise ValueError(
            f"{where} has model_type {model_type!r:.80}; supported here: {', '.join(sorted(known))}"
            f"{_other_kinds(model_type)}{note}"
        )
    return known[model_type]


def family_of_config(config: Any, families: Iterable[Family], user: str) -> Family:
    """Family of a configuration object among `families`, by its `model_type`.

    Raises:
        ValueError: no such family; the message names the class that needs one, `user`, and supported ones.
    """
    given = getattr(config, "model_type", None)
    for family in families:
        if isinstance(given, str) and given == family.model_type:
            return family
    known = ", ".join(sorted(family.class_name("config") for family in families))
    raise ValueError(
        f"{user} has nothing for a {type(config).__name__} (model_type {given!r}); supported here: {known}"
    )


def family_of_fields(config: dict[str, Any], where: str, own_name: str, families: Iterable[Family]) -> Family:
    """Family among `families` that the fields of a `config.json` name, or else the checkpoint's own name.

    Raises:
        ValueError: a family that is unknown or not among them.
    """
    model_type = config.get("model_type")
    if isinstance(model_type, str):
        note = "; its own code (auto_map) is not run" if "auto_map" in config else ""
        return family_of_model_type(model_type, families, where, note)
    # Search all families, not only the accepted: "hubert" contains "bert", and has no text classifier.
    found = {name: family for family in FAMILIES for name in family.names if name in own_name.lower()}
    if found:
        family = found[max(found, key=len)]  # "speech_to_text_2" contains "speech_to_text" too
        return family_of_model_type(family.model_type, families, f"{where}, going by its name,")
    note = "; write one into its config.json, or call the class of its family"
    return family_of_model_type(model_type, families, where, note)


def family_of_checkpoint(checkpoint: Checkpoint, families: Iterable[Family]) -> Family:
    """Family of a checkpoint among `families`, by its config.json or else its name.

    Raises:
        OSError: a checkpoint without config.json.
        ValueError: a family that is unknown or not among them.
    """
    config = read_json(checkpoint.require("config.json"))
    return family_of_fields(config, checkpoint.name, checkpoint.own_name, families)


def _other_kinds(model_type: Any) -> str:
    """End of an error message: the classes that load this family's models; empty for an unknown family."""
    for family in FAMILIES:
        if family.model_type == model_type:
            ways = [way for kind, way in MODELS.items() if getattr(family, kind) is not None]
            return f" (for {model_type} there is {'; '.join(ways)})"
    return ""
