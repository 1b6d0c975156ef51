"""From waveforms to Speech2Text's input features, and the processor that joins them with the tokenizer."""

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..kernels.fbank import fbank, frame_count, frame_sizes
from ..kernels.packing import cumulative
from ..kernels.utterance_cmvn import utterance_cmvn
from .files import Checkpoint, open_checkpoint, read_json, single_file
from .hub import PushToHub

if TYPE_CHECKING:
    from .speech_to_text_tokenization import Speech2TextTokenizer

_PREPROCESSOR_FILE, _PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"
_KALDI_SCALE = 2.0**15  # Kaldi's filter bank was made for 16-bit integers
_SETTINGS = (
    *("feature_size", "sampling_rate", "num_mel_bins", "padding_value"),
    *("do_ceptral_normalize", "normalize_means", "normalize_vars"),
)
# Settings with one supported value.
_FIXED = {"dither": 0.0, "padding_side": "right", "feature_extractor_type": "Speech2TextFeatureExtractor"}
_NEUTRAL = {"return_attention_mask", "processor_class", "transformers_version", "name_or_path", "auto_map"}


class BatchFeature(dict[str, Any]):
    """What processors return: a dict whose items are attributes as well, so that `model(**batch)` works."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"this batch has no {name!r}; it has: {', '.join(self) or 'nothing'}"
            ) from None

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> "BatchFeature":
        """Move its tensors to `device`, and those of floating point to `dtype`; returns itself."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        for name, value in self.items():
            if isinstance(value, Tensor):
                self[name] = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
        return self


class Speech2TextFeatureExtractor(PushToHub):
    """Log-mel features of mono recordings, normalised over each utterance.

    Args:
        feature_size: kept for transformers; `num_mel_bins` alone decides.
        sampling_rate: Hz, 8,000 to 48,000.
        num_mel_bins: features of a frame.
        padding_value: what stands in padded frames.
        do_ceptral_normalize: normalise at all (transformers' spelling).
        normalize_means: to mean 0 over the utterance.
        normalize_vars: to standard deviation 1 over the utterance.
        **kwargs: what transformers writes beside these: padding_side "right" and dither 0, the only values
            supported, and names without effect.

    Raises:
        ValueError: for a value that is not supported.
        TypeError: for a setting that does not exist.
    """

    model_input_names = ("input_features", "attention_mask")

    def __init__(
        self,
        feature_size: int = 80,
        sampling_rate: int = 16_000,
        num_mel_bins: int = 80,
        padding_value: float = 0.0,
        do_ceptral_normalize: bool = True,
        normalize_means: bool = True,
        normalize_vars: bool = True,
        **kwargs: Any,
    ) -> None:
        for name, only in _FIXED.items():
            if kwargs.get(name) not in (None, only):
                raise ValueError(f"{name} {kwargs[name]!r} is not supported, only {only!r} is")
        unknown = [name for name in kwargs if name not in _FIXED and name not in _NEUTRAL]
        if unknown:
            raise TypeError(f"there is no setting {unknown[0]!r}; there are {', '.join(_SETTINGS)}")
        frame_sizes(sampling_rate)
        if num_mel_bins < 1:
            raise ValueError(f"num_mel_bins must be at least 1, got {num_mel_bins}")
        self.feature_size = feature_size
        self.sampling_rate = sampling_rate
        self.num_mel_bins = num_mel_bins
        self.padding_value = padding_value
        self.do_ceptral_normalize = do_ceptral_normalize
        self.normalize_means = normalize_means
        self.normalize_vars = normalize_vars
        self.return_attention_mask = True
        self.processor_class: str | None = kwargs.get("processor_class")

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
        """Features of one recording or of several.

        Truncation comes before the normalisation, padding after it, so each utterance is normalised over the
        frames that are kept of it, and gets the bits that it would get alone.

        Args:
            raw_speech: mono, -1 to 1: an array, tensor or list of numbers [samples], a batch of them
                [batch, samples], or a list of them.
            padding: True or "longest", "max_length", or False.
            max_length: frames.
            truncation: cut to `max_length` frames (rounded up to a multiple of `pad_to_multiple_of`).
            pad_to_multiple_of: round the padded number of frames up.
            return_tensors: "pt", "np", or None for lists of arrays.
            sampling_rate: Hz of `raw_speech`; checked against the extractor's.
            return_attention_mask: False to leave out the mask.

        Returns:
            input_features float32 [batch, frames, bins], and attention_mask int32 [batch, frames], 1 where
            there is a frame.

        Raises:
            ValueError: another rate; not mono, empty, shorter than a frame, integers, NaN or infinite; a bad
                option; or tensors asked for of different lengths.
        """
        if sampling_rate is None:
            message = f"no sampling_rate given; the audio is taken to be at {self.sampling_rate} Hz"
            warnings.warn(message, stacklevel=2)
        elif sampling_rate != self.sampling_rate:
            raise ValueError(
                f"audio at {sampling_rate} Hz for a feature extractor of {self.sampling_rate} Hz; resample it"
            )
        one_of("return_tensors", return_tensors, ("pt", "np", None))
        if max_length is None and (truncation or padding == "max_length"):
            raise ValueError("truncation=True and padding='max_length' need max_length, in frames")
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1 frame, got {max_length}")

        length, shift = frame_sizes(self.sampling_rate)
        waveforms = [self._mono(waveform, i) for i, waveform in enumerate(_separate(raw_speech))]
        if truncation and max_length is not None:
            frames = round_up(max_length, pad_to_multiple_of)
            waveforms = [waveform[: length + (frames - 1) * shift] for waveform in waveforms]
        cu_samples = cumulative([len(waveform) for waveform in waveforms])
        with torch.no_grad():
            packed, cu_frames = self.packed(torch.from_numpy(np.concatenate(waveforms)), cu_samples)
        features = np.split(packed.numpy(), cu_frames[1:-1].tolist())

        lengths = [len(one) for one in features]
        padded = padded_length(lengths, padding, max_length, pad_to_multiple_of)
        batch = BatchFeature(
            input_features=[_pad_frames(one, padded, self.padding_value) for one in features]
        )
        if return_attention_mask is not False:
            ones = [np.ones(count, dtype=np.int32) for count in lengths]
            batch["attention_mask"] = [_pad_frames(one, padded, 0) for one in ones]
        for name, rows in batch.items():
            batch[name] = rows if return_tensors is None else stack(rows, return_tensors)
        return batch

    def frame_count(self, samples: int) -> int:
        """Frames of a recording of so many samples; 0 where it is shorter than one frame."""
        return frame_count(samples, self.sampling_rate)

    def packed(self, waveforms: Tensor, cu_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Features of packed waveforms, on their device, without padding.

        Args:
            waveforms: float32 [samples], -1 to 1, utterances end to end at the extractor's rate.
            cu_samples: int32 [n + 1].

        Returns:
            (features float32 [frames, bins], cu_frames int32 [n + 1]); none for an utterance under 25 ms.
        """
        if not waveforms.is_floating_point():
            raise ValueError(f"waveforms must be floats from -1 to 1, got {waveforms.dtype}")
        scaled, rate = waveforms * _KALDI_SCALE, self.sampling_rate
        features, cu_frames = fbank(scaled, cu_samples, sampling_rate=rate, num_mel_bins=self.num_mel_bins)
        if self.do_ceptral_normalize:
            features = utterance_cmvn(
                features, cu_frames, normalize_means=self.normalize_means, normalize_vars=self.normalize_vars
            )
        return features, cu_frames

    def to_dict(self) -> dict[str, Any]:
        """The settings, as preprocessor_config.json holds them."""
        settings = {name: getattr(self, name) for name in (*_SETTINGS, "return_attention_mask")} | _FIXED
        return settings | ({"processor_class": self.processor_class} if self.processor_class else {})

    @classmethod
    def from_pretrained(
        cls, name_or_dir: str | os.PathLike[str] | Checkpoint, **kwargs: Any
    ) -> "Speech2TextFeatureExtractor":
        """Load from a checkpoint (a folder or the id of a repository on the Hub) or its JSON file.

        Reads preprocessor_config.json, or processor_config.json where it has the settings, as transformers 5
        writes it. `kwargs` are `files.HUB_OPTIONS` and settings that go before the file's.
        """
        file = single_file(name_or_dir)
        checkpoint, overrides = open_checkpoint(name_or_dir if file is None else file.parent, **kwargs)
        nested = checkpoint.find(_PROCESSOR_FILE) if file is None else None
        if nested is not None and "feature_extractor" in read_json(nested):
            file = nested
        path = file or checkpoint.require(_PREPROCESSOR_FILE)
        settings = read_json(path)
        settings = settings.get("feature_extractor", settings)
        known = {*_SETTINGS, *_FIXED, *_NEUTRAL}
        unknown = [name for name in settings if name not in known]
        if unknown:
            warnings.warn(f"{path} sets {', '.join(unknown)}, which Tritone does not use", stacklevel=2)
        try:
            return cls(**({name: settings[name] for name in settings if name in known} | overrides))
        except (AttributeError, TypeError) as error:
            if overrides:
                raise  # theirs, as likely as the file's
            raise ValueError(f"{path} has settings that make no feature extractor: {error}") from error

    def save_pretrained(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write preprocessor_config.json, which transformers 4 and 5 load; returns the paths written."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        written = {folder / _PREPROCESSOR_FILE: self.to_dict()}
        nested = folder / _PROCESSOR_FILE
        if nested.is_file() and "feature_extractor" in (processor := read_json(nested)):
            # or its old settings would go first
            written[nested] = processor | {"feature_extractor": self.to_dict()}
        return tuple(write_json(path, content) for path, content in written.items())

    def _mono(self, waveform: Any, index: int) -> np.ndarray:
        """One recording as float32 [samples], or an error that says which one is wrong and how."""
        name = f"recording {index}"
        waveform = _array(waveform, name)
        if waveform.ndim != 1:
            raise ValueError(
                f"{name} has shape {waveform.shape}; give mono audio [samples], the average of its channels"
            )
        shortest = frame_sizes(self.sampling_rate)[0]
        if len(waveform) < shortest:
            raise ValueError(
                f"{name} has {len(waveform)} samples, less than a frame of {shortest} (25 ms); "
                "leave it out, or if these are channels, average them"
            )
        finite = np.isfinite(waveform)
        if not finite.all():
            bad = int(np.argmin(finite))
            raise ValueError(f"{name} is {waveform[bad]} at sample {bad}; every sample must be finite")
        return waveform


class Speech2TextProcessor(PushToHub):
    """A feature extractor and a tokenizer in one: audio to features, text to labels, token ids to text."""

    def __init__(
        self, feature_extractor: Speech2TextFeatureExtractor, tokenizer: "Speech2TextTokenizer"
    ) -> None:
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer
        self._target_mode = False

    def __call__(
        self, audio: Any = None, *, text: Any = None, sampling_rate: int | None = None, **options: Any
    ) -> BatchFeature:
        """Features of `audio`, token ids of `text`, or features with the token ids of the text as `labels`.

        `options` are those of the feature extractor or the tokenizer; of both, if there are both inputs.

        Raises:
            ValueError: if there is neither audio nor text.
        """
        if self._target_mode:
            audio, text = None, audio if text is None else text
        if audio is None and text is None:
            raise ValueError("give audio, text or both")
        if audio is None:
            return self.tokenizer(text, **options)
        features = self.feature_extractor(audio, sampling_rate=sampling_rate, **options)
        if text is not None:
            features["labels"] = self.tokenizer(text, **options)["input_ids"]
        return features

    @contextmanager
    def as_target_processor(self) -> Iterator[None]:
        """In this context the processor's arguments go to its tokenizer; `text=` is the newer way."""
        self._target_mode = True
        try:
            yield
        finally:
            self._target_mode = False

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """The tokenizer's `decode`."""
        return self.tokenizer.decode(*args, **kwargs)

    def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
        """The tokenizer's `batch_decode`."""
        return self.tokenizer.batch_decode(*args, **kwargs)

    @classmethod
    def from_pretrained(
        cls, name_or_dir: str | os.PathLike[str] | Checkpoint, **kwargs: Any
    ) -> "Speech2TextProcessor":
        """Load feature extractor and tokenizer from a folder or a repository on the Hub.

        `kwargs` are `files.HUB_OPTIONS`, settings of the one and options of the other.
        """
        from .speech_to_text_tokenization import Speech2TextTokenizer  # which needs BatchFeature from here

        checkpoint, options = open_checkpoint(name_or_dir, **kwargs)
        settings = {name: options.pop(name) for name in (*_SETTINGS, *_FIXED) if name in options}
        return cls(
            Speech2TextFeatureExtractor.from_pretrained(checkpoint, **settings),
            Speech2TextTokenizer.from_pretrained(checkpoint, **options),
        )

    def save_pretrained(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write a folder that `from_pretrained` loads, here and in transformers; returns the paths."""
        parts = (self.feature_extractor, self.tokenizer)
        for part in parts:
            part.processor_class = type(self).__name__
        return tuple(path for part in parts for path in part.save_pretrained(save_directory))


def round_up(length: int, multiple: int | None) -> int:
    """The least multiple of `multiple` that is not below `length`."""
    return length if multiple is None else -(-length // multiple) * multiple


def padded_length(
    lengths: Sequence[int], padding: bool | str, max_length: int | None, multiple: int | None
) -> int:
    """What the rows of a batch are padded to; 0 for not at all."""
    one_of("padding", padding, (True, "longest", "max_length", False, "do_not_pad"))
    if padding == "max_length":
        return round_up(max_length or 0, multiple)
    return round_up(max(lengths, default=0), multiple) if padding in (True, "longest") else 0


def stack(rows: Sequence[Any], kind: str) -> Any:
    """Rows in one array ("np") or tensor ("pt") [batch, length, ...]; ValueError if their lengths differ."""
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1:
        raise ValueError(
            f"rows of lengths {lengths} make no tensor; set padding=True, or truncation=True too"
        )
    array = np.stack([np.asarray(row) for row in rows])
    return torch.from_numpy(array) if kind == "pt" else array


def write_json(path: Path, content: dict[str, Any]) -> str:
    """Write a JSON object; returns its path."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return str(path)


def one_of(name: str, value: Any, accepted: tuple[Any, ...]) -> Any:
    """`value`, or a ValueError if it is not among the accepted ones."""
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}; got {value!r}")
    return value


def _separate(raw_speech: Any) -> list[Any]:
    """The recordings of a batch; one recording makes a batch of one."""
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
    """A recording as float32; integers only from lists of numbers, where they can be no PCM by accident."""
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


def _pad_frames(row: np.ndarray, length: int, value: float) -> np.ndarray:
    filler = np.full((max(0, length - len(row)), *row.shape[1:]), value, dtype=row.dtype)
    return np.concatenate([row, filler])
