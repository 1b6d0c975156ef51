"""Convolutional subsampler and sinusoidal positions of Speech2Text, on packed batches."""

import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.conv.subsample import conv_subsample, output_length
from ...kernels.runtime.packing import offsets_after
from ..core.stack import PositionIndexer
from .config import Speech2TextConfig


class Conv1dSubsampler(nn.Module):
    """Convolutions with gated linear units, each of which halves the frame rate (arXiv 2010.05171)."""

    def __init__(self, config: Speech2TextConfig) -> None:
        super().__init__()
        last = config.num_conv_layers - 1
        features = config.input_feat_per_channel * config.input_channels
        self.conv_layers = nn.ModuleList(
            nn.Conv1d(
                features if layer == 0 else config.conv_channels // 2,
                2 * config.d_model if layer == last else config.conv_channels,
                kernel_size=kernel,
                stride=2,
                padding=kernel // 2,
            )
            for layer, kernel in enumerate(config.conv_kernel_sizes)
        )

    def forward(self, features: Tensor, cu_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Subsample frames [frames, features] to encoder tokens [tokens, d_model], with their cu_seqlens."""
        if cu_frames.device.type != "cpu":  # copied there once for all layers
            layers = [(conv.kernel_size[0], 2) for conv in self._convolutions()]
            offsets_after(cu_frames, output_length, *layers)
        for conv in self._convolutions():
            features, cu_frames = conv_subsample(features, cu_frames, conv.weight, conv.bias, stride=2)
        return features, cu_frames

    def length(self, frames: int) -> int:
        """Number of encoder tokens for `frames` frames."""
        for conv in self._convolutions():
            frames = output_length(frames, conv.kernel_size[0], 2)
        return frames

    def _convolutions(self) -> Iterable[nn.Conv1d]:
        return cast(Iterable[nn.Conv1d], self.conv_layers)


class SinusoidalPositions(nn.Module):
    """Sinusoidal position-embedding table, sines before cosines as in tensor2tensor; padding is zero."""

    def __init__(self, num_positions: int, width: int, padding_idx: int) -> None:
        super().__init__()
        if not isinstance(padding_idx, int):
            raise ValueError(
                f"pad_token_id is {padding_idx!r}; positions are counted from it: give a whole number"
            )
        self.padding_idx = padding_idx
        half = width // 2
        rate = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / max(half - 1, 1)))
        # Two rows more than positions, as positions start after the padding token's row.
        angle = torch.arange(num_positions + 2, dtype=torch.float32)[:, None] * rate[None]
        table = F.pad(torch.cat([angle.sin(), angle.cos()], dim=1), (0, width % 2))
        table[padding_idx] = 0
        self.register_buffer("weights", table, persistent=False)
        self.weights: Tensor

    @property
    def table(self) -> Tensor:
        """Position-embedding table, [positions + 2, width]."""
        return self.weights

    @property
    def limit(self) -> int:
        """Maximum sequence length: the rows of the position-embedding table after the padding token's."""
        return self.weights.shape[0] - 1 - self.padding_idx

    @property
    def indexer(self) -> PositionIndexer:
        """Function from a decoder's tokens to row indices of the table; padding tokens are not counted."""
        return PositionIndexer(self.padding_idx + 1, self.limit, self.padding_idx)
