"""Layers and position embeddings of Whisper."""

import math

import torch
from torch import Tensor, nn

from ..core.layers import DecoderLayer, EncoderLayer
from ..core.stack import PositionIndexer


class WhisperEncoderLayer(EncoderLayer):
    """Pre-norm encoder layer whose key projections have no bias."""

    key_bias = False


class WhisperDecoderLayer(DecoderLayer):
    """Pre-norm decoder layer whose key projections have no bias."""

    key_bias = False


class SourcePositions(nn.Module):
    """Position-embedding table of the encoder: sinusoids that checkpoints store and training leaves alone.

    Not an `nn.Embedding`, whose weights `PretrainedModel.initialize` draws.

    Args:
        positions: number of encoder positions.
        width: width of the hidden states, even.
    """

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        half = width // 2
        rate = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / (half - 1)))
        angle = torch.arange(positions, dtype=torch.float32)[:, None] * rate[None]
        self.weight = nn.Parameter(torch.cat([angle.sin(), angle.cos()], dim=1), requires_grad=False)


class TargetPositions(nn.Embedding):
    """Learned position-embedding table of the decoder.

    Args:
        limit: maximum sequence length in tokens.
        width: width of the hidden states.
    """

    @property
    def table(self) -> Tensor:
        """Position-embedding table, [limit, width]."""
        return self.weight

    @property
    def indexer(self) -> PositionIndexer:
        """Function from tokens to row indices of the position-embedding table."""
        return PositionIndexer(0, self.num_embeddings)
