"""Weights from and to safetensors."""

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .files import read_json

if TYPE_CHECKING:
    from .pretrained import PretrainedModel

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def load_state_dict(model: "PretrainedModel", folder: Path) -> None:
    """Fill `model` from the safetensors of `folder`, one file or several with an index.

    A checkpoint of the model with its head fits the model without, and the tensors of the head are then
    left alone; tied tensors may be absent.

    Raises:
        FileNotFoundError: no weights.
        ValueError: a damaged file, or tensors missing, unexpected or of another shape.
    """
    tensors = _read(folder)
    wanted = model.state_dict()
    prefix = model.base_prefix
    if not any(name.startswith(prefix) for name in wanted) and any(
        name.startswith(prefix) for name in tensors
    ):
        tensors = {
            name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
        }
    for name, home in model.tied_weights.items():
        if name in wanted and name not in tensors and home in tensors:
            tensors[name] = tensors[home]
    for name in model.computed_keys:
        tensors.pop(name, None)
    _report(folder, tensors, wanted)
    model.load_state_dict(tensors)


def save_state_dict(model: "PretrainedModel", folder: Path) -> None:
    """Write `model`'s tensors to model.safetensors, tied ones once."""
    tied = {name for name, home in model.tied_weights.items() if _shares(model, name, home)}
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in tied}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _shares(model: "PretrainedModel", name: str, home: str) -> bool:
    state = model.state_dict()
    return name in state and home in state and state[name].data_ptr() == state[home].data_ptr()


def _read(folder: Path) -> dict[str, Tensor]:
    if (folder / WEIGHTS).is_file():
        return _load(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"{folder} has neither {WEIGHTS} nor {INDEX}; save the model as safetensors")
    tensors: dict[str, Tensor] = {}
    shards = read_json(folder / INDEX).get("weight_map", {})
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard:
            raise ValueError(f"{folder / INDEX} names a shard outside its folder: {shard!r}")
        tensors.update(_load(folder / shard))
    return tensors


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"the index names {path.name}, which {path.parent} does not have") from None
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); fetch it again") from None


def _report(folder: Path, tensors: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    problems = [f"missing: {name}" for name in sorted(wanted.keys() - tensors.keys())]
    problems += [f"unexpected: {name}" for name in sorted(tensors.keys() - wanted.keys())]
    problems += [
        f"wrong shape: {name} is {list(tensors[name].shape)}, "
        f"the configuration wants {list(wanted[name].shape)}"
        for name in sorted(wanted.keys() & tensors.keys())
        if tensors[name].shape != wanted[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise ValueError(f"the weights in {folder} do not fit its configuration: {shown}")
