"""What every model shares: loading, saving, where it lies."""

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

# Arguments of transformers that choose how a model is loaded or run there, and change no result.
_NEUTRAL = ("attn_implementation", "low_cpu_mem_usage")


class PretrainedModel(PushToHub, nn.Module):
    """A model with a configuration, whose parameter names are the checkpoint's."""

    config_class: ClassVar[type[PretrainedConfig]] = PretrainedConfig
    # Parameters that are another one's storage, so checkpoints may leave them out: name -> where it lies.
    tied_weights: ClassVar[dict[str, str]] = {}
    # Buffers that old checkpoints hold and that are computed here.
    computed_keys: ClassVar[tuple[str, ...]] = ()
    # What a checkpoint with a head puts before the names of the model without; the first that fits.
    base_prefix: ClassVar[str | tuple[str, ...]] = "model."
    # How a checkpoint's names become the model's where they differ: (regular expression, replacement) for
    # re.sub on the whole name, before base_prefix is looked for.
    renamed_keys: ClassVar[tuple[tuple[str, str], ...]] = ()
    # Tensors of a checkpoint that the model has no use for, as is to be expected (another head, the encoder
    # of a decoder): expressions searched for in names, after base_prefix is settled.
    ignored_keys: ClassVar[tuple[str, ...]] = ()
    # Tensors that may lie in a checkpoint by another name, read where there is none by their own: own name ->
    # the other one, after base_prefix is settled.
    stand_in_keys: ClassVar[dict[str, str]] = {}
    # Tensors of the model that a checkpoint may lack, all those of one expression together, and that then are
    # fresh, with a warning (the cross-attention of what was no decoder): expressions searched for in names.
    fresh_keys: ClassVar[tuple[str, ...]] = ()
    # Tensors that only training reads: a checkpoint may lack any of them, which then is fresh. Those of a
    # model's parts count too.
    training_keys: ClassVar[tuple[str, ...]] = ()
    # Modules, by the last part of their names, whose outputs a float16 cannot hold: their weights are float32
    # in a float16 model.
    kept_in_float32: ClassVar[tuple[str, ...]] = ()
    # What `forward` and `generate` call their input: waveforms or features.
    main_input_name: ClassVar[str] = "input_values"
    # Files beside configuration and weights that the model reads, where there are any.
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
        """Where the parameters lie."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype."""
        return next(self.parameters()).dtype

    def placed(self, device: torch.device, dtype: torch.dtype) -> Self:
        """This model, moved to a device and turned into a dtype, all but `kept_in_float32`."""
        self.to(device=device, dtype=dtype)
        if dtype == torch.float16:
            for name, module in self.named_modules():
                if name.rpartition(".")[2] in self.kept_in_float32:
                    module.float()
        return self

    # How the tensors of a checkpoint find their place; a model made of others asks them.

    def ties(self) -> dict[str, str]:
        """`tied_weights` of this model."""
        return dict(self.tied_weights)

    def own_key(self, name: str) -> str:
        """What the model calls a checkpoint's tensor, but for `base_prefix`."""
        for pattern, replacement in self.renamed_keys:
            name = re.sub(pattern, replacement, name)
        return name

    def ignores(self, name: str) -> bool:
        """Whether a checkpoint's tensor is none of the model's and nothing to warn of."""
        return name in self.computed_keys or any(re.search(pattern, name) for pattern in self.ignored_keys)

    def may_be_fresh(self, name: str) -> str:
        """Which of `fresh_keys` lets a checkpoint do without this tensor of the model; "" for none."""
        return next((pattern for pattern in self.fresh_keys if re.search(pattern, name)), "")

    def initialize(self) -> None:
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
    def from_config(
        cls,
        config: PretrainedConfig,
        *,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        **overrides: Any,
    ) -> Self:
        """A model with fresh weights, in training mode as in transformers.

        Args:
            config: of this family; the model has a copy.
            dtype, torch_dtype, device: as in `from_pretrained`.
            **overrides: fields of the configuration to replace.

        Raises:
            TypeError: an argument that is neither one of these nor a field of the configuration.
            ValueError: another family's configuration, or `trust_remote_code=True`.
        """
        refuse_remote_code(overrides)
        config = cls._configured(config, overrides)
        place, kind = as_device(device, None), as_dtype(_either(dtype, torch_dtype), config)
        model = cls(config).placed(place, kind)
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

        Tensors that the checkpoint lacks or that have another shape are errors; those that it has too many
        are warned of, and so is cross-attention that is fresh because the checkpoint has none at all.

        Args:
            name_or_dir: a folder, or the id of a repository on the Hub; None with `config` and `state_dict`;
                with `from_tf` or `from_flax` a file of weights, too.
            *model_args: for the constructor, after the configuration.
            config: instead of the checkpoint's config.json: an object (copied), a file or a checkpoint.
            state_dict: instead of the checkpoint's weights.
            from_tf: read TensorFlow's weights, `tf_model.h5` or `model.ckpt.index`, and convert them.
            from_flax: read Flax's, `flax_model.msgpack`.
            output_loading_info: return (model, report) with the report's missing_keys, unexpected_keys,
                mismatched_keys and error_msgs. Missing tensors then are no error and keep fresh values.
            ignore_mismatched_sizes: let tensors of another shape keep fresh values.
            use_safetensors: True for safetensors alone, False for .bin alone; safetensors first by default.
            dtype: of the parameters, as torch names it, with or without "torch."; "auto" for the
                configuration's, or else the weights'. float32 by default.
            torch_dtype: the older name of `dtype`.
            device: where to put them; the CPU by default.
            device_map: transformers' name for it: a device, {"": device}, or "auto", the GPU if there is one.
            **kwargs: `files.HUB_OPTIONS`, which `hub.HubCheckpoint` explains, and fields of the configuration
                to replace.

        Raises:
            ImportError: `tf_model.h5` without h5py.
            OSError: no such checkpoint, no configuration or weights in it, or the Hub does not answer.
            TypeError: an argument that is neither one of these nor a field of the configuration.
            ValueError: tensors that are missing or of another shape, each named; a damaged file; a
                configuration of another family; or something that is not supported.
        """
        framework = foreign_framework(from_tf=from_tf, from_flax=from_flax)
        name_or_dir = foreign_checkpoint(name_or_dir, framework)
        place, wanted_dtype = as_device(device, device_map), _either(dtype, torch_dtype)
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
        for filename in cls.side_files:  # before the weights: a cache with weights then has them too
            checkpoint.find(filename)
        if state_dict is not None:
            tensors = dict(state_dict)
        elif framework is not None:
            tensors = read_foreign(checkpoint, framework)
        else:
            tensors = read_weights(checkpoint, use_safetensors)
        with bounded(tensors, drawn=False):
            model = cls(own_config, *model_args)
        report = fit(tensors, model)
        if report.kept:
            with bounded(tensors):
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
        """Take the checkpoint's generation defaults; models that do not generate have none."""

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        state_dict: Mapping[str, Tensor] | None = None,
        max_shard_size: int | str = "5GB",
        safe_serialization: bool = True,
    ) -> None:
        """Write config.json and the weights, as transformers reads them.

        Args:
            folder: made if need be.
            state_dict: written instead of the model's own tensors.
            max_shard_size: bytes, or a number and a unit such as "500MB"; larger models are split.
            safe_serialization: False for pytorch_model.bin instead of safetensors.

        Raises:
            ValueError: a size that is none.
        """
        path = Path(folder)
        self.config.architectures = [type(self).__name__]
        self.config.dtype = str(self.dtype).removeprefix("torch.")  # what transformers loads it in
        self.config.save_pretrained(path)
        save_state_dict(
            self, path, state_dict, max_shard_size=max_shard_size, safe_serialization=safe_serialization
        )

    @classmethod
    def _configured(cls, source: PretrainedConfig | Path | Checkpoint, overrides: Mapping[str, Any]) -> Any:
        """This family's configuration from an object, a file or a checkpoint, with fields replaced."""
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
    """The device that a model is to lie on, of the two arguments that say so.

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
        raise ValueError(
            f"device_map {device_map!r} is not supported: a model lies on one device; use device="
        )
    return torch.device(device_map)


def as_dtype(
    name: str | torch.dtype | None,
    config: PretrainedConfig | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> torch.dtype:
    """A floating torch dtype from its name.

    Args:
        name: with or without "torch."; None for float32; "auto" for what follows.
        config: whose `dtype` "auto" stands for, if it has one.
        tensors: whose first floating one's dtype it stands for otherwise; then float32.

    Raises:
        ValueError: not one of the three dtypes models run in.
    """
    if name == "auto":
        floating = (tensor.dtype for tensor in (tensors or {}).values() if tensor.is_floating_point())
        name = getattr(config, "dtype", None) or next(floating, None)
    if name is None:
        return torch.float32
    given = name if isinstance(name, torch.dtype) else getattr(torch, str(name).removeprefix("torch."), None)
    if given not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"dtype {name!r} is not supported; use float32, float16 or bfloat16")
    return given


def _either(dtype: Any, torch_dtype: Any) -> Any:
    return torch_dtype if dtype is None else dtype
