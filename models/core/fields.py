"""Declarative fields of configurations, each with annotation, default, check, converter and alias."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, get_origin

from ...kernels.linear.activation import ACTIVATIONS
from .field_types import conform, shown

# A check takes a configuration and the name of one of its fields, and raises ValueError.
Check = Callable[[Any, str], None]
ABSENT: Any = object()  # default of an inherited field that this family does not have


@dataclass(frozen=True)
class Field:
    """Declaration of a configuration field, made by `field`."""

    default: Any
    check: Check | None = None
    convert: Callable[[Any], Any] | None = None
    alias: str | None = None
    annotation: Any = Any

    def read(self, name: str, value: Any) -> Any:
        """Convert a value and check its type and range; ValueError names the field as `name`."""
        value = value if self.convert is None else self.convert(value)
        return None if value is None and self.default is None else conform(name, value, self.annotation)


def field(
    default: Any,
    *,
    check: Check | None = None,
    convert: Callable[[Any], Any] | None = None,
    alias: str | None = None,
) -> Any:
    """Declare a configuration field; without check, converter and alias write `name: type = default`.

    Args:
        default: value of the field where none is given.
        check: function that raises ValueError for a bad value, called once every field is set.
        convert: function that converts the given value or the default.
        alias: second name by which the field can be given, read and set.
    """
    return Field(default, check, convert, alias)


class Fields:
    """Base class of configurations that declare their fields in the class body.

    A value is checked against the type and range of its field's annotation, see `field_types.conform`.
    A subclass inherits fields; setting one again replaces its default and keeps check, converter and alias.
    Fields can be given by position, a class's own before those of its bases. Unknown fields are kept.
    """

    _fields: ClassVar[dict[str, Field]] = {}
    # Field names by alias, as in transformers.
    attribute_map: ClassVar[dict[str, str]] = {}
    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        hints, own = inspect.get_annotations(cls), {}
        for name, value in list(vars(cls).items()):
            inherited = cls._fields.get(name)
            if inherited is None and (name not in hints or get_origin(hints[name]) is ClassVar):
                continue
            given = value if isinstance(value, Field) else Field(value)
            if inherited is not None:
                given = replace(inherited, default=given.default, check=given.check or inherited.check)
            own[name] = replace(given, annotation=hints.get(name, given.annotation))
            delattr(cls, name)  # so that `__getattr__` handles a missing field
        cls._fields = own | {name: given for name, given in cls._fields.items() if name not in own}
        cls.attribute_map = {given.alias: name for name, given in cls._fields.items() if given.alias}
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [
            inspect.Parameter(name, kind, default=given.default, annotation=given.annotation)
            for name, given in cls._fields.items()
        ]
        unknown = inspect.Parameter("unknown", inspect.Parameter.VAR_KEYWORD, annotation=Any)
        cls.__signature__ = inspect.Signature([*parameters, unknown])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = self.__signature__.bind(*args, **kwargs).arguments
        unknown = given.pop("unknown", {})
        for name, declared in self._fields.items():
            value = given.get(name, declared.default)
            if value is not ABSENT:
                setattr(self, name, declared.read(name, value))
        for name, value in unknown.items():  # last, so that an alias is not overwritten by a default
            aliased = self._fields.get(self.attribute_map.get(name, ""))
            setattr(self, name, value if aliased is None else aliased.read(name, value))
        for name, declared in self._fields.items():
            if declared.check is not None and name in self.__dict__:
                declared.check(self, name)
        self._complete()

    def _complete(self) -> None:
        """Derive fields from others and check combinations of fields; by default nothing."""

    def __getattr__(self, name: str) -> Any:
        target = type(self).attribute_map.get(name)
        if target is None:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")
        return getattr(self, target)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(type(self).attribute_map.get(name, name), value)


def _parts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def divides(width: str) -> Check:
    """Make the check that a number of heads or groups divides the field `width`."""

    def check(config: Any, name: str) -> None:
        number, whole = getattr(config, name), getattr(config, width)
        if whole % number:
            raise ValueError(f"{name} {number} must divide {width} {whole}")

    return check


def one_of(*accepted: str) -> Check:
    """Make the check that a name, or each in a list, is an accepted one."""

    def check(config: Any, name: str) -> None:
        for part in _parts(getattr(config, name)):
            if part not in accepted:
                known = f"{', '.join(map(repr, accepted[:-1]))} or {accepted[-1]!r}"
                raise ValueError(f"{name} {shown(part)} is not supported; use {known}")

    return check


def in_vocabulary(config: Any, name: str) -> None:
    """Check that a token id is None or below `vocab_size`; torch counts negative ones from the end."""
    token, size = getattr(config, name), config.vocab_size
    if token is not None and not -size <= token < size:
        raise ValueError(f"{name} is {token}, and vocab_size {size}: the tokens are 0 to {size - 1}")


def activation(config: Any, name: str) -> None:
    """Check that a field is the name of a supported activation function."""
    value = getattr(config, name)
    if value not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise ValueError(f"{name} {shown(value)} is not supported; one of {known}")


def optional_activation(config: Any, name: str) -> None:
    """Check that a field is the name of a supported activation function, or None."""
    if getattr(config, name) is not None:
        activation(config, name)


def check_cross_width(config: Any, width: int) -> None:
    """Check that the encoder is as wide as the decoder, as cross-attention requires in transformers too.

    Raises:
        ValueError: a `cross_attention_hidden_size` that is neither None nor the decoder's `width`.
    """
    given = getattr(config, "cross_attention_hidden_size", None)
    if given not in (None, width):
        raise ValueError(
            f"cross_attention_hidden_size is {given}, and a {config.model_type} decoder of width {width} "
            "reads encoder outputs of that width; leave it out, and SpeechEncoderDecoderModel projects them"
        )
