"""Reader of Flax's msgpack files: nested maps of tensors, as `flax.serialization` writes them.

An array is a msgpack extension of code 1, a scalar one of code 3; both hold (shape, dtype's name, bytes). An
array of over a gigabyte is a map of chunks.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .extras import import_for
from .mapped_file import MAX_DIMENSIONS, MAX_NAME_LENGTH, MappedFile

MAX_DEPTH = 32  # maps in maps; models have about ten
MAX_ENTRIES = 1_000_000  # of all maps together
MAX_CHUNKS = 10_000
_CHUNKED = "__msgpack_chunked_array__"
_ARRAY_CODES = (1, 3)


class _Array(NamedTuple):
    shape: tuple[int, ...]
    dtype: str
    data: bytes


Pairs = list[tuple[Any, Any]]  # keys and values of a map, repeated keys included


def read_msgpack(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a Flax file, by its keys joined with "/".

    Args:
        path: path of an existing file.

    Raises:
        ImportError: msgpack is not installed.
        ValueError: a damaged file, or one of anything but maps of tensors.
    """
    msgpack = import_for(path, "msgpack", "msgpack", "flax")
    with MappedFile(path) as file:
        try:
            tree = _unpack(msgpack, file)
        except msgpack.StackError:
            raise file.damaged(f"its maps are nested over {MAX_DEPTH} deep") from None
        except msgpack.ExtraData as error:
            raise file.damaged(f"there are {len(error.extra)} bytes behind its end") from None
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise file.damaged(str(error)[:300] or type(error).__name__) from None
        if not isinstance(tree, list):
            raise file.damaged(f"it holds {_kind(tree)} at its start, not a map of tensors")
        tensors: dict[str, Tensor] = {}
        _collect(file, tree, "", 0, tensors)
        return tensors


def _unpack(msgpack: Any, file: MappedFile) -> Any:
    """Parse a file, maps to `Pairs` and arrays to `_Array`, in memory bounded by the file's size."""
    entries = 0

    def pairs(content: Pairs) -> Pairs:
        nonlocal entries
        entries += len(content)
        if entries > MAX_ENTRIES:
            raise ValueError(f"it has over {MAX_ENTRIES} entries")
        return content

    def extension(code: int, data: bytes) -> _Array:
        if code not in _ARRAY_CODES:
            raise ValueError(f"it holds an extension of kind {code}")
        content = msgpack.unpackb(data, use_list=False, max_array_len=2 * MAX_DIMENSIONS, max_map_len=0)
        match content:
            case (tuple() as shape, str() as dtype, bytes() as raw) if all(type(n) is int for n in shape):
                return _Array(shape, dtype, raw)
        raise ValueError("a tensor is not made of shape, dtype and bytes")

    return msgpack.unpackb(
        file.data,
        ext_hook=extension,
        object_pairs_hook=pairs,
        use_list=False,
        strict_map_key=False,
        max_str_len=MAX_NAME_LENGTH,
        max_array_len=2 * MAX_DIMENSIONS,
        max_map_len=MAX_ENTRIES,
    )


def _collect(file: MappedFile, content: Pairs, prefix: str, depth: int, tensors: dict[str, Tensor]) -> None:
    """Move the tensors of a nested map into `tensors`, named by `prefix` and their keys."""
    if depth >= MAX_DEPTH:
        raise file.damaged(f"its maps are nested over {MAX_DEPTH} deep")
    if any(key == _CHUNKED for key, _ in content):
        name = prefix.removesuffix("/")
        _add(file, name, _join_chunks(file, name, content), tensors)
        return
    content.reverse()
    while content:
        key, value = content.pop()
        if not isinstance(key, str):
            raise file.damaged(f"a key is no text but {_kind(key)}")
        name = prefix + key
        file.check_name(name, len(tensors))
        if isinstance(value, list):
            _collect(file, value, f"{name}/", depth + 1, tensors)
        elif isinstance(value, _Array):
            _add(file, name, _tensor(file, name, value), tensors)
        else:
            raise file.damaged(f"{name!r} is no tensor but {_kind(value)}")


def _add(file: MappedFile, name: str, tensor: Tensor, tensors: dict[str, Tensor]) -> None:
    if name in tensors:
        raise file.damaged(f"it has {name!r} twice")
    tensors[name] = tensor


def _tensor(file: MappedFile, name: str, array: _Array) -> Tensor:
    return file.tensor_of_bytes(name, array.dtype, array.shape, array.data)


def _join_chunks(file: MappedFile, name: str, content: Pairs) -> Tensor:
    """Join a tensor from a map of its shape and its flat chunks, both maps with keys from "0" on."""
    match content:
        case [(str(), True), ("shape", list() as lengths), ("chunks", list() as chunks)]:
            pass
        case _:
            raise file.damaged(f"{name!r} in chunks is not made of shape and chunks alone")
    for part, entries, limit in (("shape", lengths, MAX_DIMENSIONS), ("chunks", chunks, MAX_CHUNKS)):
        kind = int if part == "shape" else _Array
        in_order = [key for key, _ in entries] == [str(number) for number in range(len(entries))]
        if len(entries) > limit or not in_order or not all(type(value) is kind for _, value in entries):
            raise file.damaged(f"{name!r} in chunks has a wrong {part}")
    shape = [length for _, length in lengths]
    pieces = [_tensor(file, name, chunk).flatten() for _, chunk in chunks]
    if len({piece.dtype for piece in pieces}) > 1:
        raise file.damaged(f"the chunks of {name!r} are of several dtypes")
    try:
        return torch.cat(pieces).reshape(shape)
    except (RuntimeError, TypeError, ValueError):
        raise file.damaged(f"the chunks of {name!r} do not make up {shape}") from None


def _kind(value: Any) -> str:
    """Name of a value's type, for error messages."""
    return {tuple: "a list", str: "text", bytes: "bytes", type(None): "nothing"}.get(
        type(value), f"{type(value).__name__} {value!r:.40}"
    )
