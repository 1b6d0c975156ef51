"""Protocols of the models that a runner serves: attributes and methods that each task needs.

torch is not imported here, so that the registry of model families can name tasks without it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeGuard

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .cache.attention_metadata import AttentionMetadata


class Task(StrEnum):
    """Task of a model; the value names the field of `Family` in models/family.py that holds its class."""

    GENERATION = "speech_seq2seq"
    CTC = "ctc"
    AUDIO_CLASSIFICATION = "audio_classification"
    SEQUENCE_CLASSIFICATION = "sequence_classification"


class Model(Protocol):
    """Protocol of all models that a runner serves."""

    task: ClassVar[Task]

    @property
    def device(self) -> "torch.device": ...
    @property
    def dtype(self) -> "torch.dtype": ...
    def encoder_length(self, frames: int) -> int:
        """Number of encoder positions for `frames` frames. Raises ValueError for too few or too many."""
        ...


class GenerativeModel(Model, Protocol):
    """Protocol of models that encode a recording once and decode it token by token: `Task.GENERATION`."""

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """Number of layers, number of heads, and head_dim of the decoder's keys and values."""
        ...

    @property
    def max_length(self) -> int:
        """Maximum sequence length in tokens that the decoder has positions for."""
        ...

    def encode(self, features: "Tensor", cu_frames: "Tensor") -> "tuple[Tensor, Tensor]":
        """Encode packed features [frames, features] to hidden states [tokens, d_model] and cu_tokens."""
        ...

    def cross_key_values(self, encoded: "Tensor") -> "list[tuple[Tensor, Tensor]]":
        """Cross-attention keys and values [tokens, heads, head_dim] of hidden states, a pair per layer."""
        ...

    def decode_hidden(
        self, token_ids: "Tensor", positions: "Tensor", attention: "AttentionMetadata"
    ) -> "Tensor":
        """Hidden states [rows, width] after one token per row; arguments as in `decode`."""
        ...

    def logits(self, hidden: "Tensor") -> "Tensor":
        """Logits [rows, vocabulary] of the next tokens after hidden states [rows, width]."""
        ...

    def decode(self, token_ids: "Tensor", positions: "Tensor", attention: "AttentionMetadata") -> "Tensor":
        """Logits [rows, vocabulary] after one token per row, int64 [rows], at its position, int64 [rows]."""
        ...


class EncoderOnlyModel(Model, Protocol):
    """Protocol of models whose result is complete once encoded: CTC and classification."""

    def predict(self, features: "Tensor", cu_frames: "Tensor") -> "Mapping[str, tuple[Tensor, Tensor]]":
        """Packed predictions by name, each with its cu_rows, int32 [requests + 1].

        A classifier has one row per request, CTC one row per frame. All of them are copied to the host, so
        none should be returned that no caller needs.
        """
        ...


def generates(model: GenerativeModel | EncoderOnlyModel) -> TypeGuard[GenerativeModel]:
    """Check whether a model decodes token by token."""
    return model.task is Task.GENERATION
