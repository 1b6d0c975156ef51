"""Model configurations: `config.json`, read and written as transformers does."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from .files import read_json, resolve_folder


class PretrainedConfig:
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
        kwargs.pop("model_type", None)
        for name, value in kwargs.items():
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

    def to_dict(self) -> dict[str, Any]:
        """Every field, with `model_type`, as in `config.json`."""
        return {**self.__dict__, "model_type": type(self).model_type}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], **overrides: Any) -> Self:
        """A configuration from the fields of a `config.json`, some of them overridden."""
        return cls(**{**fields, **overrides})

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike[str], **overrides: Any) -> Self:
        """Read `config.json` of a checkpoint folder.

        Args:
            name_or_dir: the folder.
            **overrides: fields to replace.

        Raises:
            FileNotFoundError: no such folder or file.
            ValueError: not JSON, or the configuration of another family.
        """
        fields = read_json(resolve_folder(name_or_dir) / "config.json")
        given = fields.get("model_type", cls.model_type)
        if cls.model_type and given != cls.model_type:
            raise ValueError(
                f"{name_or_dir} holds a {given!r} model, not {cls.model_type!r}; load it with its own class"
            )
        return cls.from_dict(fields, **overrides)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` into `folder`, which is made if need be."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True, default=list)
        (path / "config.json").write_text(text + "\n", encoding="utf-8")
