"""Base class of model configurations, and reading and writing of `config.json` as in transformers."""

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from ..checkpoints.contents import read_json
from ..checkpoints.files import Checkpoint, open_checkpoint, single_file
from ..checkpoints.hub import PushToHub
from .field_types import shown
from .fields import Fields, field
from .label_maps import LabelMaps

# Metadata that libraries write about themselves; dropped when read.
_BOOKKEEPING = ("transformers_version", "_name_or_path", "_commit_hash", "_attn_implementation_autoset")


def dtype_name(given: Any) -> Any:
    """Name of a torch dtype without "torch."; anything but a name or a dtype is returned as it is."""
    if isinstance(given, str) or type(given).__module__ == "torch":
        return str(given).removeprefix("torch.")
    return given


class PretrainedConfig(Fields, LabelMaps, PushToHub):
    """Base configuration with the fields of every model; a family declares its own in a subclass.

    Fields that a family does not know are kept and written back, as in transformers. Text models initialize
    weights randomly with the standard deviation `init_std`, a field or an alias of one.

    Args:
        **kwargs: any field of a `config.json`.

    Raises:
        ValueError: fields that are invalid, alone or in combination.
        TypeError: more positional arguments than fields, or a field given twice.
    """

    model_type: ClassVar[str] = ""

    architectures: list[str] | None = None
    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = True
    # Data type of the weights by its name, such as "float16".
    dtype: str | None = field(None, convert=dtype_name)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        older = kwargs.pop("torch_dtype", None)
        if older is not None and kwargs.get("dtype") is None:
            kwargs["dtype"] = older
        self.take_labels(kwargs)
        for name in ("model_type", *_BOOKKEEPING):
            kwargs.pop(name, None)
        super().__init__(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PretrainedConfig) and self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    @property
    def torch_dtype(self) -> str | None:
        """Data type of the weights; `torch_dtype` is the older name of `dtype`."""
        return self.dtype

    def get_text_config(self, decoder: bool | None = None) -> "PretrainedConfig":
        """Configuration with the vocabulary: this one, or that of the text decoder in a composite model."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """All fields and `model_type`, as in `config.json`."""
        return self.without_default_labels({**self.__dict__, "model_type": type(self).model_type})

    def to_json_string(self) -> str:
        """Text of `config.json`, with sorted keys."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, default=list)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], **overrides: Any) -> Self:
        """Make a configuration from the fields of a `config.json`, some replaced by `overrides`."""
        return cls(**{**fields, **overrides})

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | os.PathLike[str] | Checkpoint,
        *,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Read `config.json` of a checkpoint.

        Args:
            name_or_dir: a folder, the id of a repository on the Hub, or a JSON file.
            return_unused_kwargs: return (configuration, the arguments that are not its fields) instead of
                adding those as fields.
            **kwargs: `files.HUB_OPTIONS`, which `hub.HubCheckpoint` explains, and fields to replace.

        Raises:
            OSError: no such checkpoint or file, or the Hub does not answer.
            ValueError: a file that is not JSON, the configuration of another family, or invalid fields.
        """
        path, overrides = _config_file(name_or_dir, **kwargs)
        fields = read_json(path)
        given = fields.get("model_type") or cls.model_type
        if cls.model_type and given != cls.model_type:
            raise ValueError(
                f"{name_or_dir} holds a {shown(given)} model, not {cls.model_type!r}, by its "
                "model_type; load it with its own class"
            )
        try:
            config = cls.from_dict(fields, **({} if return_unused_kwargs else overrides))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"{path} has fields that make no configuration: {error}") from error
        return config.overridden(overrides) if return_unused_kwargs else config

    @classmethod
    def adopt(cls, config: Any) -> Self:
        """Copy a configuration object of this family, made by this library or by transformers.

        Raises:
            ValueError: a configuration of another family, or an object that is no configuration.
        """
        if isinstance(config, cls):
            return copy.deepcopy(config)
        given = getattr(config, "model_type", None)
        if not given or given != cls.model_type or not hasattr(config, "to_dict"):
            what = f"{type(config).__name__} (model_type {given!r})" if given else repr(type(config).__name__)
            raise ValueError(f"config is a {what}; give a {cls.__name__}")
        return cls.from_dict(config.to_dict())

    def overridden(self, fields: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """Replace known fields: (new configuration, the entries of `fields` that it does not have)."""
        known = {name: value for name, value in fields.items() if hasattr(self, name)}
        unknown = {name: value for name, value in fields.items() if name not in known}
        return (self.from_dict(self.to_dict(), **known) if known else self), unknown

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `config.json` into `folder`, creating it if needed."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "config.json").write_text(self.to_json_string() + "\n", encoding="utf-8")


def read_config(
    name_or_dir: str | os.PathLike[str] | Checkpoint, **kwargs: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a checkpoint's `config.json`: (its fields, the entries of `kwargs` that are not Hub options)."""
    path, rest = _config_file(name_or_dir, **kwargs)
    return read_json(path), rest


def _config_file(
    name_or_dir: str | os.PathLike[str] | Checkpoint, **kwargs: Any
) -> tuple[Path, dict[str, Any]]:
    """Path of a checkpoint's `config.json`, and the entries of `kwargs` that are not Hub options."""
    file = single_file(name_or_dir)
    checkpoint, rest = open_checkpoint(name_or_dir if file is None else file.parent, **kwargs)
    return checkpoint.require("config.json") if file is None else file, rest
