"""What every model shares: loading, saving, where it lies."""

import os
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from .checkpoint import load_state_dict, save_state_dict
from .configuration import PretrainedConfig
from .files import resolve_folder


class PretrainedModel(nn.Module):
    """A model with a configuration, whose parameter names are the checkpoint's."""

    config_class: ClassVar[type[PretrainedConfig]] = PretrainedConfig
    # Parameters that are another one's storage, so checkpoints may leave them out: name -> where it lies.
    tied_weights: ClassVar[dict[str, str]] = {}
    # Buffers that old checkpoints hold and that are computed here.
    computed_keys: ClassVar[tuple[str, ...]] = ()
    # What a checkpoint with a head puts before the names of the model without.
    base_prefix: ClassVar[str] = "model."

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype."""
        return next(self.parameters()).dtype

    def initialise(self) -> None:
        """Fresh weights as transformers draws them: normal with `init_std`, biases zero."""
        std = self.config.init_std
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv1d):
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=std)
                if module.padding_idx is not None:
                    with torch.no_grad():
                        module.weight[module.padding_idx].zero_()

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | os.PathLike[str],
        *,
        config: PretrainedConfig | None = None,
        dtype: str | torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        **overrides: Any,
    ) -> Self:
        """Load a checkpoint folder that transformers or Tritone wrote, in evaluation mode.

        Args:
            name_or_dir: the folder.
            config: instead of the folder's config.json.
            dtype: of the parameters, as torch names it, with or without "torch.".
            device: where to put them.
            **overrides: configuration fields to replace.

        Raises:
            FileNotFoundError: no folder, configuration or weights.
            ValueError: tensors missing, unexpected or of another shape, each named.
        """
        folder = resolve_folder(name_or_dir)
        if config is None:
            config = cls.config_class.from_pretrained(folder, **overrides)
        model = cls(config)
        load_state_dict(model, folder)
        model.read_generation_config(folder)
        return model.to(device=device, dtype=as_dtype(dtype)).eval()

    def read_generation_config(self, folder: Path) -> None:
        """Take the folder's generation defaults; models that do not generate have none."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors, as transformers reads them."""
        path = Path(folder)
        self.config.architectures = [type(self).__name__]
        self.config.save_pretrained(path)
        save_state_dict(self, path)


def as_dtype(name: str | torch.dtype) -> torch.dtype:
    """A floating torch dtype from its name.

    Raises:
        ValueError: not one of the three dtypes models run in.
    """
    given = name if isinstance(name, torch.dtype) else getattr(torch, name.removeprefix("torch."), None)
    if given not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"dtype {name!r} is not supported; use float32, float16 or bfloat16")
    return given
