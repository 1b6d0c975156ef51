"""T5 layers (arXiv 1910.10683) on packed tokens: RMS pre-norm, linear layers without bias, unscaled scores.

With float16 weights, `wo`, the last linear layer of the feed-forward block, stays in float32, since its
outputs overflow float16; from the first feed-forward block on, hidden states are float32 too.
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
from ..core.layers import Attention, add_linear
from .config import T5Config


class BiasedAttention(StackAttention):
    """Self-attention layout with T5's relative-position bias, which all layers of a stack share.

    Args:
        cu_query, cu_key: cu_seqlens of queries and keys, as in `StackAttention`; so are the options.
        bias_table: biases of the distance buckets, [buckets, heads].
        buckets: mapping from distances to rows of the table.
    """

    def __init__(
        self, cu_query: Tensor, cu_key: Tensor, bias_table: Tensor, buckets: Buckets, **options: Any
    ) -> None:
        super().__init__(cu_query, cu_key, **options)
        self.bias = bias_table, buckets

    def weigh(self, query: Tensor, key: Tensor, **options: Any) -> list[Tensor]:
        return biased_weights(query, key, self.cu_query, self.cu_key, *self.bias, **options)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        return biased_attention(query, key, value, self.cu_query, self.cu_key, *self.bias, **options)


class T5LayerNorm(nn.Module):
    """RMS norm over d_model whose output has the weight's dtype, whatever the input's is."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.d_model))
        self.eps = config.layer_norm_epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalize hidden states [tokens, d_model]; the result has the same shape."""
        return rms_norm(hidden, self.weight.to(hidden.dtype), self.eps).to(self.weight.dtype)


class T5Attention(Attention):
    """Projections of one attention, and in the first layer of a stack the relative-position bias table.

    Args:
        config: model configuration.
        phase, key_phase: phases of the `linear` kernel, as in `Attention`.
        biased: True to have the bias table.
    """

    def __init__(
        self, config: T5Config, phase: str, key_phase: str | None = None, *, biased: bool = False
    ) -> None:
        super().__init__(
            config.d_model,
            config.num_heads,
            {"query": "q", "key": "k", "value": "v", "output": "o"},
            phase=phase,
            key_phase=key_phase,
            head_dim=config.d_kv,
            scale=1.0,
            bias=False,
            output_bias=False,
        )
        if biased:
            self.relative_attention_bias = nn.Embedding(
                config.relative_attention_num_buckets, config.num_heads
            )


class T5Part(nn.Module):
    """Base class of a layer's parts: RMS norm before the part, residual connection around it."""

    def __init__(self, config: T5Config, phase: str) -> None:
        super().__init__()
        self.layer_norm = T5LayerNorm(config)
        self.dropout = config.dropout_rate
        self.phase = phase

    def add(self, residual: Tensor, module: nn.Linear, hidden: Tensor) -> Tensor:
        """Residual plus a linear layer's output: `residual + dropout(module(hidden))`.

        Its dtype is the wider of the two; as in transformers, float16 results are clamped to stay finite.
        """
        weight = module.weight
        hidden = hidden.to(weight.dtype)
        wide = torch.promote_types(residual.dtype, weight.dtype)
        limit = torch.finfo(torch.float16).max - 1000 if wide == torch.float16 else None
        if weight.dtype == wide:
            options: dict[str, Any] = {"phase": self.phase, "limit": limit}
            return add_linear(module, hidden, residual.to(wide), self.dropout, self.training, **options)
        out = residual + F.dropout(linear(hidden, weight, phase=self.phase), self.dropout, self.training)
        return out if limit is None else out.clamp(-limit, limit)


class T5SelfAttentionPart(T5Part):
    """Self-attention part of a layer: norm, self-attention, residual."""

    def __init__(self, config: T5Config, phase: str, *, biased: bool) -> None:
        super().__init__(config, phase)
        self.SelfAttention = T5Attention(config, phase, biased=biased)

    def forward(self, hidden: Tensor, layer: int, attention: DecoderAttention) -> Tensor:
        """Apply the part to hidden states [tokens, d_model]; `layer` is the index of its layer."""
        own = self.SelfAttention
        return self.add(hidden, own.output, own.attend(self.layer_norm(hidden), attention, layer))


class T5CrossAttentionPart(T5Part):
    """Cross-attention part of a layer: norm, attention to the encoder's output, residual."""

    def __init__(self, config: T5Config, phase: str) -> None:
        super().__init__(config, phase)
        self.EncDecAttention = T5Attention(config, phase, "encode")

    def forward(self, hidden: Tensor, layer: int, attention: DecoderAttention) -> Tensor:
        """Apply the part to hidden states [tokens, d_model]; `layer` is the index of its layer."""
        cross = self.EncDecAttention
        return self.add(hidden, cross.output, cross.cross_attend(self.layer_norm(hidden), attention, layer))


class T5FeedForward(nn.Module):
    """Linear layers of the feed-forward block: `wi` and `wo`, or `wi_0`, `wi_1` and `wo` if gated."""

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
        """Compute the input of `wo`, [tokens, d_ff], from hidden states [tokens, d_model]."""
        first = self.wi_0 if self.gated else self.wi
        wide = linear(hidden, first.weight, activation=self.activation, phase=phase)
        return wide * linear(hidden, self.wi_1.weight, phase=phase) if self.gated else wide


class T5FeedForwardPart(T5Part):
    """Feed-forward part of a layer: norm, feed-forward block, residual."""

    def __init__(self, config: T5Config, phase: str) -> None:
        super().__init__(config, phase)
        self.DenseReluDense = T5FeedForward(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """Apply the part to hidden states [tokens, d_model]; the result has the same shape."""
        dense = self.DenseReluDense
        inner = F.dropout(dense.inner(self.layer_norm(hidden), self.phase), self.dropout, self.training)
        return self.add(hidden, dense.wo, inner)


class T5Block(nn.Module):
    """Pre-norm transformer layer: self-attention, in the decoder cross-attention, feed-forward block."""

    def __init__(self, config: T5Config, index: int, *, decoder: bool) -> None:
        super().__init__()
        phase = "decode" if decoder else "encode"
        self.index = index
        parts: list[nn.Module] = [T5SelfAttentionPart(config, phase, biased=index == 0)]
        if decoder:
            parts.append(T5CrossAttentionPart(config, phase))
        self.layer: Any = nn.ModuleList([*parts, T5FeedForwardPart(config, phase)])

    def forward(self, hidden: Tensor, attention: DecoderAttention) -> Tensor:
        """Run the layer on hidden states [tokens, d_model]; without encoder output, no cross-attention."""
        hidden = self.layer[0](hidden, self.index, attention)
        if attention.crosses:
            hidden = self.layer[1](hidden, self.index, attention)
        return self.layer[-1](hidden)

    @property
    def cross(self) -> Attention:
        """Cross-attention's projections."""
        return self.layer[1].EncDecAttention
