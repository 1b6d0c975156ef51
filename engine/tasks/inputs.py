"""What an engine is given, recordings or texts, made into what its model reads."""

import os
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..audio.limits import longest_seconds, longest_text
from ..audio.reader import AudioError, as_samples, load_audio

EXCERPT = 40  # characters of a text in a message about it


class TextError(ValueError):
    """A text that cannot be used. The message shows how it begins, says what is wrong and what to do."""


class Recordings:
    """Recordings for a model: paths, arrays and tensors in, waveforms at its rate out.

    Args:
        model: with `encoder_length`.
        feature_extractor: its front end.
    """

    def __init__(self, model: Any, feature_extractor: Any) -> None:
        self.front_end = feature_extractor
        self.sampling_rate: int = feature_extractor.sampling_rate  # Hz
        self.max_seconds = longest_seconds(model, feature_extractor)
        self._model = model

    def taken(self, source: Any) -> Any:
        """What is kept of a source until it is read, in the caller's thread.

        Of an array a copy, because callers fill the same buffer again; its errors belong to the handle like a
        file's.
        """
        if isinstance(source, str | os.PathLike):
            return source
        try:
            return as_samples(source)
        except AudioError as error:
            return error

    def read(self, taken: Any, sampling_rate: int | None, options: dict[str, Any]) -> tuple[Tensor, float]:
        """In a reading thread: the samples, float32 [samples], and how many seconds they are.

        Raises:
            AudioError: a recording that cannot be used.
        """
        if isinstance(taken, AudioError):
            raise taken
        samples = load_audio(
            taken, self.sampling_rate, source_rate=sampling_rate, max_seconds=self.max_seconds
        )
        duration = len(samples) / self.sampling_rate
        name = os.fspath(taken) if isinstance(taken, str | os.PathLike) else f"array {taken.shape}"
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
    """Texts for a model: strings and pairs of them in, tokens out.

    Args:
        model: with `encoder_length`.
        tokenizer: its own.
    """

    front_end = None
    sampling_rate = None
    max_seconds = None

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self.max_tokens = longest_text(model)
        # Tokenizers may give types that the model has no use for.
        self._takes_types = getattr(model, "has_token_types", True) and (
            "token_type_ids" in signature(model.forward).parameters
        )

    def taken(self, source: Any) -> Any:
        """What is kept of a source until it is read: itself, or of a list a copy."""
        return tuple(source) if isinstance(source, list) else source

    def read(self, taken: Any, sampling_rate: int | None, options: dict[str, Any]) -> tuple[Tensor, float]:
        """In a reading thread: the tokens, int64 [tokens, 1], or with token types [tokens, 2], and 0 seconds.

        Raises:
            TextError: no text, or one longer than the model's positions that is not to be cut.
        """
        if isinstance(taken, str):
            text, pair = taken, None
        elif isinstance(taken, tuple) and len(taken) == 2 and all(isinstance(part, str) for part in taken):
            text, pair = taken
        else:
            what = f"{type(taken).__name__} {taken!r:.{EXCERPT}}"
            raise TextError(f"a text is a str, or a pair (str, str); got {what}")
        cut: dict[str, Any] = {"truncation": False}
        if options.get("truncate"):
            known = [most for most in (self.max_tokens, self._tokenizer.model_max_length) if most is not None]
            cut = {"truncation": True, "max_length": min(known)} if min(known) < 10**20 else cut
        shown = repr(text if len(text) <= EXCERPT else text[: EXCERPT - 3] + "...")
        try:
            f"{text}{pair}".encode()
        except UnicodeEncodeError as error:
            raise TextError(f"{shown}: is not Unicode ({error.reason}); read it with its encoding") from None
        encoded = self._tokenizer(text, pair, **cut)
        columns = [encoded["input_ids"]]
        if self._takes_types and "token_type_ids" in encoded:
            columns.append(encoded["token_type_ids"])
            kinds = getattr(self._model.config, "type_vocab_size", None)  # the others take any number
            if kinds is not None and max(columns[1], default=0) >= kinds:  # which would stop a GPU for good
                raise TextError(
                    f"{shown}: token types go to {max(columns[1])}, and the model knows types 0 to "
                    f"{kinds - 1}; give one text, not a pair, or the tokenizer that belongs to the model"
                )
        count = len(columns[0])
        if not count:
            raise TextError(f"{shown}: comes to no tokens; leave it out")
        if max(columns[0]) >= self._model.config.vocab_size:  # which would stop a GPU for good
            raise TextError(
                f"{shown}: token {max(columns[0])} is beyond the model's {self._model.config.vocab_size}; "
                "give the tokenizer that belongs to it"
            )
        if self.max_tokens is not None and count > self.max_tokens:
            raise TextError(
                f"{shown}: {count} tokens, and the model has positions for {self.max_tokens}; shorten it, or "
                "have it cut: truncate=True, --truncate"
            )
        return torch.from_numpy(np.array(columns, dtype=np.int64).T.copy()), 0.0
