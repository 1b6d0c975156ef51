"""Processors, each of which combines a feature extractor and a tokenizer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from ..auto import AutoFeatureExtractor, AutoTokenizer
from ..checkpoints.files import Checkpoint, open_checkpoint
from ..checkpoints.hub import PushToHub
from ..core.batches import BatchFeature
from ..registry import families_with
from .feature_extractor import FeatureExtractor


class SpeechProcessor(PushToHub):
    """Feature extractor and tokenizer in one: audio to features, text to labels, token ids to text.

    The two may belong to different families, as in the repository of a SpeechEncoderDecoder model;
    AutoFeatureExtractor and AutoTokenizer then find them. A family's subclass sets their classes.
    """

    feature_extractor_class: ClassVar[type[FeatureExtractor] | None] = None
    tokenizer_class: ClassVar[Any] = None

    def __init__(self, feature_extractor: Any, tokenizer: Any) -> None:
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer
        self._target_mode = False

    @property
    def model_input_names(self) -> tuple[str, ...]:
        """Keys of the output of a call with audio and text: the model's inputs and `labels`."""
        return (*self.feature_extractor.model_input_names, "labels")

    def __call__(
        self, audio: Any = None, text: Any = None, *, sampling_rate: int | None = None, **options: Any
    ) -> BatchFeature:
        """Extract features of `audio`, encode `text` to token ids, or both, with the token ids as `labels`.

        `options` go to the feature extractor or the tokenizer, or to both if both inputs are given.

        Raises:
            ValueError: neither audio nor text is given.
        """
        if self._target_mode:
            audio, text = None, audio if text is None else text
        if audio is None and text is None:
            raise ValueError("give audio, text or both")
        if audio is None:
            return self.tokenizer(text, **options)
        features: BatchFeature = self.feature_extractor(audio, sampling_rate=sampling_rate, **options)
        if text is not None:
            features["labels"] = self.tokenizer(text, **options)["input_ids"]
        return features

    def pad(self, input_features: Any = None, labels: Any = None, **options: Any) -> Any:
        """Pad features, labels or both, processed one by one, to a batch, with token ids as `labels`.

        Labels alone are padded as by the tokenizer's `pad`. `options` go to the `pad` of each part.

        Raises:
            ValueError: neither features nor labels are given.
        """
        if input_features is None and labels is None:
            raise ValueError("give input_features, labels or both")
        if input_features is None:
            return self.tokenizer.pad(labels, **options)
        batch = self.feature_extractor.pad(input_features, **options)
        if labels is not None:
            batch["labels"] = self.tokenizer.pad(labels, **options)["input_ids"]
        return batch

    @contextmanager
    def as_target_processor(self) -> Iterator[None]:
        """Context manager in which calls go to the tokenizer; superseded by the argument `text`."""
        self._target_mode = True
        try:
            yield
        finally:
            self._target_mode = False

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """Decode token ids to text with the tokenizer's `decode`."""
        return self.tokenizer.decode(*args, **kwargs)

    def batch_decode(self, *args: Any, **kwargs: Any) -> Any:
        """Decode several sequences of token ids to texts with the tokenizer's `batch_decode`."""
        return self.tokenizer.batch_decode(*args, **kwargs)

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike[str] | Checkpoint, **kwargs: Any) -> Self:
        """Load feature extractor and tokenizer from a checkpoint, a folder or Hub repository id.

        `kwargs` are `files.HUB_OPTIONS`, settings of the feature extractor and options of the tokenizer.
        """
        checkpoint, options = open_checkpoint(name_or_dir, **kwargs)
        extractor = cls.feature_extractor_class
        others = [family.load("feature_extractor") for family in families_with("feature_extractor")]
        kinds = others if extractor is None else [extractor]
        names = {name for kind in kinds for name in (*kind.settings, *kind.fixed)}
        settings = {name: options.pop(name) for name in names if name in options}
        return cls(
            (extractor or AutoFeatureExtractor).from_pretrained(checkpoint, **settings),
            (cls.tokenizer_class or AutoTokenizer).from_pretrained(checkpoint, **options),
        )

    def save_pretrained(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write a folder that `from_pretrained` loads, here and in transformers; return the paths written."""
        parts = (self.feature_extractor, self.tokenizer)
        for part in parts:
            part.processor_class = self._saved_class()
        return tuple(path for part in parts for path in part.save_pretrained(save_directory))

    def _saved_class(self) -> str | None:
        """Name of the processor class to save, for transformers to load; None where it has no such class."""
        if type(self) is not SpeechProcessor:
            return type(self).__name__
        name = type(self.feature_extractor).__name__
        return "Wav2Vec2Processor" if name == "Wav2Vec2FeatureExtractor" else None  # whatever the tokenizer
