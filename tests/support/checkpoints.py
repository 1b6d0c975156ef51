"""Checkpoint files in tests: weights written, changed and compared."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tritone.models.checkpoints.convert import read_foreign
from tritone.models.checkpoints.files import Checkpoint

GOLDEN = Path(__file__).parents[1] / "conformance" / "golden"


def read_converted(folder: Path, framework: str) -> dict[str, torch.Tensor]:
    """Tensors of a folder's TensorFlow or Flax weights, converted."""
    return read_foreign(Checkpoint(str(folder), folder), framework)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors of a folder's safetensors, in memory."""
    return {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}


def replace_by_bin(folder: Path, content: object, **options: Any) -> Path:
    """Put a pickle in the place of a folder's safetensors."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    torch.save(content, folder / "pytorch_model.bin", **options)
    return folder


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    mine, yours = one.state_dict(), other.state_dict()
    assert mine.keys() == yours.keys()
    for name, tensor in yours.items():
        assert torch.equal(mine[name], tensor), name
        assert mine[name].dtype == tensor.dtype
