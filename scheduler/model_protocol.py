"""Interface between the runner and a model: attributes and methods that each task needs.

Free of torch at import, so that the registry of families can name tasks.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeGuard

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .cache.attention_metadata import AttentionMetadata


class Task(StrEnum):
    """Task of a model; each value is the field of `Family` in models/family.py that holds its class."""

    GENERATION = "speech_seq2seq"
    CTC = "ctc"
    AUDIO_CLASSIFICATION = "audio_classification"
    SEQUENCE_CLASSIFICATION = "sequence_classification"


class Model(Protocol):
    """Attributes of every model that a runner serves."""

    task: ClassVar[Task]

    @property
    def device(self) -> "torch.device": ...
    @property
    def dtype(self) -> "torch.dtype": ...
    def encoder_length(self, frames: int) -> int:
        """Encoder positions of so many frames. Raises ValueError for an input too short or too long."""
        ...


class GenerativeModel(Model, Protocol):
    """A model that encodes a recording once and decodes it token by token: `Task.GENERATION`."""

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """Layers, heads and head_dim of the decoder's keys and values."""
        ...

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence that the decoder has positions for."""
        ...

    def encode(self, features: "Tensor", cu_frames: "Tensor") -> "tuple[Tensor, Tensor]":
        """Hidden states [tokens, d_model] and cu_tokens of packed features [frames, features]."""
        ...

    def cross_key_values(self, encoded: "Tensor") -> "list[tuple[Tensor, Tensor]]":
        """Keys and values [tokens, heads, head_dim] of hidden states, a pair a layer."""
        ...

    def decode(self, token_ids: "Tensor", positions: "Tensor", attention: "AttentionMetadata") -> "Tensor":
        """Logits [rows, vocabulary] of one token a row, int64 [rows], at its position, int64 [rows]."""
        ...


class EncoderOnlyModel(Model, Protocol):
    """A model whose result is complete once it has encoded: CTC and classification."""

    def predict(self, features: "Tensor", cu_frames: "Tensor") -> "Mapping[str, tuple[Tensor, Tensor]]":
        """Packed results by name, each with its cu_rows, int32 [requests + 1].

        A classifier has a row a request, CTC a row a frame. All of it is copied to the host: return no more
        than a caller asks for.
        """
        ...


def generates(model: GenerativeModel | EncoderOnlyModel) -> TypeGuard[GenerativeModel]:
    """True for a model that decodes token by token."""
    return model.task is Task.GENERATION
