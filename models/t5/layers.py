"""T5's layers (arXiv 1910.10683) on packed tokens: no biases, RMS norms before each part, scores not scaled.

Where weights are float16 the second map of the feed-forward part, `wo`, stays in float32, since its outputs
do not fit a half; from the first of them on, what layers hand to one another is float32 too.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.attention.biased import biased_attention, biased_weights
from ...kernels.attention.distance_buckets import Buckets
from ...kernels.linear.gemm import linear
from ...kernels.norm.layer_norm import rms_norm
from ..core.attention import DecoderAttention, StackAttention
from .config import T5Config


class BiasedAttention(StackAttention):
    """Self-attention of all layers of a stack with T5's bias, which they share.

    Args:
        plain: the sequences, and what is recorded and dropped of their weights.
        bias_table: [buckets, heads].
        buckets: how distances find their rows in it.
    """

    def __init__(self, plain: StackAttention, bias_table: Tensor, buckets: Buckets) -> None:
        super().__init__(
            plain.cu_query,
            plain.cu_key,
            causal=plain.causal,
            dropout=plain.dropout,
            head_mask=plain.head_mask,
            record=plain.weights is not None,
        )
        self.bias = bias_table, buckets

    def _weigh(self, query: Tensor, key: Tensor, scale: float, window: int | None) -> list[Tensor]:
        return biased_weights(
            query,
            key,
            self.cu_query,
            self.cu_key,
            *self.bias,
            causal=self.causal,
            scale=scale,
            dropout=self.dropout,
        )

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        return biased_attention(
            query,
            key,
            value,
            self.cu_query,
            self.cu_key,
            *self.bias,
            causal=self.causal,
            scale=scale,
            dropout=self.dropout,
        )


class T5LayerNorm(nn.Module):
    """RMS norm; its output has its weight's type, whatever its input has."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.d_model))
        self.eps = config.layer_norm_epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        """[tokens, d_model] to the same."""
        return rms_norm(hidden, self.weight.to(hidden.dtype), self.eps).to(self.weight.dtype)


class T5Attention(nn.Module):
    """The four projections of an attention, and in the first layer of a stack its table of biases.

    Args:
        config: sizes.
        phase: of `linear`, for what works on queries.
        key_phase: for keys and values.
        biased: with the table.
    """

    def __init__(self, config: T5Config, phase: str, key_phase: str, *, biased: bool = False) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.heads = config.num_heads
        self.phase = phase
        self.key_phase = key_phase
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        if biased:
            self.relative_attention_bias = nn.Embedding(
                config.relative_attention_num_buckets, config.num_heads
            )

    def query(self, hidden: Tensor) -> Tensor:
        """[tokens, d_model] to [tokens, heads, d_kv]."""
        return self._heads(self.q, hidden, self.phase)

    def key_value(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """[tokens, d_model] to keys and values, each [tokens, heads, d_kv]."""
        return self._heads(self.k, hidden, self.key_phase), self._heads(self.v, hidden, self.key_phase)

    def _heads(self, projection: nn.Linear, hidden: Tensor, phase: str) -> Tensor:
        return linear(hidden, projection.weight, phase=phase).view(hidden.shape[0], self.heads, -1)


class T5Part(nn.Module):
    """What the parts of a layer share: the norm before them, and the residual around them."""

    def __init__(self, config: T5Config, phase: str) -> None:
        super().__init__()
        self.layer_norm = T5LayerNorm(config)
        self.dropout = config.dropout_rate
        self.phase = phase

    def add(self, residual: Tensor, module: nn.Linear, hidden: Tensor) -> Tensor:
        """`residual + dropout(module(hidden))`, in the wider type of the two. As in transformers, what
        overflows a half stays finite."""
        weight = module.weight
        hidden = hidden.to(weight.dtype)
        wide = torch.promote_types(residual.dtype, weight.dtype)
        limit = torch.finfo(torch.float16).max - 1000 if wide == torch.float16 else None
        if weight.dtype == wide and not (self.training and self.dropout):
            return linear(hidden, weight, residual=residual.to(wide), limit=limit, phase=self.phase)
        out = linear(hidden, weight, phase=self.phase)
        out = residual + F.dropout(out, self.dropout, self.training)
        return out if limit is None else out.clamp(-limit, limit)


class T5SelfAttentionPart(T5Part):
    """Attention to the sequence itself."""

    def __init__(self, config: T5Config, phase: str, *, biased: bool) -> None:
        super().__init__(config, phase)
        self.SelfAttention = T5Attention(config, phase, phase, biased=biased)

    def forward(self, hidden: Tensor, layer: int, attention: DecoderAttention) -> Tensor:
        """[tokens, d_model] to the same."""
        own, normed = self.SelfAttention, self.layer_norm(hidden)
        mixed = attention.self_attention(layer, own.query(normed), *own.key_value(normed), 1.0)
        return self.add(hidden, own.o, mixed.flatten(1))


class T5CrossAttentionPart(T5Part):
    """Attention to the encoder's output."""

    def __init__(self, config: T5Config, phase: str) -> None:
        super().__init__(config, phase)
        self.EncDecAttention = T5Attention(config, phase, "encode")

    def forward(self, hidden: Tensor, layer: int, attention: DecoderAttention) -> Tensor:
        """[tokens, d_model] to the same."""
        cross = self.EncDecAttention
        mixed = attention.cross_attention(layer, cross.query(self.layer_norm(hidden)), 1.0)
        return self.add(hidden, cross.o, mixed.flatten(1))


class T5FeedForward(nn.Module):
    """The linear maps of a layer's last part; with a gate there are two first ones."""

    wi: nn.Linear
    wi_0: nn.Linear
    wi_1: nn.Linear

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.gated = config.is_gated_act
        self.activation = config.dense_act_fn
        for name in ("wi_0", "wi_1") if self.gated else ("wi",):
            setattr(self, name, nn.Linear(config.d_model, config.d_ff, bias=False))
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def inner(self, hidden: Tensor, phase: str) -> Tensor:
        """[tokens, d_model] to what `wo` reads, [tokens, d_ff]."""
        first = self.wi_0 if self.gated else self.wi
        wide = linear(hidden, first.weight, activation=self.activation, phase=phase)
        return wide * linear(hidden, self.wi_1.weight, phase=phase) if self.gated else wide


class T5FeedForwardPart(T5Part):
    """Each token on its own."""

    def __init__(self, config: T5Config, phase: str) -> None:
        super().__init__(config, phase)
        self.DenseReluDense = T5FeedForward(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """[tokens, d_model] to the same."""
        dense = self.DenseReluDense
        inner = F.dropout(dense.inner(self.layer_norm(hidden), self.phase), self.dropout, self.training)
        return self.add(hidden, dense.wo, inner)


class T5Block(nn.Module):
    """Self-attention, in the decoder cross-attention where there is an encoder's output, feed-forward."""

    def __init__(self, config: T5Config, index: int, *, decoder: bool) -> None:
        super().__init__()
        phase = "decode" if decoder else "encode"
        self.index = index
        parts: list[nn.Module] = [T5SelfAttentionPart(config, phase, biased=index == 0)]
        if decoder:
            parts.append(T5CrossAttentionPart(config, phase))
        self.layer: Any = nn.ModuleList([*parts, T5FeedForwardPart(config, phase)])

    def forward(self, hidden: Tensor, attention: DecoderAttention) -> Tensor:
        """[tokens, d_model] to the same, in the given attention layout."""
        hidden = self.layer[0](hidden, self.index, attention)
        if attention.crosses:
            hidden = self.layer[1](hidden, self.index, attention)
        return self.layer[-1](hidden)

    def cross_key_value(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention's keys and values of encoder tokens: [tokens, heads, d_kv] each."""
        return self.layer[1].EncDecAttention.key_value(encoded)
