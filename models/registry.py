"""All model families, and the lookups that tell which one a checkpoint or configuration is of."""

import pkgutil
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from .checkpoints.files import Checkpoint, read_json
from .family import MODELS, Family


def _discover() -> tuple[Family, ...]:
    """The `FAMILY` of each package beside this file that has one."""
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
    """The families that have a class of this kind."""
    return tuple(family for family in FAMILIES if getattr(family, kind) is not None)


def family_of_class(name: str) -> tuple[Family, str] | None:
    """(family, kind) of a model class, as `architectures` in config.json names it; None for one not here."""
    for kind in MODELS:
        for family in families_with(kind):
            if family.class_name(kind) == name:
                return family, kind
    return None


def family_of_model_type(model_type: Any, families: Iterable[Family], where: str, note: str = "") -> Family:
    """The family of this name among some.

    Raises:
        ValueError: there is none; with `where` the name comes from, the supported names, and `note`.
    """
    known = {family.model_type: family for family in families}
    if not isinstance(model_type, str) or model_type not in known:
        raise ValueError(
            f"{where} has model_type {model_type!r}; supported here: {', '.join(sorted(known))}"
            f"{_other_kinds(model_type)}{note}"
        )
    return known[model_type]


def family_of_config(config: Any, families: Iterable[Family], user: str) -> Family:
    """The family of a configuration object, by its `model_type`.

    Raises:
        ValueError: none of `families`, one of which `user` needs.
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
    """The family that the fields of a `config.json` name, or else the checkpoint's own name.

    Raises:
        ValueError: none of `families`.
    """
    model_type = config.get("model_type")
    if isinstance(model_type, str):
        note = "; its own code (auto_map) is not run" if "auto_map" in config else ""
        return family_of_model_type(model_type, families, where, note)
    # Among all families, also those that will not do: "hubert" contains "bert", and has no text classifier.
    found = {name: family for family in FAMILIES for name in family.names if name in own_name.lower()}
    if found:
        family = found[max(found, key=len)]  # "speech_to_text_2" contains "speech_to_text" too
        return family_of_model_type(family.model_type, families, f"{where}, going by its name,")
    note = "; write one into its config.json, or call the class of its family"
    return family_of_model_type(model_type, families, where, note)


def family_of_checkpoint(checkpoint: Checkpoint, families: Iterable[Family]) -> Family:
    """The family of a checkpoint, by its configuration and else its name.

    Raises:
        OSError: no configuration.
        ValueError: none of `families`.
    """
    config = read_json(checkpoint.require("config.json"))
    return family_of_fields(config, checkpoint.name, checkpoint.own_name, families)


def _other_kinds(model_type: Any) -> str:
    """The kinds of model that a family has instead, for an error's end."""
    for family in FAMILIES:
        if family.model_type == model_type:
            ways = [way for kind, way in MODELS.items() if getattr(family, kind) is not None]
            return f" (for {model_type} there is {'; '.join(ways)})"
    return ""
