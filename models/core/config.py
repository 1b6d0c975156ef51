"""Model configurations: `config.json`, read and written as transformers does."""

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from ..checkpoints.files import Checkpoint, open_checkpoint, read_json, single_file
from ..checkpoints.hub import PushToHub
from .label_maps import LabelMaps

# What a library writes about itself.
_BOOKKEEPING = ("transformers_version", "_name_or_path", "_commit_hash", "_attn_implementation_autoset")


class PretrainedConfig(LabelMaps, PushToHub):
    """What every model's configuration shares; a family adds its own fields as keyword arguments.

    Fields that a family does not know are kept and written back, as transformers does.

    Args:
        **kwargs: any field of a `config.json`.
    """

    model_type: ClassVar[str] = ""
    # Another name under which a field can be read and written, as in transformers.
    attribute_map: ClassVar[dict[str, str]] = {}

    def __init__(self, **kwargs: Any) -> None:
        self.architectures: list[str] | None = kwargs.pop("architectures", None)
        self.output_attentions: bool = kwargs.pop("output_attentions", False)
        self.output_hidden_states: bool = kwargs.pop("output_hidden_states", False)
        self.return_dict: bool = kwargs.pop("return_dict", True)
        older = kwargs.pop("torch_dtype", None)
        dtype = kwargs.pop("dtype", None)
        dtype = older if dtype is None else dtype
        # Of the weights, by its name, such as "float16".
        self.dtype: str | None = None if dtype is None else str(dtype).removeprefix("torch.")
        kwargs.pop("model_type", None)
        self.take_labels(kwargs)
        for name, value in kwargs.items():
            if name not in _BOOKKEEPING:
                setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        alias = type(self).attribute_map.get(name)
        if alias is None:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")
        return getattr(self, alias)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(type(self).attribute_map.get(name, name), value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PretrainedConfig) and self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        return f"{type(self).__name__} {json.dumps(self.to_dict(), indent=2, sort_keys=True, default=list)}"

    @property
    def torch_dtype(self) -> str | None:
        """The older name of `dtype`."""
        return self.dtype

    def get_text_config(self, decoder: bool | None = None) -> "PretrainedConfig":
        """The configuration that has the vocabulary: this one, or in one of several parts that part's."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """Every field, with `model_type`, as in `config.json`."""
        return self.without_default_labels({**self.__dict__, "model_type": type(self).model_type})

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], **overrides: Any) -> Self:
        """A configuration from the fields of a `config.json`, some of them overridden."""
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
            return_unused_kwargs: return (configuration, the rest) with those of the arguments that are no
                field of the configuration, instead of adding them to it.
            **kwargs: `files.HUB_OPTIONS`, which `hub.HubCheckpoint` explains, and fields to replace.

        Raises:
            OSError: no such checkpoint or file, or the Hub does not answer.
            ValueError: not JSON, the configuration of another family, or fields that do not fit.
        """
        fields, overrides = read_config(name_or_dir, **kwargs)
        given = fields.get("model_type") or cls.model_type
        if cls.model_type and given != cls.model_type:
            raise ValueError(
                f"{name_or_dir} holds a {given!r} model, not {cls.model_type!r}; load it with its own class"
            )
        try:
            config = cls.from_dict(fields, **({} if return_unused_kwargs else overrides))
            return config.overridden(overrides) if return_unused_kwargs else config
        except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"{name_or_dir} has fields that make no configuration: {error}") from error

    @classmethod
    def adopt(cls, config: Any) -> Self:
        """A copy of a configuration, which may be transformers' of the same family.

        Raises:
            ValueError: of another family, or no configuration.
        """
        if isinstance(config, cls):
            return copy.deepcopy(config)
        given = getattr(config, "model_type", None)
        if not given or given != cls.model_type or not hasattr(config, "to_dict"):
            what = f"{type(config).__name__} (model_type {given!r})" if given else repr(type(config).__name__)
            raise ValueError(f"config is a {what}; give a {cls.__name__}")
        return cls.from_dict(config.to_dict())

    def overridden(self, fields: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """This configuration with fields replaced, and those of `fields` that it does not have."""
        known = {name: value for name, value in fields.items() if hasattr(self, name)}
        unknown = {name: value for name, value in fields.items() if name not in known}
        return (self.from_dict(self.to_dict(), **known) if known else self), unknown

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `config.json` into `folder`, which is made if need be."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True, default=list)
        (path / "config.json").write_text(text + "\n", encoding="utf-8")


def read_config(
    name_or_dir: str | os.PathLike[str] | Checkpoint, **kwargs: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a `config.json`, and what of `kwargs` has nothing to do with finding it."""
    file = single_file(name_or_dir)
    checkpoint, rest = open_checkpoint(name_or_dir if file is None else file.parent, **kwargs)
    return read_json(checkpoint.require("config.json") if file is None else file), rest
