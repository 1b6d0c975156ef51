"""Files of weights: safetensors or torch's .bin, whole or in shards with an index."""

import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .convert import FLAX, TENSORFLOW, converted
from .files import Checkpoint, read_json

SAFETENSORS = "model.safetensors"
BIN = "pytorch_model.bin"
INDEX = ".index.json"  # behind the name of the file that is in shards
# What other frameworks' checkpoints hold instead, and the argument that reads it.
_FOREIGN = {"tf_model.h5": "from_tf", "flax_model.msgpack": "from_flax", "model.ckpt.index": "from_tf"}
_FOREIGN |= {"tf_model.h5.index.json": "from_tf", "flax_model.msgpack.index.json": "from_flax"}
# Who wrote safetensors in names and layout of its own, as their metadata says it.
_FRAMEWORKS = {"tf": TENSORFLOW, "flax": FLAX}
# Names that a .bin may give to one place, as it does to tied weights; a tensor may also be one number, as
# often as it says. What is loaded is bounded by that many times the file.
_MOST_NAMES = 8
_UNITS = {"B": 1}
for _power, _letter in enumerate("KMGT", 1):
    _UNITS |= {f"{_letter}B": 1000**_power, f"{_letter}IB": 1024**_power}


def read_weights(checkpoint: Checkpoint, use_safetensors: bool | None = None) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, on the CPU and mapped into memory rather than read where that can be.

    safetensors go before .bin, and one file before shards, as in transformers.

    Args:
        checkpoint: its files.
        use_safetensors: True for safetensors alone, False for .bin alone.

    Raises:
        OSError: no weights, or a shard is missing.
        ValueError: a file that is damaged or, for .bin, holds anything but tensors.
    """
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


def write_weights(
    tensors: Mapping[str, Tensor],
    folder: Path,
    *,
    max_shard_size: int | str = "5GB",
    safe_serialization: bool = True,
) -> None:
    """Write tensors as transformers does, and remove the files of an earlier model that would be read first.

    Args:
        tensors: none of them sharing memory with another.
        folder: exists.
        max_shard_size: bytes, or a number and a unit ("500MB", "2GiB"); more is split, between tensors.
        safe_serialization: False for torch's .bin.

    Raises:
        ValueError: a size that is none.
    """
    name = SAFETENSORS if safe_serialization else BIN
    shards = _split(tensors, size_in_bytes(max_shard_size))
    stem, suffix = os.path.splitext(name)
    names = [name]
    if len(shards) > 1:
        names = [f"{stem}-{i:05d}-of-{len(shards):05d}{suffix}" for i in range(1, len(shards) + 1)]
    for shard_name, shard in zip(names, shards, strict=True):
        content = {key: tensors[key].detach().contiguous() for key in shard}
        part = folder / f"{shard_name}.part"  # renamed when whole: somebody may be reading the old one
        if safe_serialization:
            part.touch()
            mode = (
                part.stat().st_mode
            )  # what the user's umask leaves; safetensors 0.8 writes for the user alone
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
        _remove(folder, stale, names)


def size_in_bytes(size: int | str) -> int:
    """Bytes of a size such as 1000, "500MB" or "2GiB".

    Raises:
        ValueError: not a positive number with a known unit.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", size) if isinstance(size, str) else None
    if match is not None and match[2].upper() in _UNITS:
        size = int(float(match[1]) * _UNITS[match[2].upper()])
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f'a size is bytes or a string such as "500MB" or "2GiB", not {size!r}')
    return size


def _split(tensors: Mapping[str, Tensor], most: int) -> list[list[str]]:
    """Names in order, cut where a shard would be larger than `most` bytes; at least one shard."""
    shards: list[list[str]] = [[]]
    room = most
    for name, tensor in tensors.items():
        if shards[-1] and _size(tensor) > room:
            shards.append([])
            room = most
        shards[-1].append(name)
        room -= _size(tensor)
    return shards


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _remove(folder: Path, name: str, kept: list[str]) -> None:
    stem, suffix = map(re.escape, os.path.splitext(name))
    ours = re.compile(rf"{stem}(-\d{{5}}-of-\d{{5}})?{suffix}({re.escape(INDEX)})?")
    for path in folder.iterdir():
        if ours.fullmatch(path.name) and path.name not in kept:
            path.unlink()


def _load_shards(
    checkpoint: Checkpoint, index: Path, load: Callable[[Path], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors that an index names, each from its shard; those that a shard lacks are left out."""
    homes = read_json(index).get("weight_map")
    if not isinstance(homes, dict) or not all(isinstance(shard, str) for shard in homes.values()):
        raise ValueError(f"{index} must hold weight_map, an object of file names; fetch it again")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(homes.values())):
        if not re.fullmatch(r"\w[\w.-]{0,254}", shard):  # longer ones no file system has
            raise ValueError(f"{index} names a shard outside its folder: {shard[:255]!r}")
        path = checkpoint.find(shard)
        if path is None:
            raise checkpoint.lacks(f"{shard}, which its index names", "fetch it again")
        content = load(path)
        if load is _load_safetensors and _writer(path) is not None:  # the index has that framework's names
            if both := tensors.keys() & content.keys():
                raise ValueError(f"{index} leads to several values of {min(both)!r}; fetch it again")
            tensors |= content
        else:
            tensors |= {name: content[name] for name in content if homes.get(name) == shard}
    return tensors


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        framework, tensors = _writer(path), load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); fetch it again") from None
    return tensors if framework is None else converted(tensors, framework, str(path))


def _writer(path: Path) -> str | None:
    """The framework other than PyTorch that a safetensors file says it is from."""
    with safe_open(path, "pt") as content:
        return _FRAMEWORKS.get((content.metadata() or {}).get("format", ""))


def _load_bin(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickle that is allowed to hold nothing else."""
    try:
        mapped = _is_stored_zip(path)  # the format before torch 1.6 cannot be mapped
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is damaged, or holds more than tensors and is not unpickled ({_first_line(error)}); "
            "fetch it again, or save the model as safetensors"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way that its opcodes can
        raise ValueError(f"{path} is damaged ({_first_line(error)}); fetch it again") from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold an object of tensors, it holds a {type(content).__name__}")
    size, most = 0, _MOST_NAMES * path.stat().st_size
    for name, tensor in content.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor) and _is_plain(tensor)):
            raise ValueError(f"{path} must hold dense tensors by name; {name!r} is a {_kind(tensor)}")
        size += _size(tensor)
        if size > most:
            raise ValueError(
                f"{path} is damaged (its tensors have over {most} bytes, at {name!r} of shape "
                f"{list(tensor.shape)}, and it has {path.stat().st_size}); fetch it again"
            )
    return {name: tensor.detach() for name, tensor in content.items()}


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is numbers in memory, and not one of the kinds that a pickle can hold besides."""
    dense = tensor.layout is torch.strided and not tensor.is_nested
    return dense and tensor.device.type == "cpu" and not (tensor.is_quantized or tensor.is_complex())


def _kind(value: object) -> str:
    if not isinstance(value, Tensor) or value.layout is not torch.strided or _is_plain(value):
        return type(value).__name__
    return f"nested {type(value).__name__}" if value.is_nested else f"{value.dtype} on {value.device.type}"


def _is_stored_zip(path: Path) -> bool:
    """Whether a file is a zip.

    Raises:
        ValueError: a compressed one: torch writes none, and what it unpacks to has no bound.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed")
    return True


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
