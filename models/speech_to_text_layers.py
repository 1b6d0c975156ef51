"""The parts of Speech2Text, on packed tokens: subsampler, positions, attention and layers."""

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.conv_subsample import conv_subsample, output_length
from ..kernels.layer_norm import layer_norm
from ..kernels.linear import linear
from .attention import DecoderAttention, StackAttention
from .speech_to_text_config import Speech2TextConfig


class Conv1dSubsampler(nn.Module):
    """Convolutions with gated linear units, each halving the frame rate (fairseq S2T, arXiv 2010.05171)."""

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
        """Frames [frames, features] to encoder tokens [tokens, d_model], with their cu_seqlens."""
        for conv in self._convolutions():
            features, cu_frames = conv_subsample(features, cu_frames, conv.weight, conv.bias, stride=2)
        return features, cu_frames

    def length(self, frames: int) -> int:
        """Encoder tokens for so many frames."""
        for conv in self._convolutions():
            frames = output_length(frames, conv.kernel_size[0], 2)
        return frames

    def _convolutions(self) -> Iterable[nn.Conv1d]:
        return cast(Iterable[nn.Conv1d], self.conv_layers)


class SinusoidalPositions(nn.Module):
    """Fixed sine and cosine vectors, all sines first as in tensor2tensor; the padding token's row is zero."""

    def __init__(self, num_positions: int, width: int, padding_idx: int) -> None:
        super().__init__()
        if not isinstance(padding_idx, int):
            raise ValueError(
                f"pad_token_id is {padding_idx!r}; positions are counted from it: give a whole number"
            )
        self.padding_idx = padding_idx
        half = width // 2
        rate = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / max(half - 1, 1)))
        # Two rows more than positions: real ones start after the padding token's.
        angle = torch.arange(num_positions + 2, dtype=torch.float32)[:, None] * rate[None]
        table = F.pad(torch.cat([angle.sin(), angle.cos()], dim=1), (0, width % 2))
        table[padding_idx] = 0
        self.register_buffer("weights", table, persistent=False)
        self.weights: Tensor

    @property
    def limit(self) -> int:
        """How many positions there are."""
        return self.weights.shape[0] - 1 - self.padding_idx


class Attention(nn.Module):
    """The four projections of multi-head attention; who attends to what is the caller's.

    Args:
        width: d_model.
        heads: of width / heads each.
        phase: of `linear`, for what works on queries.
        key_phase: for keys and values: cross-attention makes them of a whole recording.
    """

    def __init__(self, width: int, heads: int, phase: str, key_phase: str) -> None:
        super().__init__()
        self.heads = heads
        self.phase = phase
        self.key_phase = key_phase
        self.scale = (width // heads) ** -0.5
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def query(self, hidden: Tensor) -> Tensor:
        """[tokens, width] to [tokens, heads, head_dim]."""
        return self._heads(self.q_proj, hidden, self.phase)

    def key_value(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """[tokens, width] to keys and values, each [tokens, heads, head_dim]."""
        keys = self._heads(self.k_proj, hidden, self.key_phase)
        return keys, self._heads(self.v_proj, hidden, self.key_phase)

    def _heads(self, projection: nn.Linear, hidden: Tensor, phase: str) -> Tensor:
        projected = linear(hidden, projection.weight, projection.bias, phase=phase)
        return projected.view(hidden.shape[0], self.heads, -1)


class Layer(nn.Module):
    """What encoder and decoder layers share: residual connections with dropout, and the feed-forward half.

    Args:
        config: sizes and dropout.
        ffn_dim: the feed-forward half's inner width.
        phase: of `linear`.
    """

    def __init__(self, config: Speech2TextConfig, ffn_dim: int, phase: str) -> None:
        super().__init__()
        self.phase = phase
        self.dropout = config.dropout
        self.activation_dropout = config.activation_dropout
        self.activation = config.activation_function
        self.fc1 = nn.Linear(config.d_model, ffn_dim)
        self.fc2 = nn.Linear(ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def add(self, residual: Tensor, module: nn.Linear, hidden: Tensor, limit: float | None = None) -> Tensor:
        """`residual + dropout(module(hidden))`, clamped to `limit` where there is one."""
        if not self.training or not self.dropout:
            weight, bias = module.weight, module.bias
            return linear(hidden, weight, bias, residual=residual, limit=limit, phase=self.phase)
        out = residual + F.dropout(linear(hidden, module.weight, module.bias), self.dropout)
        return out if limit is None else out.clamp(-limit, limit)

    def feed_forward(self, hidden: Tensor, limit: float | None = None) -> Tensor:
        """The second half of every layer, clamped to `limit` where there is one."""
        inner = normalise(self.final_layer_norm, hidden)
        inner = linear(inner, self.fc1.weight, self.fc1.bias, activation=self.activation, phase=self.phase)
        return self.add(hidden, self.fc2, F.dropout(inner, self.activation_dropout, self.training), limit)


class EncoderLayer(Layer):
    """Self-attention within each utterance, then feed-forward, each normalised first."""

    def __init__(self, config: Speech2TextConfig, index: int) -> None:
        super().__init__(config, config.encoder_ffn_dim, "encode")
        self.index = index
        self.self_attn = Attention(config.d_model, config.encoder_attention_heads, "encode", "encode")
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, hidden: Tensor, attention: StackAttention) -> Tensor:
        """[tokens, d_model] to the same, in the given attention layout."""
        own = self.self_attn
        normed = normalise(self.self_attn_layer_norm, hidden)
        mixed = attention(self.index, own.query(normed), *own.key_value(normed), own.scale)
        # As in transformers, what overflows a half stays finite.
        limit = torch.finfo(torch.float16).max - 1000 if hidden.dtype == torch.float16 else None
        return self.feed_forward(self.add(hidden, own.out_proj, mixed.flatten(1)), limit)


class DecoderLayer(Layer):
    """Causal self-attention, cross-attention, feed-forward, each normalised first."""

    def __init__(self, config: Speech2TextConfig, index: int) -> None:
        super().__init__(config, config.decoder_ffn_dim, "decode")
        self.index = index
        self.self_attn = Attention(config.d_model, config.decoder_attention_heads, "decode", "decode")
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.encoder_attn = Attention(config.d_model, config.decoder_attention_heads, "decode", "encode")
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, hidden: Tensor, attention: DecoderAttention) -> Tensor:
        """[tokens, d_model] to the same, in the given attention layout."""
        own, cross = self.self_attn, self.encoder_attn
        normed = normalise(self.self_attn_layer_norm, hidden)
        mixed = attention.self_attention(self.index, own.query(normed), *own.key_value(normed), own.scale)
        hidden = self.add(hidden, own.out_proj, mixed.flatten(1))
        normed = normalise(self.encoder_attn_layer_norm, hidden)
        mixed = attention.cross_attention(self.index, cross.query(normed), cross.scale)
        hidden = self.add(hidden, cross.out_proj, mixed.flatten(1))
        return self.feed_forward(hidden)


def normalise(module: nn.LayerNorm, hidden: Tensor) -> Tensor:
    """Layer normalisation with a module's weights."""
    return layer_norm(hidden, module.weight, module.bias, module.eps)


def run_layers(
    layers: nn.ModuleList,
    norm: nn.LayerNorm,
    hidden: Tensor,
    attention: Any,
    layerdrop: float,
    states: list[Tensor] | None = None,
) -> Tensor:
    """A stack of layers and the normalisation after it.

    Args:
        layers: encoder or decoder layers.
        norm: of the last hidden states.
        hidden: [tokens, d_model], embedded.
        attention: the layout that the layers attend in.
        layerdrop: chance of skipping a layer (LayerDrop, arXiv 1909.11556); 0 outside training.
        states: gets the hidden states before the first layer and after each that ran; the last ones
            normalised, as transformers gives them.
    """
    if states is not None:
        states.append(hidden)
    for layer in layers:
        # No draw without layer drop, so that a seed gives dropout the same draws as in transformers.
        if layerdrop and torch.rand(()).item() < layerdrop:
            continue
        hidden = layer(hidden, attention)
        if states is not None:
            states.append(hidden)
    hidden = normalise(norm, hidden)
    if states is not None:
        states[-1] = hidden
    return hidden


def embedding_scale(config: Speech2TextConfig) -> float:
    """What embeddings are multiplied by."""
    return math.sqrt(config.d_model) if config.scale_embedding else 1.0
