"""Types and ranges of values in JSON files: check and convert one value by its annotation."""

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

MAX_ITEMS = 100_000  # of a list


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest and largest value of a number, in its `Annotated` type."""

    least: float
    most: float


# The upper bounds lie far above any model, and low enough that a mistake costs neither memory nor time.
Size = Annotated[int, Range(1, 2**24)]  # width, vocabulary
Count = Annotated[int, Range(0, 2**24)]
MAX_LAYERS = 4096
Layers = Annotated[int, Range(0, MAX_LAYERS)]
Positions = Annotated[int, Range(1, 2**20)]
Small = Annotated[int, Range(1, 4096)]  # kernel, stride, group of layers
Signed = Annotated[int, Range(-(2**24), 2**24)]
TokenId = Annotated[int, Range(-(2**31), 2**31 - 1)]  # some checkpoints have -1 for none
Probability = Annotated[float, Range(0, 1)]
Epsilon = Annotated[float, Range(0, 1)]
Deviation = Annotated[float, Range(0, 1_000_000)]


class _Unfit(Exception):
    """A value that is not of its type."""


def conform(name: str, value: Any, kind: Any) -> Any:
    """Check a value against the annotation of its field, and convert it to plain Python.

    NumPy's and torch's scalars count as numbers, a float without fraction as a whole number, 0 and 1 as bool,
    null as False, tuples as lists; nothing else is converted.

    Args:
        name: name of the field, for the error.
        value: value as JSON or a caller gives it.
        kind: annotation: Any, bool, int, float, str, None, a class, `list`, `dict` and unions of these, and
            `Annotated` with a `Range`.

    Raises:
        ValueError: another type, a number out of range or not finite; the message names field and value.
    """
    try:
        return _read(value, kind)
    except _Unfit:
        raise ValueError(f"{name} must be {described(kind)}, got {shown(value)}") from None


def shown(value: Any) -> str:
    """Short text of any value for a message; never fails, and takes no longer for a large value."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of about {int(value.bit_length() * 0.302)} digits"
    if isinstance(value, str):
        return f"{value!r}" if len(value) <= 60 else f"{value[:57]!r}... ({len(value)} characters)"
    try:
        text = _SHORT.repr(value)
    except (ValueError, RecursionError):  # a number of over 4,300 digits inside
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxtuple = 3, 6, 4, 6


def described(kind: Any) -> str:
    """Description of the accepted values of an annotation, such as "a whole number from 1 to 9"."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(described, arguments))
    if origin is Annotated:
        limits = " and ".join(f"from {part.least:,} to {part.most:,}" for part in arguments[1:])
        return f"{described(arguments[0])} {limits}"
    if origin in (list, Sequence):
        return "a list" if arguments[0] is Any else f"a list, each item {described(arguments[0])}"
    if origin is dict or kind is dict:
        return "an object"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}
    return names.get(kind, f"a {getattr(kind, '__name__', kind)}")


def _read(value: Any, kind: Any) -> Any:
    """Value converted to an annotation's type; `_Unfit` if it is of another."""
    if kind is Any:
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _read_first(value, arguments)
    if origin is Annotated:
        return _in_range(_read(value, arguments[0]), arguments[1:])
    if origin in (list, Sequence):
        if not isinstance(value, list | tuple) or len(value) > MAX_ITEMS:
            raise _Unfit
        return [_read(part, arguments[0]) for part in value]
    if origin is dict:
        kind = Mapping
    reader = _READERS.get(kind)
    if reader is not None:
        return reader(value)
    if not isinstance(value, kind):
        raise _Unfit
    return value


def _read_first(value: Any, kinds: tuple[Any, ...]) -> Any:
    for kind in kinds if value is not None else [kind for kind in kinds if kind is NoneType]:
        try:
            return _read(value, kind)
        except _Unfit:
            continue
    raise _Unfit


def _in_range(value: Any, ranges: tuple[Any, ...]) -> Any:
    if not all(part.least <= value <= part.most for part in ranges):
        raise _Unfit
    return value


def _bool(value: Any) -> bool:
    if value is None:
        return False
    if isinstance(value, bool) or (type(value) in (int, float) and value in (0, 1)):
        return bool(value)
    raise _Unfit


def _int(value: Any) -> int:
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise _Unfit


def _float(value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise _Unfit
    try:
        finite = math.isfinite(value)
    except OverflowError:
        raise _Unfit from None
    if not finite:
        raise _Unfit
    return value if isinstance(value, int | float) else float(value)


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise _Unfit
    return value


def _none(value: Any) -> None:
    if value is not None:
        raise _Unfit


_READERS: dict[Any, Any] = {bool: _bool, int: _int, float: _float, str: _str, NoneType: _none}
