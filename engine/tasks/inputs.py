"""Conversion of recordings and texts to a model's inputs."""

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..audio.limits import max_recording_seconds, max_text_tokens
from ..audio.reader import AudioError, as_samples, load_audio
from ..config import EngineConfig

_MAX_EXCERPT = 40  # characters of a text in a message


class TextError(ValueError):
    """Error for an unusable text; the message shows its beginning, the problem and the remedy."""


class Recordings:
    """Reader of recordings: converts paths, arrays and tensors to waveforms at the model's sampling rate.

    Args:
        model: model that offers `encoder_length`.
        feature_extractor: feature extractor of the same checkpoint.
        config: configuration with the limits of a recording's length.
    """

    def __init__(self, model: Any, feature_extractor: Any, config: EngineConfig) -> None:
        self.front_end = feature_extractor
        self.sampling_rate: int = feature_extractor.sampling_rate  # Hz
        self.max_seconds = max_recording_seconds(model, feature_extractor, config)
        self._model = model

    def snapshot(self, source: Any) -> Any:
        """Snapshot of the source for a reading thread: a path, a copy of an array, or the array's AudioError.

        An array is copied because callers may reuse its buffer. The error is returned, so that it is reported
        by the handle, like the error of a file.
        """
        if isinstance(source, str | os.PathLike):
            return source
        try:
            return as_samples(source)
        except AudioError as error:
            return error

    def read(self, source: Any, sampling_rate: int | None, options: dict[str, Any]) -> tuple[Tensor, float]:
        """Read a snapshot to a waveform, float32 [samples], and its duration in seconds.

        Raises:
            AudioError: the recording cannot be used.
        """
        if isinstance(source, AudioError):
            raise source
        samples = load_audio(
            source, self.sampling_rate, source_rate=sampling_rate, max_seconds=self.max_seconds
        ).samples
        duration = len(samples) / self.sampling_rate
        name = os.fspath(source) if isinstance(source, str | os.PathLike) else f"array {source.shape}"
        frames = self.front_end.frame_count(len(samples))
        if frames < 1:
            raise AudioError(
                f"{name}: {1000 * duration:.1f} ms, shorter than one frame of 25 ms; leave it out"
            )
        try:
            self._model.encoder_length(frames)
        except ValueError as error:
            raise AudioError(f"{name}: {error}") from None
        return torch.from_numpy(samples), duration


class Texts:
    """Reader of texts: encodes strings and pairs of strings to token ids.

    Args:
        model: model that offers `encoder_length` and `has_token_types`.
        tokenizer: tokenizer of the same checkpoint.
    """

    front_end = None
    sampling_rate = None
    max_seconds = None

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self.max_tokens = max_text_tokens(model)

    def snapshot(self, source: Any) -> Any:
        """Snapshot of the source for a reading thread: a string or pair, or a tuple copied from a list."""
        return tuple(source) if isinstance(source, list) else source

    def read(self, source: Any, sampling_rate: int | None, options: dict[str, Any]) -> tuple[Tensor, float]:
        """Encode a snapshot to token ids, int64 [tokens, 1], or [tokens, 2] with token types, and 0 seconds.

        Raises:
            TextError: the source is not a text, or has more tokens than the model's positions and `truncate`
                is not set.
        """
        if isinstance(source, str):
            text, pair = source, None
        elif isinstance(source, tuple) and len(source) == 2 and all(isinstance(part, str) for part in source):
            text, pair = source
        else:
            given = f"{type(source).__name__} {source!r:.{_MAX_EXCERPT}}"
            raise TextError(f"a text is a str, or a pair (str, str); got {given}")
        excerpt = repr(text if len(text) <= _MAX_EXCERPT else text[: _MAX_EXCERPT - 3] + "...")
        try:
            f"{text}{pair}".encode()
        except UnicodeEncodeError as error:
            raise TextError(
                f"{excerpt}: is not Unicode ({error.reason}); read it with its encoding"
            ) from None
        encoded = self._tokenizer(text, pair, **self._truncation(options))
        columns = [encoded["input_ids"]]
        # Tokenizers may return token types to a model without token types.
        if self._model.has_token_types and "token_type_ids" in encoded:
            columns.append(encoded["token_type_ids"])
        self._check_tokens(columns, excerpt)
        return torch.from_numpy(np.array(columns, dtype=np.int64).T.copy()), 0.0

    def _truncation(self, options: dict[str, Any]) -> dict[str, Any]:
        limits = [limit for limit in (self.max_tokens, self._tokenizer.model_max_length) if limit is not None]
        # Tokenizers without a limit have 10^30, as transformers' do.
        if options.get("truncate") and min(limits) < 10**20:
            return {"truncation": True, "max_length": min(limits)}
        return {"truncation": False}

    def _check_tokens(self, columns: list[list[int]], excerpt: str) -> None:
        """Raise TextError for tokens that the model has no embedding for; on a GPU they end the process."""
        token_ids, *types = columns
        known_types = getattr(self._model.config, "type_vocab_size", None)  # None: any number
        if types and known_types is not None and max(types[0], default=0) >= known_types:
            raise TextError(
                f"{excerpt}: token types go to {max(types[0])}, and the model knows types 0 to "
                f"{known_types - 1}; give one text, not a pair, or the tokenizer that belongs to the model"
            )
        if not token_ids:
            raise TextError(f"{excerpt}: comes to no tokens; leave it out")
        if max(token_ids) >= self._model.config.vocab_size:
            raise TextError(
                f"{excerpt}: token {max(token_ids)} is beyond the model's {self._model.config.vocab_size}; "
                "give the tokenizer that belongs to it"
            )
        if self.max_tokens is not None and len(token_ids) > self.max_tokens:
            raise TextError(
                f"{excerpt}: {len(token_ids)} tokens, and the model has positions for {self.max_tokens}; "
                "shorten it, or have it cut: truncate=True, --truncate"
            )
