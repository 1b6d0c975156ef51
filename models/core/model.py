"""Base class of all models: loading, saving, device and dtype."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..checkpoints.convert import foreign_checkpoint, foreign_framework, read_foreign
from ..checkpoints.files import Checkpoint, open_checkpoint, refuse_remote_code, single_file
from ..checkpoints.hub import PushToHub
from ..checkpoints.weights import read_weights
from .config import PretrainedConfig
from .loading import bounded, fit, load, save_state_dict

# Arguments of transformers that change how a model is loaded or run there, and no result.
_NEUTRAL = ("attn_implementation", "low_cpu_mem_usage")


class PretrainedModel(PushToHub, nn.Module):
    """Model with a configuration, whose parameter names are the checkpoint's.

    Args:
        config: sizes and constants, kept as `config`; weights are randomly initialized.
    """

    config_class: ClassVar[type[PretrainedConfig]] = PretrainedConfig
    # Parameters that share another one's storage, so checkpoints may leave them out: name -> the other's.
    tied_weights: ClassVar[dict[str, str]] = {}
    # Buffers that old checkpoints hold and that are computed here.
    computed_keys: ClassVar[tuple[str, ...]] = ()
    # Prefix that a model with a head puts before the names of the one without; of several the first to fit.
    base_prefix: ClassVar[str | tuple[str, ...]] = "model."
    # Checkpoint names to the model's where they differ: (regular expression, replacement) for re.sub on the
    # whole name, before base_prefix is looked for.
    renamed_keys: ClassVar[tuple[tuple[str, str], ...]] = ()
    # Regular expressions that are searched for in names, after base_prefix is settled:
    # tensors of a checkpoint that the model does not use, as expected (another head, a decoder's encoder);
    ignored_keys: ClassVar[tuple[str, ...]] = ()
    # tensors that a checkpoint may lack, all of one expression together, and that are then randomly
    # initialized, with a warning (cross-attention, where the checkpoint is of an encoder).
    fresh_keys: ClassVar[tuple[str, ...]] = ()
    # Tensors that a checkpoint may hold under another name, read where their own is missing: own -> other.
    stand_in_keys: ClassVar[dict[str, str]] = {}
    # Tensors that only training reads: a checkpoint may lack any of them, which is then randomly initialized.
    # Those of any module inside the model count too.
    training_keys: ClassVar[tuple[str, ...]] = ()
    # Modules, by the last part of their names, whose outputs overflow a float16: in a float16 model their
    # weights are float32.
    float32_modules: ClassVar[tuple[str, ...]] = ()
    # Name of the input of `forward` and `generate`: waveforms or features.
    main_input_name: ClassVar[str] = "input_values"
    # Further files that the model reads, where a checkpoint has them.
    side_files: ClassVar[tuple[str, ...]] = ()
    replaced_files: ClassVar[tuple[str, ...]] = (
        "model.safetensors",
        "model.safetensors.index.json",
        "model-*-of-*.safetensors",
    )

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters."""
        return next(self.parameters()).dtype

    def placed(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move this model to a device and a dtype; in float16 its `float32_modules` stay float32."""
        self.to(device=device, dtype=dtype)
        if dtype == torch.float16:
            for name, module in self.named_modules():
                if name.rpartition(".")[2] in self.float32_modules:
                    module.float()
        return self

    # Names of a checkpoint's tensors. A submodel maps its own names, which follow its attribute's name.

    def parts(self) -> dict[str, "PretrainedModel"]:
        """Submodels that map the names of their own tensors, by attribute name."""
        return {}

    def ties(self) -> dict[str, str]:
        """Tied parameters of this model and its submodels, name -> name of the parameter that is shared."""
        return self.tied_weights | {
            f"{part}.{name}": f"{part}.{home}"
            for part, model in self.parts().items()
            for name, home in model.ties().items()
        }

    def own_key(self, name: str) -> str:
        """Model's name for a checkpoint's tensor, before `base_prefix` is added or removed."""
        for pattern, replacement in self.renamed_keys:
            name = re.sub(pattern, replacement, name)
        part, _, inner = name.partition(".")
        return f"{part}.{self.parts()[part].own_key(inner)}" if part in self.parts() else name

    def ignores(self, name: str) -> bool:
        """True for a checkpoint's tensor that the model is expected not to use, so that no warning is due."""
        if name in self.computed_keys or any(re.search(pattern, name) for pattern in self.ignored_keys):
            return True
        part, _, inner = name.partition(".")
        return part in self.parts() and self.parts()[part].ignores(inner)

    def may_be_fresh(self, name: str) -> str:
        """Pattern of `fresh_keys` that allows a checkpoint to lack this tensor; "" for none."""
        part, _, inner = name.partition(".")
        deeper = self.parts()[part].may_be_fresh(inner) if part in self.parts() else ""
        return next((pattern for pattern in self.fresh_keys if re.search(pattern, name)), deeper)

    def initialize(self) -> None:
        """Initialize weights at random as transformers does: normal with `init_std`, biases zero."""
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
    def from_config(
        cls,
        config: PretrainedConfig,
        *,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        **overrides: Any,
    ) -> Self:
        """Create a randomly initialized model, in training mode as in transformers.

        Args:
            config: configuration of this family, which is copied.
            dtype, torch_dtype, device: as in `from_pretrained`, but float32 by default.
            **overrides: fields of the configuration to replace.

        Raises:
            TypeError: an argument that is neither one of these nor a field of the configuration.
            ValueError: another family's configuration, or `trust_remote_code=True`.
        """
        refuse_remote_code(overrides)
        config = cls._configured(config, overrides)
        wanted = torch_dtype if dtype is None else dtype
        kind = as_dtype("float32" if wanted is None else wanted, config)
        model = cls(config).placed(as_device(device, None), kind)
        model.config.dtype = str(kind).removeprefix("torch.")
        return model

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | os.PathLike[str] | Checkpoint | None,
        *model_args: Any,
        config: PretrainedConfig | str | os.PathLike[str] | None = None,
        state_dict: Mapping[str, Tensor] | None = None,
        from_tf: bool = False,
        from_flax: bool = False,
        output_loading_info: bool = False,
        ignore_mismatched_sizes: bool = False,
        use_safetensors: bool | None = None,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        device_map: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Load a checkpoint that transformers or Tritone wrote, in evaluation mode.

        Missing tensors and tensors of another shape are errors. Unexpected ones cause a warning, and so does
        cross-attention that is randomly initialized because the checkpoint has none at all.

        Args:
            name_or_dir: a folder or the id of a repository on the Hub; with `from_tf` or `from_flax` also a
                file of weights; None with `config` and `state_dict`.
            *model_args: arguments of the constructor after the configuration.
            config: replacement of the checkpoint's config.json: an object (copied), a file or a checkpoint.
            state_dict: tensors by name, in place of the checkpoint's weights.
            from_tf: convert TensorFlow weights, `tf_model.h5` or `model.ckpt.index`.
            from_flax: convert Flax weights, `flax_model.msgpack`.
            output_loading_info: return (model, report): a dict of missing_keys, unexpected_keys,
                mismatched_keys and error_msgs. Missing tensors are then randomly initialized, no error.
            ignore_mismatched_sizes: randomly initialize tensors of another shape instead of an error.
            use_safetensors: True for safetensors alone, False for .bin alone; safetensors first by default.
            dtype: dtype of the parameters by its torch name, with or without "torch."; by default and with
                "auto" that of the configuration, or else of the checkpoint's weights, as in transformers 5.
            torch_dtype: the older name of `dtype`.
            device: device of the parameters; the CPU by default.
            device_map: transformers' form of `device`: a device, {"": device}, or "auto", the GPU if any.
            **kwargs: `files.HUB_OPTIONS`, which `hub.HubCheckpoint` explains, and fields of the configuration
                to replace.

        Raises:
            ImportError: `tf_model.h5` without h5py.
            OSError: no such checkpoint, no configuration or weights in it, or the Hub does not answer.
            TypeError: an argument that is neither one of these nor a field of the configuration.
            ValueError: tensors that are missing or of another shape, each named; a damaged file; a
                configuration of another family; or an option that is not supported.
        """
        framework = foreign_framework(from_tf=from_tf, from_flax=from_flax)
        name_or_dir = foreign_checkpoint(name_or_dir, framework)
        place, wanted_dtype = as_device(device, device_map), torch_dtype if dtype is None else dtype
        if wanted_dtype != "auto":
            as_dtype(wanted_dtype)
        checkpoint, overrides = open_checkpoint(
            Checkpoint("") if name_or_dir is None else name_or_dir, **kwargs
        )
        if name_or_dir is None and (config is None or state_dict is None):
            raise ValueError("without a checkpoint's name, config and state_dict must be given")
        source: PretrainedConfig | Path | Checkpoint = checkpoint
        if isinstance(config, str | os.PathLike):
            source = single_file(config) or open_checkpoint(config, **kwargs)[0]
        elif config is not None:
            source = config
        own_config = cls._configured(source, overrides)
        for filename in cls.side_files:  # before the weights, so that a cache with weights has these too
            checkpoint.find(filename)
        if state_dict is not None:
            tensors = dict(state_dict)
        elif framework is not None:
            tensors = read_foreign(checkpoint, framework)
        else:
            tensors = read_weights(checkpoint, use_safetensors)
        where = str(source) if isinstance(source, Path | Checkpoint) else ""
        with bounded(tensors, own_config, where, drawn=False):
            model = cls(own_config, *model_args)
        report = fit(tensors, model)
        if report.fresh_values:
            with bounded(tensors, own_config, where):
                model = cls(own_config, *model_args)
            report = fit(tensors, model)
        where = checkpoint.name if state_dict is None else "state_dict"
        report.check(where, missing_allowed=output_loading_info, mismatched_allowed=ignore_mismatched_sizes)
        kind = as_dtype(wanted_dtype, own_config, tensors)
        model.placed(place, kind)
        load(report, model)
        model.config.dtype = str(kind).removeprefix("torch.")
        model.read_generation_config(checkpoint)
        model.eval()
        return (model, report.to_dict()) if output_loading_info else model

    def read_generation_config(self, checkpoint: Checkpoint) -> None:
        """Read the checkpoint's generation defaults; models that do not generate have none."""

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        state_dict: Mapping[str, Tensor] | None = None,
        max_shard_size: int | str = "5GB",
        safe_serialization: bool = True,
    ) -> None:
        """Write config.json and the weights to a folder, in the form that transformers reads.

        Args:
            folder: folder to write to, created if needed.
            state_dict: tensors to write instead of the model's own.
            max_shard_size: bytes, or a number and a unit such as "500MB"; larger models are split.
            safe_serialization: False for pytorch_model.bin instead of safetensors.

        Raises:
            ValueError: a size in another form.
        """
        path = Path(folder)
        self.config.architectures = [type(self).__name__]
        self.config.dtype = str(self.dtype).removeprefix("torch.")  # in which transformers loads it
        self.config.save_pretrained(path)
        save_state_dict(
            self, path, state_dict, max_shard_size=max_shard_size, safe_serialization=safe_serialization
        )

    @classmethod
    def _configured(cls, source: PretrainedConfig | Path | Checkpoint, overrides: Mapping[str, Any]) -> Any:
        """Configuration of this family from an object, a file or a checkpoint, with fields replaced."""
        fields = {name: value for name, value in overrides.items() if name not in _NEUTRAL}
        if isinstance(source, Path | Checkpoint):
            config, unused = cls.config_class.from_pretrained(source, return_unused_kwargs=True, **fields)
        else:
            config, unused = cls.config_class.adopt(source).overridden(fields)
        if unused:
            names, family = ", ".join(sorted(unused)), type(config).__name__
            raise TypeError(f"{names}: neither an argument here nor a field of {family}")
        return config


def as_device(device: str | torch.device | None, device_map: Any) -> torch.device:
    """Device of a model, from its arguments `device` and `device_map`.

    Raises:
        ValueError: both given, or a map of several devices.
    """
    if device_map is None:
        return torch.device("cpu" if device is None else device)
    if device is not None:
        raise ValueError("device and device_map are both given; leave device_map out")
    if isinstance(device_map, Mapping) and set(device_map) == {""}:
        device_map = device_map[""]
    if device_map == "auto":
        device_map = "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(device_map, str | int | torch.device):
        raise ValueError(f"device_map {device_map!r} is not supported: a model is on one device; use device=")
    return torch.device(device_map)


def as_dtype(
    name: str | torch.dtype | None,
    config: PretrainedConfig | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> torch.dtype:
    """Torch dtype of a model, from its name.

    Args:
        name: name of the dtype, with or without "torch."; None or "auto" for the dtype of the configuration,
            else of the weights, else float32.
        config: configuration whose `dtype` is used, if it has one.
        tensors: weights, of which the first floating-point one's dtype is used.

    Raises:
        ValueError: neither float32, float16 nor bfloat16; None gives float32 instead.
    """
    asked, supported = name is not None, (torch.float32, torch.float16, torch.bfloat16)
    if name is None or name == "auto":
        floating = (tensor.dtype for tensor in (tensors or {}).values() if tensor.is_floating_point())
        name = getattr(config, "dtype", None) or next(floating, torch.float32)
    given = name if isinstance(name, torch.dtype) else getattr(torch, str(name).removeprefix("torch."), None)
    if given not in supported and not asked:
        return torch.float32
    if given not in supported:
        raise ValueError(f"dtype {name!r} is not supported; use float32, float16 or bfloat16")
    return given
