"""Conversion of TensorFlow and Flax checkpoints to the names and layout of PyTorch's.

The conversion follows from the names alone, since transformers 4 named variables alike in all three
frameworks; it is the same for every family. The rules come from transformers' own conversions.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from .files import Checkpoint, add_shard, find_shards
from .flax import read_msgpack
from .keras_h5 import read_h5
from .tensorflow import SUFFIX, read_index

TENSORFLOW, FLAX = "TensorFlow", "Flax"
_INDEX, _H5, _MSGPACK = "model.ckpt" + SUFFIX, "tf_model.h5", "flax_model.msgpack"
_SHARDS = ".index.json"  # suffix of the index of a file in shards
# Files of weights in a folder, the first found counts, as in transformers.
FILES = {
    TENSORFLOW: (_INDEX, _H5, _H5 + _SHARDS),
    FLAX: (_MSGPACK, _MSGPACK + _SHARDS),
}
ARGUMENTS = {TENSORFLOW: "from_tf", FLAX: "from_flax"}
# Endings of weights given as a path.
_ENDINGS = {
    TENSORFLOW: (SUFFIX, ".h5", ".hdf5", ".h5" + _SHARDS),
    FLAX: (".msgpack", ".msgpack" + _SHARDS),
}

# TensorFlow's variables of optimizers, and step counters, which are ignored.
_TRAINING = re.compile(r"(^|/)(adam_[mv]|Adam(_1)?|AdamWeightDecayOptimizer(_1)?|global_step)$")
# Names in Google's own BERT, before transformers had TensorFlow classes.
_ORIGINAL = re.compile(r"^(bert|cls)/.*|^output_(weights|bias)$")
_ORIGINAL_LAYER = re.compile(r"/layer_(\d+)/")
_ORIGINAL_NAMES = {
    "output_weights": "classifier/weight",
    "output_bias": "classifier/bias",
    "cls/predictions/output_bias": "cls/predictions/bias",
    "cls/seq_relationship/output_weights": "cls/seq_relationship/weight",
    "cls/seq_relationship/output_bias": "cls/seq_relationship/bias",
}
_LEAVES = {
    **{"kernel": "weight", "embeddings": "weight", "gamma": "weight", "beta": "bias"},
    **{"moving_mean": "running_mean", "moving_variance": "running_var"},
}
_FLAX_LEAVES = {
    **{"kernel": "weight", "embedding": "weight", "scale": "weight"},
    **{"mean": "running_mean", "var": "running_var"},
}


class WeightsFile(Checkpoint):
    """Checkpoint of one weight file given by its path, with the files beside it."""

    def __init__(self, path: Path) -> None:
        super().__init__(os.fspath(path.parent), path.parent)
        self.filename = path.name


def framework_of_file(path: str | os.PathLike[str]) -> str | None:
    """Framework of a file of weights by its name, which may lack ".index"; None for PyTorch's, and others."""
    given = Path(path).expanduser()
    for candidate in (given, given.with_name(given.name + SUFFIX)):
        if candidate.is_file():
            for framework, endings in _ENDINGS.items():
                if candidate.name.endswith(endings):
                    return framework
    return None


def foreign_framework(*, from_tf: bool = False, from_flax: bool = False) -> str | None:
    """Framework of the weights to load, by two flags; None for PyTorch, ValueError for both at once."""
    if from_tf and from_flax:
        raise ValueError("from_tf and from_flax are both set; a checkpoint is of one framework")
    return TENSORFLOW if from_tf else FLAX if from_flax else None


def foreign_checkpoint(
    name_or_dir: str | os.PathLike[str] | Checkpoint | None, framework: str | None
) -> str | os.PathLike[str] | Checkpoint | None:
    """Open a weight file of TensorFlow or Flax as a checkpoint; anything else is returned unchanged.

    Args:
        name_or_dir: path of a `model.ckpt.index`, the same without ".index", of a .h5 or .msgpack, or what
            `files.open_checkpoint` takes.
        framework: framework of the weights, TENSORFLOW or FLAX; None for PyTorch.

    Raises:
        FileNotFoundError: the path of such a file, which does not exist.
        ValueError: a file of another framework than `framework`.
    """
    if name_or_dir is None or isinstance(name_or_dir, Checkpoint):
        return name_or_dir
    path = Path(name_or_dir).expanduser()
    if path.is_dir():
        return name_or_dir
    for candidate in (path, path.with_name(path.name + SUFFIX)):
        if candidate.is_file():
            for other, endings in _ENDINGS.items():
                if other != framework and candidate.name.endswith(endings):
                    instead = "" if framework is None else f" instead of {ARGUMENTS[framework]}"
                    raise ValueError(
                        f"{candidate} holds weights of {other}; give {ARGUMENTS[other]}=True{instead} "
                        "to have them converted"
                    )
            if framework is not None:
                return WeightsFile(candidate)
    if framework is not None and path.name.endswith((".ckpt", *_ENDINGS[framework])):
        remedy = "download it, with the files beside it" if "://" in str(name_or_dir) else "check the path"
        raise FileNotFoundError(f"no file {os.fspath(name_or_dir)!r} of {framework}'s weights here; {remedy}")
    return name_or_dir


def read_foreign(checkpoint: Checkpoint, framework: str) -> dict[str, Tensor]:
    """Read every tensor of a TensorFlow or Flax checkpoint, by PyTorch's names and in its layout.

    Args:
        checkpoint: checkpoint to read.
        framework: TENSORFLOW or FLAX.

    Raises:
        ImportError: the package that reads the file is not installed.
        OSError: no such weights, or some of their files are missing.
        ValueError: a damaged file, or one of a kind that is not read.
    """
    names = FILES[framework]
    if isinstance(checkpoint, WeightsFile):
        names = (checkpoint.filename,)
    name = next((name for name in names if checkpoint.find(name) is not None), None)
    if name is None:
        (other,) = FILES.keys() - {framework}
        remedy = f"leave {ARGUMENTS[framework]} out"
        if any(map(checkpoint.has, FILES[other])):
            remedy += f", or give {ARGUMENTS[other]}=True instead"
        raise checkpoint.lacks(f"weights of {framework}, none of {', '.join(names)}", remedy)
    where = f"{name} of {checkpoint}"
    if framework == FLAX:
        return _flax(_read(checkpoint, name, read_msgpack), where)
    if name.endswith(SUFFIX):
        return _tensorflow(read_index(checkpoint, name), where)
    if name.endswith(_SHARDS):
        return _tensorflow(_below_a_model(_read(checkpoint, name, read_h5)), where)
    tensors = _read(checkpoint, name, read_h5)
    given: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        variable = key.partition("/")[2]  # without its layer, since layers repeat shared ones
        if variable in given and not torch.equal(given[variable], tensor):
            raise ValueError(f"{checkpoint} has two values of {variable!r} in {name}; write it again")
        given[variable] = tensor
    return _tensorflow(given, where)


def converted(tensors: dict[str, Tensor], framework: str, where: str) -> dict[str, Tensor]:
    """Convert tensors of another framework's safetensors file to PyTorch's names and layout.

    Args:
        tensors: tensors by their names in the file.
        framework: TENSORFLOW or FLAX.
        where: source of the tensors, for errors.

    Raises:
        ValueError: two different tensors get the same name.
    """
    if framework == FLAX:
        return _flax({name.replace(".", "/"): tensor for name, tensor in tensors.items()}, where)
    return _tensorflow(_below_a_model(tensors), where)


def _below_a_model(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with "model/" before their names, which shards and safetensors omit but for a shared table."""
    return {name if "model." in name else f"model/{name}": tensors[name] for name in tensors}


def _read(checkpoint: Checkpoint, name: str, read: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Read the tensors of a file, or of the shards where the file is an index, with the function `read`."""
    path = checkpoint.require(name)
    if not name.endswith(_SHARDS):
        return read(path)
    tensors: dict[str, Tensor] = {}
    for shard, _ in find_shards(checkpoint, path):
        add_shard(tensors, read(shard), path)
    return tensors


def _put(name: str, tensor: Tensor, converted: dict[str, Tensor], where: str) -> None:
    """Add a tensor to `converted`; ValueError where the name has another value there."""
    if name in converted and not torch.equal(converted[name], tensor):
        raise ValueError(f"{where} has two values of what is {name!r} in PyTorch; write it again")
    converted[name] = tensor


def _tensorflow(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Convert TensorFlow's tensors to PyTorch's names and layout."""
    tensors = {name: tensor for name, tensor in tensors.items() if not _TRAINING.search(name)}
    original = bool(tensors) and all(map(_ORIGINAL.match, tensors))
    converted: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        levels = _original_levels(name) if original else _levels(name)
        leaf = levels[-1]
        if leaf == "kernel" and tensor.dim() <= 4:
            tensor = _kernel(tensor)
        elif leaf == "bias" and tensor.dim() == 2 and len(tensor) == 1:  # GPT-2's biases are [1, width]
            tensor = tensor[0]
        elif leaf == "weight_g":
            tensor = tensor.reshape(1, 1, -1)
        levels[-1] = _LEAVES.get(leaf, leaf)
        _put(".".join(levels), tensor, converted, where)
    return converted


def _levels(name: str) -> list[str]:
    """Module names on the path to a variable of transformers' TensorFlow classes."""
    name = name.removesuffix(":0")
    name = name.replace("_._", "/")  # lists of modules
    levels = [level.rpartition("___")[2] for level in name.split("/") if level]  # other___name
    return levels[1:] if len(levels) > 1 else levels or [name]  # without the model's own name


def _original_levels(name: str) -> list[str]:
    """Module names on the path to a variable of Google's original BERT."""
    levels = _ORIGINAL_NAMES.get(name, _ORIGINAL_LAYER.sub(r"/layer/\1/", name)).split("/")
    return [*levels, "weight"] if levels[-1].endswith("_embeddings") else levels


def _flax(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Convert Flax's tensors to PyTorch's names and layout."""
    if any(name.startswith("params/") for name in tensors):  # beside batch_stats, or alone
        tensors = {name.partition("/")[2]: tensor for name, tensor in tensors.items()}
    converted: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        *levels, leaf = name.split("/")
        if leaf == "kernel" and tensor.dim() <= 4:
            tensor = _kernel(tensor)
        _put(".".join([*levels, _FLAX_LEAVES.get(leaf, leaf)]), tensor, converted, where)
    return converted


def _kernel(tensor: Tensor) -> Tensor:
    """Transpose a kernel [..., inputs, outputs] to PyTorch's weight [outputs, inputs, ...]; vectors stay."""
    dimensions = range(tensor.dim())
    return tensor.permute((*dimensions[:-3:-1], *dimensions[:-2]))
