"""Transformer layers as fairseq's models have them (BART, MBart, Speech2Text), on packed tokens."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.linear.activation import check_activation
from ...kernels.linear.gemm import linear
from ...kernels.norm.layer_norm import layer_norm
from .attention import DecoderAttention, StackAttention
from .config import PretrainedConfig


class Attention(nn.Module):
    """The four projections of multi-head attention; who attends to what is the caller's.

    Args:
        width: d_model.
        heads: of width / heads each.
        phase: of `linear`, for what works on queries.
        key_phase: for keys and values: cross-attention makes them of a whole recording.

    Raises:
        ValueError: heads that do not divide the width.
    """

    def __init__(self, width: int, heads: int, phase: str, key_phase: str) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"{heads} attention heads do not divide the width {width}; change one of them")
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
        config: `d_model`, `activation_function` and the dropouts.
        ffn_dim: the feed-forward half's inner width.
        phase: of `linear`.
        norm_first: whether each part's input is normalized; else its output, together with the residual.

    Raises:
        ValueError: an unknown activation.
    """

    def __init__(self, config: PretrainedConfig, ffn_dim: int, phase: str, *, norm_first: bool) -> None:
        super().__init__()
        check_activation(config.activation_function)
        self.phase = phase
        self.norm_first = norm_first
        self.dropout = config.dropout
        self.activation_dropout = config.activation_dropout
        self.activation = config.activation_function
        self.fc1 = nn.Linear(config.d_model, ffn_dim)
        self.fc2 = nn.Linear(ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def before(self, norm: nn.LayerNorm, hidden: Tensor) -> Tensor:
        """What a part of the layer reads."""
        return normalize(norm, hidden) if self.norm_first else hidden

    def after(self, norm: nn.LayerNorm, hidden: Tensor) -> Tensor:
        """What a part of the layer, residual included, hands on."""
        return hidden if self.norm_first else normalize(norm, hidden)

    def add(self, residual: Tensor, module: nn.Linear, hidden: Tensor, limit: float | None = None) -> Tensor:
        """`residual + dropout(module(hidden))`, clamped to `limit` where there is one."""
        if not self.training or not self.dropout:
            weight, bias = module.weight, module.bias
            return linear(hidden, weight, bias, residual=residual, limit=limit, phase=self.phase)
        out = residual + F.dropout(linear(hidden, module.weight, module.bias), self.dropout)
        return out if limit is None else out.clamp(-limit, limit)

    def feed_forward(self, hidden: Tensor, limit: float | None = None) -> Tensor:
        """The last part of every layer, clamped to `limit` where there is one."""
        norm, inner = self.final_layer_norm, self.fc1
        wide = linear(
            self.before(norm, hidden), inner.weight, inner.bias, activation=self.activation, phase=self.phase
        )
        wide = F.dropout(wide, self.activation_dropout, self.training)
        return self.after(norm, self.add(hidden, self.fc2, wide, limit))


class EncoderLayer(Layer):
    """Self-attention within each utterance, then feed-forward."""

    def __init__(self, config: PretrainedConfig, index: int, *, norm_first: bool = True) -> None:
        super().__init__(config, config.encoder_ffn_dim, "encode", norm_first=norm_first)
        self.index = index
        self.self_attn = Attention(config.d_model, config.encoder_attention_heads, "encode", "encode")
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, hidden: Tensor, attention: StackAttention) -> Tensor:
        """[tokens, d_model] to the same, in the given attention layout."""
        own, norm = self.self_attn, self.self_attn_layer_norm
        normed = self.before(norm, hidden)
        mixed = attention(self.index, own.query(normed), *own.key_value(normed), own.scale)
        # As in transformers, what overflows a half stays finite.
        limit = torch.finfo(torch.float16).max - 1000 if hidden.dtype == torch.float16 else None
        hidden = self.after(norm, self.add(hidden, own.out_proj, mixed.flatten(1)))
        return self.feed_forward(hidden, limit)


class DecoderLayer(Layer):
    """Causal self-attention, cross-attention where there is an encoder's output, feed-forward."""

    def __init__(self, config: PretrainedConfig, index: int, *, norm_first: bool = True) -> None:
        super().__init__(config, config.decoder_ffn_dim, "decode", norm_first=norm_first)
        self.index = index
        self.self_attn = Attention(config.d_model, config.decoder_attention_heads, "decode", "decode")
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.encoder_attn = Attention(config.d_model, config.decoder_attention_heads, "decode", "encode")
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, hidden: Tensor, attention: DecoderAttention) -> Tensor:
        """[tokens, d_model] to the same, in the given attention layout."""
        own, norm = self.self_attn, self.self_attn_layer_norm
        normed = self.before(norm, hidden)
        mixed = attention.self_attention(self.index, own.query(normed), *own.key_value(normed), own.scale)
        hidden = self.after(norm, self.add(hidden, own.out_proj, mixed.flatten(1)))
        if attention.crosses:
            cross, norm = self.encoder_attn, self.encoder_attn_layer_norm
            query = cross.query(self.before(norm, hidden))
            mixed = attention.cross_attention(self.index, query, cross.scale)
            hidden = self.after(norm, self.add(hidden, cross.out_proj, mixed.flatten(1)))
        return self.feed_forward(hidden)

    def cross_key_value(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention's keys and values of encoder tokens: [tokens, heads, head_dim] each."""
        return self.encoder_attn.key_value(encoded)


def normalize(module: nn.LayerNorm, hidden: Tensor) -> Tensor:
    """Layer normalization with a module's weights."""
    return layer_norm(hidden, module.weight, module.bias, module.eps)


def run_layers(
    layers: nn.ModuleList,
    norm: nn.LayerNorm | None,
    hidden: Tensor,
    attention: Any,
    layerdrop: float,
    states: list[Tensor] | None = None,
    wanted: Tensor | None = None,
    skipped: Callable[[], None] | None = None,
) -> Tensor:
    """A stack of layers and the normalization after it, if any.

    Args:
        layers: encoder or decoder layers.
        norm: of the last hidden states; None where they stay as they are.
        hidden: [tokens, d_model], embedded.
        attention: the layout that the layers attend in.
        layerdrop: chance of skipping a layer (LayerDrop, arXiv 1909.11556); 0 outside training.
        states: gets the hidden states before the first layer and after each that ran; the last ones
            normalized where there is a norm, as transformers gives them.
        wanted: int64, the rows that are read of the result, for layers that take such; all for None. In the
            last layer the others are queries, keys and values, and what follows attention is left out for
            them: two thirds of that layer.
        skipped: called for each layer that is skipped.
    """
    if states is not None:
        states.append(hidden)
    for place, layer in enumerate(layers):
        # No draw without layer drop, so that a seed gives dropout the same draws as in transformers.
        if layerdrop and torch.rand(()).item() < layerdrop:
            if skipped is not None:
                skipped()
            continue
        if wanted is not None and place == len(layers) - 1:
            hidden, wanted = layer(hidden, attention, wanted), None
        else:
            hidden = layer(hidden, attention)
        if states is not None:
            states.append(hidden)
    hidden = rows_of(hidden, wanted)  # no layer, or the last one dropped
    if norm is None:
        return hidden
    hidden = normalize(norm, hidden)
    if states is not None:
        states[-1] = hidden
    return hidden


def rows_of(hidden: Tensor, wanted: Tensor | None) -> Tensor:
    """The `wanted` rows; all of them for None."""
    return hidden if wanted is None else hidden[wanted]


def embedding_scale(config: PretrainedConfig) -> float:
    """What embeddings are multiplied by."""
    return math.sqrt(config.d_model) if config.scale_embedding else 1.0
