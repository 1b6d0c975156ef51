"""Reading and writing of weight files: safetensors or torch's .bin, whole or in shards with an index."""

import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .contents import check_file
from .convert import FILES, FLAX, TENSORFLOW, converted
from .files import Checkpoint, add_shard, find_shards
from .originals import OriginalCheckpoint

SAFETENSORS = "model.safetensors"
BIN = "pytorch_model.bin"
INDEX = ".index.json"  # suffix of the index of a file in shards
# Weight files of other frameworks, and the argument of `from_pretrained` that reads them.
_FOREIGN = {"tf_model.h5": "from_tf", "flax_model.msgpack": "from_flax", "model.ckpt.index": "from_tf"}
_FOREIGN |= {"tf_model.h5.index.json": "from_tf", "flax_model.msgpack.index.json": "from_flax"}
# "format" in the metadata of safetensors with another framework's names and layout.
_FRAMEWORKS = {"tf": TENSORFLOW, "flax": FLAX}
# A .bin may give one storage several names, as it does for tied weights, or repeat one element with strides
# of 0. Its tensors together may be this many times the size of the file.
MAX_EXPANSION = 8
# Names of a refused class or function in torch's messages, and what gives its advice away.
_REFUSED = re.compile(r"(?:GLOBAL|Trying to (?:instantiate|set|call|load).*?class) ([\w.]+)")
_ADVICE = re.compile(r"weights[_ ]only|torch\.load|safe_globals|serialization", re.IGNORECASE)
_UNITS = {"B": 1}
for _power, _letter in enumerate("KMGT", 1):
    _UNITS |= {f"{_letter}B": 1000**_power, f"{_letter}IB": 1024**_power}


def read_weights(checkpoint: Checkpoint, use_safetensors: bool | None = None) -> dict[str, Tensor]:
    """Read every tensor of a checkpoint to the CPU, memory-mapped where possible.

    safetensors take precedence over .bin, and one file over shards, as in transformers.

    Args:
        checkpoint: checkpoint to read.
        use_safetensors: True for safetensors alone, False for .bin alone.

    Raises:
        OSError: no weights, or a shard is missing.
        ValueError: a damaged file, or a .bin of anything but tensors.
    """
    if isinstance(checkpoint, OriginalCheckpoint):
        return checkpoint.read_weights()
    loaders: dict[str, Callable[[Path], dict[str, Tensor]]] = {}
    if use_safetensors is not False:
        loaders[SAFETENSORS] = _load_safetensors
    if not use_safetensors:
        loaders[BIN] = _load_bin
    for name, load in loaders.items():
        if (path := checkpoint.find(name)) is not None:
            return load(path)
        if (path := checkpoint.find(name + INDEX)) is not None:
            return _load_shards(checkpoint, path, load)
    if foreign := next(filter(checkpoint.has, _FOREIGN), None):
        raise FileNotFoundError(
            f"{checkpoint} has weights of another framework ({foreign}); "
            f"give {_FOREIGN[foreign]}=True to have them converted"
        )
    remedy = "save the model as safetensors"
    if len(loaders) == 1:
        raise checkpoint.lacks(
            f"{next(iter(loaders))}, whole or in shards", f"leave use_safetensors out, or {remedy}"
        )
    raise checkpoint.lacks(f"weights, neither {SAFETENSORS} nor {BIN}, whole or in shards", remedy)


def framework_of(checkpoint: Checkpoint) -> str | None:
    """Framework of a checkpoint's weights where none are PyTorch's; otherwise None."""
    if isinstance(checkpoint, OriginalCheckpoint) or any(
        checkpoint.has(name + suffix) for name in (SAFETENSORS, BIN) for suffix in ("", INDEX)
    ):
        return None
    return next((framework for framework, names in FILES.items() if any(map(checkpoint.has, names))), None)


def write_weights(
    tensors: Mapping[str, Tensor],
    folder: Path,
    *,
    max_shard_size: int | str = "5GB",
    safe_serialization: bool = True,
) -> None:
    """Write tensors to files as transformers does, and remove an earlier model's that would be read first.

    Args:
        tensors: tensors by name, no two of which share memory.
        folder: existing folder to write to.
        max_shard_size: bytes, or a number and a unit ("500MB", "2GiB"); more is split, between tensors.
        safe_serialization: False for torch's .bin.

    Raises:
        ValueError: a bad max_shard_size.
    """
    name = SAFETENSORS if safe_serialization else BIN
    shards = _split(tensors, size_in_bytes(max_shard_size))
    stem, suffix = os.path.splitext(name)
    names = [name]
    if len(shards) > 1:
        names = [f"{stem}-{i:05d}-of-{len(shards):05d}{suffix}" for i in range(1, len(shards) + 1)]
    for shard_name, shard in zip(names, shards, strict=True):
        content = {key: tensors[key].detach().contiguous() for key in shard}
        part = folder / f"{shard_name}.part"  # renamed when whole: the old one may be mapped
        if safe_serialization:
            part.touch()
            mode = part.stat().st_mode  # by the umask; safetensors 0.8 would give the user alone access
            save_file(content, part, metadata={"format": "pt"})
            part.chmod(mode)
        else:
            torch.save(content, part)
        part.replace(folder / shard_name)
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(map(_size, tensors.values()))},
            "weight_map": {key: names[i] for i, shard in enumerate(shards) for key in shard},
        }
        text = json.dumps(index, indent=2, sort_keys=True)
        (folder / (name + INDEX)).write_text(text + "\n", encoding="utf-8")
        names.append(name + INDEX)
    for stale in (SAFETENSORS,) if safe_serialization else (SAFETENSORS, BIN):
        _remove_others(folder, stale, names)


def size_in_bytes(size: int | str) -> int:
    """Number of bytes of a size such as 1000, "500MB" or "2GiB"; ValueError for a bad number or unit."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", size) if isinstance(size, str) else None
    if match is not None and match[2].upper() in _UNITS:
        size = int(float(match[1]) * _UNITS[match[2].upper()])
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f'a size is bytes or a string such as "500MB" or "2GiB", not {size!r}')
    return size


def _split(tensors: Mapping[str, Tensor], limit: int) -> list[list[str]]:
    """Tensor names of each shard, in order: at most `limit` bytes or one tensor; at least one shard."""
    shards: list[list[str]] = [[]]
    room = limit
    for name, tensor in tensors.items():
        if shards[-1] and _size(tensor) > room:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= _size(tensor)
    return shards


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _remove_others(folder: Path, name: str, written: list[str]) -> None:
    """Remove the weight files of `name`, whole or in shards, except those just written."""
    stem, suffix = map(re.escape, os.path.splitext(name))
    weights = re.compile(rf"{stem}(-\d{{5}}-of-\d{{5}})?{suffix}({re.escape(INDEX)})?")
    for path in folder.iterdir():
        if weights.fullmatch(path.name) and path.name not in written:
            path.unlink()


def _load_shards(
    checkpoint: Checkpoint, index: Path, load: Callable[[Path], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Load the tensors that an index names, each from its shard; missing ones are left out."""
    tensors: dict[str, Tensor] = {}
    for path, names in find_shards(checkpoint, index):
        content = load(path)
        if load is _load_safetensors and _writer(path) is not None:  # the index has that framework's names
            add_shard(tensors, content, index)
        else:
            tensors |= {name: tensor for name, tensor in content.items() if name in names}
    return tensors


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    check_file(path)
    try:
        framework, tensors = _writer(path), load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); fetch it again") from None
    return tensors if framework is None else converted(tensors, framework, str(path))


def _writer(path: Path) -> str | None:
    """Framework that a safetensors file is of, by its metadata; None for PyTorch."""
    with safe_open(path, "pt") as content:
        return _FRAMEWORKS.get((content.metadata() or {}).get("format", ""))


def _load_bin(path: Path) -> dict[str, Tensor]:
    """Load the tensors of a pickled .bin file; ValueError where it holds anything else."""
    return checked_tensors(unpickled(path), path)


def unpickled(path: Path) -> Any:
    """Content of a file that `torch.save` wrote: tensors and plain containers, and no other object.

    Raises:
        OSError: no such file, or no rights to read it.
        ValueError: a damaged file, or one that names any class or function.
    """
    check_file(path)
    try:
        mapped = _is_stored_zip(path)  # the format before torch 1.6 cannot be mapped
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch asks to file issues for other versions of pickle
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is damaged, or holds more than tensors and is not unpickled ({_refusal(error)}); "
            "fetch it again, or save the model as safetensors"
        ) from None
    except MemoryError:  # a damaged length asks for more than any memory has
        raise ValueError(
            f"{path} is damaged, or needs more memory than there is; fetch it again, or load it elsewhere"
        ) from None
    except Exception as error:  # the opcodes of a damaged pickle can raise anything
        raise ValueError(f"{path} is damaged ({_refusal(error)}); fetch it again") from None


def checked_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Tensors by name out of a file; ValueError for anything else, or for more bytes than it can hold."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold an object of tensors, it holds a {type(content).__name__}")
    size, limit = 0, MAX_EXPANSION * path.stat().st_size
    for name, tensor in content.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor) and _is_plain(tensor)):
            raise ValueError(f"{path} must hold dense tensors by name; {name!r} is a {_kind(tensor)}")
        size += _size(tensor)
        if size > limit:
            raise ValueError(
                f"{path} is damaged (its tensors have over {limit} bytes, at {name!r} of shape "
                f"{list(tensor.shape)}, and it has {path.stat().st_size}); fetch it again"
            )
    return {name: tensor.detach() for name, tensor in content.items()}


def _is_plain(tensor: Tensor) -> bool:
    """True for a dense, real, unquantized tensor on the CPU; a pickle can hold other kinds."""
    dense = tensor.layout is torch.strided and not tensor.is_nested
    return dense and tensor.device.type == "cpu" and not (tensor.is_quantized or tensor.is_complex())


def _kind(value: object) -> str:
    if not isinstance(value, Tensor) or value.layout is not torch.strided or _is_plain(value):
        return type(value).__name__
    return f"nested {type(value).__name__}" if value.is_nested else f"{value.dtype} on {value.device.type}"


def _is_stored_zip(path: Path) -> bool:
    """True for a zip file; ValueError for a compressed one, which may unpack to any size."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed")
    return True


def _refusal(error: Exception) -> str:
    """Reason of torch's error in one short line, without its advice to allow what it refuses."""
    text = str(error)
    if named := _REFUSED.search(text):
        return f"it names {named[1][:80]}, which is no part of tensors"
    if isinstance(error, EOFError):
        return "it ends too early"
    line = next(iter(text.splitlines()), "")
    if not isinstance(error, RuntimeError | ValueError) or _ADVICE.search(line) or not line:
        return "it is no pickle of tensors"
    return line.partition(". ")[0][:200]
