"""Base class of feature extractors: check recordings, extract features, pad them to a batch."""

import os
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from ...kernels.runtime.packing import cumulative
from ..checkpoints.contents import read_json
from ..checkpoints.files import Checkpoint, open_checkpoint, single_file, write_json
from ..checkpoints.hub import PushToHub
from ..core.batches import BatchFeature, column, one_of, padded_length, round_up, stack
from ..core.field_types import conform, shown
from ..core.fields import Fields

PREPROCESSOR_FILE, PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"
_NEUTRAL = {"return_attention_mask", "processor_class", "transformers_version", "name_or_path", "auto_map"}


class FeatureExtractor(Fields, PushToHub, ABC):
    """Base class of feature extractors, which convert mono recordings to a model's inputs.

    A subclass declares its settings as fields, which are constructor arguments and keys of the saved files,
    and defines `extract_packed` and `frame_count`. `fixed` holds settings with a single supported value,
    `derived` names in files that follow from others.
    """

    model_input_names: tuple[str, str]
    settings: ClassVar[tuple[str, ...]]  # names of the fields
    fixed: ClassVar[dict[str, Any]]
    derived: ClassVar[frozenset[str]] = frozenset()
    unit: ClassVar[str]  # of `max_length`: "frames" or "samples"

    sampling_rate: int  # Hz
    padding_value: float
    return_attention_mask: bool
    processor_class: str | None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.settings = tuple(cls._fields)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for name, only in self.fixed.items():
            if (given := kwargs.pop(name, None)) not in (None, only):
                raise ValueError(f"{name} {shown(given)} is not supported, only {only!r} is")
        self.processor_class = conform("processor_class", kwargs.get("processor_class"), str | None)
        settings = {name: value for name, value in kwargs.items() if name in self.settings}
        if unknown := sorted(kwargs.keys() - settings.keys() - _NEUTRAL - self.derived):
            raise TypeError(f"there is no setting {unknown[0]!r}; there are {', '.join(self.settings)}")
        super().__init__(*args, **settings)

    @abstractmethod
    def frame_count(self, samples: int) -> int:
        """Number of rows that `extract_packed` returns for a recording; 0 where it is too short for one."""

    @abstractmethod
    def extract_packed(
        self, waveforms: Tensor, cu_samples: Tensor, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features [rows, width] of packed waveforms, on their device, and their cu_seqlens int32 [n + 1].

        They are computed in the dtype of `waveforms`, then rounded to `dtype` where that is given.
        """

    @abstractmethod
    def _samples(self, length: int) -> int:
        """Number of samples that make `length` units, frames or samples."""

    @abstractmethod
    def _shortest(self) -> tuple[int, str]:
        """Minimum number of samples of a recording, and its description for error messages."""

    def __call__(
        self,
        raw_speech: Any,
        padding: bool | str = False,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        sampling_rate: int | None = None,
        return_attention_mask: bool | None = None,
    ) -> BatchFeature:
        """Extract the features of one or more recordings, padded to a batch.

        Truncation precedes normalization, and padding follows it, so each utterance is normalized over its
        remaining samples, bitwise as if it were alone.

        Args:
            raw_speech: mono audio from -1 to 1: an array, tensor or list of numbers [samples], a batch of
                them [batch, samples], or a list of recordings.
            padding: True or "longest", "max_length", or False.
            max_length: maximum length in frames, or in samples for waveform models.
            truncation: cut to `max_length` (rounded up to a multiple of `pad_to_multiple_of`).
            pad_to_multiple_of: round the padded length up to a multiple of this.
            return_tensors: "pt", "np", or None for lists of arrays.
            sampling_rate: sampling rate of `raw_speech` in Hz; must equal the extractor's.
            return_attention_mask: False for no mask, True for one even without padding.

        Returns:
            features float32 [batch, length, ...] under the model's input name, and attention_mask int32
            [batch, length], 1 for a feature and 0 for padding.

        Raises:
            ValueError: another sampling rate; audio that is not mono, empty, too short, of integers, NaN or
                infinite; a bad option; or tensors of different lengths.
        """
        self._check_rate(sampling_rate)
        one_of("return_tensors", return_tensors, ("pt", "np", None))
        if max_length is None and (truncation or padding == "max_length"):
            raise ValueError(f"truncation=True and padding='max_length' need max_length, in {self.unit}")
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1 {self.unit.removesuffix('s')}, got {max_length}")

        waveforms = [self._mono(waveform, i) for i, waveform in enumerate(separate(raw_speech))]
        if truncation and max_length is not None:
            samples = self._samples(round_up(max_length, pad_to_multiple_of))
            waveforms = [waveform[:samples] for waveform in waveforms]
        cu_samples = cumulative([len(waveform) for waveform in waveforms])
        with torch.no_grad():
            packed, cu_rows = self.extract_packed(torch.from_numpy(np.concatenate(waveforms)), cu_samples)
        features = np.split(packed.numpy(), cu_rows[1:-1].tolist())

        arrays = [self._squeeze(one) for one in features]
        return self._batch(
            arrays, padding, max_length, pad_to_multiple_of, return_attention_mask, return_tensors
        )

    def pad(
        self,
        processed_features: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Pad features extracted one by one to a batch, as a training loop's collator does.

        Args:
            processed_features: outputs for one recording each, or a dict of lists; only their features are
                read, and the mask is computed anew.
            padding, max_length, pad_to_multiple_of, return_attention_mask, return_tensors: as in `__call__`.

        Raises:
            ValueError: there are no features, or an option has a bad value.
        """
        features = column(processed_features, self.model_input_names[0])
        one_of("return_tensors", return_tensors, ("pt", "np", None))
        arrays = [np.asarray(one, dtype=np.float32) for one in features]
        return self._batch(
            arrays, padding, max_length, pad_to_multiple_of, return_attention_mask, return_tensors
        )

    def _batch(
        self,
        features: list[np.ndarray],
        padding: bool | str,
        max_length: int | None,
        multiple: int | None,
        return_attention_mask: bool | None,
        return_tensors: str | None,
    ) -> BatchFeature:
        lengths = [len(one) for one in features]
        padded = padded_length(lengths, padding, max_length, multiple)
        values, mask = self.model_input_names
        batch = BatchFeature({values: [_pad(one, padded, self.padding_value) for one in features]})
        if self._masks(padding) if return_attention_mask is None else return_attention_mask:
            batch[mask] = [_pad(np.ones(count, dtype=np.int32), padded, 0) for count in lengths]
        for name, arrays in batch.items():
            batch[name] = arrays if return_tensors is None else stack(arrays, return_tensors)
        return batch

    def _masks(self, padding: bool | str) -> bool:
        """True where a batch has an attention mask by default."""
        return True

    def _squeeze(self, features: np.ndarray) -> np.ndarray:
        """Reshape an utterance's features from `extract_packed` to the input shape of a model's `forward`."""
        return features

    def _check_rate(self, sampling_rate: int | None) -> None:
        """Warn about a call without sampling rate, and raise ValueError for another than the extractor's."""
        if sampling_rate is None:
            message = f"no sampling_rate given; the audio is taken to be at {self.sampling_rate} Hz"
            warnings.warn(message, stacklevel=3)
        elif sampling_rate != self.sampling_rate:
            raise ValueError(
                f"audio at {sampling_rate} Hz for a feature extractor of {self.sampling_rate} Hz; resample it"
            )

    def _mono(self, waveform: Any, index: int) -> np.ndarray:
        """Convert a recording to float32 [samples]; a ValueError names an invalid recording and its fault."""
        name = f"recording {index}"
        waveform = _array(waveform, name)
        if waveform.ndim != 1:
            raise ValueError(
                f"{name} has shape {waveform.shape}; give mono audio [samples], the average of its channels"
            )
        shortest, what = self._shortest()
        if len(waveform) < shortest:
            raise ValueError(
                f"{name} has {len(waveform)} samples, less than {what}; "
                "leave it out, or if these are channels, average them"
            )
        finite = np.isfinite(waveform)
        if not finite.all():
            bad = int(np.argmin(finite))
            raise ValueError(f"{name} is {waveform[bad]} at sample {bad}; every sample must be finite")
        return waveform

    def to_dict(self) -> dict[str, Any]:
        """Settings as written to preprocessor_config.json."""
        settings = {name: getattr(self, name) for name in (*self.settings, "return_attention_mask")}
        settings |= self.fixed
        return settings | ({"processor_class": self.processor_class} if self.processor_class else {})

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike[str] | Checkpoint, **kwargs: Any) -> Self:
        """Load the settings from a checkpoint (a folder or Hub repository id) or its JSON file.

        Reads preprocessor_config.json, or processor_config.json where it has the settings, as transformers 5
        writes it. `kwargs` are `files.HUB_OPTIONS` and settings, which override those of the file.
        """
        file = single_file(name_or_dir)
        checkpoint, overrides = open_checkpoint(name_or_dir if file is None else file.parent, **kwargs)
        nested = checkpoint.find(PROCESSOR_FILE) if file is None else None
        if nested is not None and "feature_extractor" in read_json(nested):
            file = nested
        path = file or checkpoint.require(PREPROCESSOR_FILE)
        settings = read_json(path)
        settings = settings.get("feature_extractor", settings)
        if not isinstance(settings, dict):
            raise ValueError(
                f"{path} must hold the settings of feature_extractor as an object, it holds {shown(settings)}"
            )
        known = {*cls.settings, *cls.fixed, *_NEUTRAL, *cls.derived}
        unknown = [name for name in settings if name not in known]
        if unknown:
            warnings.warn(f"{path} sets {', '.join(unknown)}, which Tritone does not use", stacklevel=2)
        written = {name: settings[name] for name in settings if name in known}
        if overrides:
            return cls(**(written | overrides))  # the fault may be the caller's
        try:
            return cls(**written)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def save_pretrained(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write preprocessor_config.json, which transformers 4 and 5 load, and return the paths written."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        written = {folder / PREPROCESSOR_FILE: self.to_dict()}
        nested = folder / PROCESSOR_FILE
        if nested.is_file() and "feature_extractor" in (processor := read_json(nested)):
            # Its old settings would take precedence when loading.
            written[nested] = processor | {"feature_extractor": self.to_dict()}
        return tuple(write_json(path, content) for path, content in written.items())


def separate(raw_speech: Any) -> list[Any]:
    """Split a batch into a list of recordings; a single recording becomes a list of one."""
    if isinstance(raw_speech, (np.ndarray, Tensor)):
        if raw_speech.ndim not in (1, 2):
            raise ValueError(f"audio of shape {tuple(raw_speech.shape)}; give [samples] or [batch, samples]")
        return [raw_speech] if raw_speech.ndim == 1 else list(raw_speech)
    if not isinstance(raw_speech, (list, tuple)):
        raise ValueError(f"audio must be an array, a tensor or a list, got {type(raw_speech).__name__}")
    if not raw_speech:
        raise ValueError("no audio: the list is empty")
    return [raw_speech] if np.ndim(raw_speech[0]) == 0 else list(raw_speech)


def _array(waveform: Any, name: str) -> np.ndarray:
    """Convert a recording to float32; integer arrays are an error, as they may be unscaled PCM samples."""
    if isinstance(waveform, Tensor):
        waveform = (waveform.detach().float() if waveform.is_floating_point() else waveform).cpu().numpy()
    if isinstance(waveform, np.ndarray) and not np.issubdtype(waveform.dtype, np.floating):
        raise ValueError(
            f"{name} is {waveform.dtype}; give floats from -1 to 1 (16-bit samples divided by 32768)"
        )
    try:
        return np.asarray(waveform, dtype=np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is not a sequence of numbers") from None


def _pad(array: np.ndarray, length: int, value: float) -> np.ndarray:
    filler = np.full((max(0, length - len(array)), *array.shape[1:]), value, dtype=array.dtype)
    return np.concatenate([array, filler])
