"""Reading of CTranslate2's `model.bin`: variables by name, quantized ones as floats, and aliases.

The layout is that of `ModelSpec._serialize` in ctranslate2 4.8, whose binary versions 5 and 6 are alike.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from .mapped_file import MAX_DIMENSIONS, MappedFile

FILENAME = "model.bin"
_VERSIONS = range(4, 7)
_DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")  # by their numbers in the file
_SCALE = "_scale"  # suffix of the variable with the factors of a quantized one


@dataclass(frozen=True, slots=True)
class CTranslate2Model:
    """Content of a `model.bin`.

    Attributes:
        spec: name of the architecture's specification, such as "WhisperSpec".
        revision: its revision, raised when a layout changes.
        tensors: variables by name; an alias shares its tensor.
    """

    spec: str
    revision: int
    tensors: dict[str, Tensor] = field(repr=False)


def read_ctranslate2(path: Path) -> CTranslate2Model:
    """Read a `model.bin`; int8 and int16 weights are divided by their scales, to float32.

    Raises:
        OSError: no such file, or no rights to read it.
        ValueError: a damaged file, another binary version, or weights quantized in another way.
    """
    with MappedFile(path) as file:
        return _Reader(file).model()


class _Reader:
    """Reader of one file, from its start to its end."""

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        self._position = 0

    def model(self) -> CTranslate2Model:
        version = self._number("I")
        if version not in _VERSIONS:
            raise ValueError(
                f"{self._file.path} has binary version {version}, and {_VERSIONS[0]} to {_VERSIONS[-1]} are "
                "read; it is no model of CTranslate2, or convert it again with a recent one"
            )
        spec, revision = self._text(), self._number("I")
        stored: dict[str, Tensor] = {}
        for _ in range(self._number("I")):
            self._variable(stored)
        names = {self._text(): self._text() for _ in range(self._count("aliases"))}
        if self._position != self._file.size:
            raise self._file.damaged(f"{self._file.size - self._position} bytes follow its end")
        tensors = _floats(stored, self._file)
        for alias, name in names.items():
            if name not in tensors or alias in tensors:
                raise self._file.damaged(f"{alias[:80]!r} is an alias of {name[:80]!r}")
            tensors[alias] = tensors[name]
        return CTranslate2Model(spec, revision, tensors)

    def _variable(self, stored: dict[str, Tensor]) -> None:
        name = self._text()
        self._file.check_name(name, len(stored))
        if name in stored:
            raise self._file.damaged(f"it has {name!r} twice")
        rank = self._number("B")
        if rank > MAX_DIMENSIONS:
            raise self._file.damaged(f"{name!r} has over {MAX_DIMENSIONS} dimensions")
        shape = tuple(self._number("I") for _ in range(rank))
        number, size = self._number("B"), self._number("I")
        dtype = _DTYPES[number] if number < len(_DTYPES) else f"number {number}"
        stored[name] = self._file.tensor(name, dtype, shape, self._position, size)
        self._position += size

    def _count(self, kind: str) -> int:
        count = self._number("I")
        if count > self._file.size:
            raise self._file.damaged(f"it claims {count} {kind}")
        return count

    def _number(self, form: str) -> int:
        return int(struct.unpack("<" + form, self._bytes(struct.calcsize("<" + form)))[0])

    def _text(self) -> str:
        data = self._bytes(self._number("H"))
        try:
            return data.rstrip(b"\0").decode()
        except UnicodeDecodeError:
            raise self._file.damaged(f"a name is not UTF-8: {data[:40]!r}") from None

    def _bytes(self, count: int) -> bytes:
        end = self._position + count
        if end > self._file.size:
            raise self._file.damaged("it ends too early")
        data = bytes(self._file.data[self._position : end])
        self._position = end
        return data


def _floats(stored: dict[str, Tensor], file: MappedFile) -> dict[str, Tensor]:
    """Variables without scales, each quantized one divided by its own: per row in int8, one in int16."""
    scales = {name for name in stored if name.endswith(_SCALE) and name.removesuffix(_SCALE) in stored}
    tensors = {}
    for name in stored.keys() - scales:
        tensor = stored[name]
        if name + _SCALE in scales:
            scale = stored[name + _SCALE].float()
            if tensor.is_floating_point() or scale.shape not in ((), tensor.shape[:1]):
                raise file.damaged(
                    f"{name!r}, {tensor.dtype} of shape {list(tensor.shape)}, has scales of shape "
                    f"{list(scale.shape)}"
                )
            rows = scale.reshape(scale.shape + (1,) * (tensor.dim() - 1)) if scale.dim() else scale
            tensor = tensor.float() / rows
        elif tensor.dim() > 1 and not tensor.is_floating_point():
            raise ValueError(
                f"{file.path}: {name!r} is quantized in {tensor.dtype} without scales, in a way that is not "
                "read; convert the model to float16 or int8"
            )
        tensors[name] = tensor
    return tensors
