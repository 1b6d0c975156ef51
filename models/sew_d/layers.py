"""SEW-D's transformer: DeBERTa v2's layers (arXiv 2006.03654), on packed tokens."""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.attention.disentangled import disentangled_attention, disentangled_weights
from ...kernels.attention.flash import attention_weights, flash_attention, weighted_values
from ...kernels.attention.relative_positions import relative_rows
from ...kernels.conv.positional import positional_conv
from ...kernels.linear.activation import activate, check_activation
from ...kernels.linear.gemm import linear
from ...kernels.norm.layer_norm import layer_norm
from ...kernels.runtime.weight_cache import cached
from ..bert.layers import BertIntermediate
from ..core.layers import add_linear, normalize
from .config import SEWDConfig

Weights = list[list[Tensor]]  # of each layer, of each sequence: [heads, queries, keys]


class RelativePositions(nn.Module):
    """Table of relative positions, which all layers share, and its normalization.

    Without `relative_attention` there is no table, yet checkpoints have the normalization.

    Raises:
        ValueError: position buckets that cannot be divided.
    """

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        self.config = config
        self.rel_embeddings: nn.Embedding | None = None
        if config.relative_attention:
            self.rows(torch.device("cpu"))
            self.rel_embeddings = nn.Embedding(2 * config.span, config.hidden_size)
        self.LayerNorm: nn.LayerNorm | None = None
        if config.normalized_positions:
            self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def rows(self, device: torch.device) -> Tensor:
        """Row of the table for each distance; see `relative_rows`."""
        return relative_rows(self.config.position_buckets, self.config.farthest, device)

    def embedded(self) -> Tensor | None:
        """[2 * span, hidden_size]; None without relative attention."""
        if self.rel_embeddings is None:
            return None
        table, norm = self.rel_embeddings.weight, self.LayerNorm
        return table if norm is None else cached(layer_norm, table, norm.weight, norm.bias, eps=norm.eps)


class DisentangledSelfAttention(nn.Module):
    """Projections of tokens and of relative positions, and attention with both."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        # One dropout for the positions, another for the weights; both by the same draws as torch's.
        self.position_dropout = config.activation_dropout
        self.dropout = config.attention_dropout
        self.by_query = "c2p" in config.pos_att_type
        self.by_key = "p2c" in config.pos_att_type
        self.scale = (width // self.heads * (1 + self.by_query + self.by_key)) ** -0.5
        self.query_proj = nn.Linear(width, width)
        self.key_proj = nn.Linear(width, width)
        self.value_proj = nn.Linear(width, width)
        self.pos_key_proj: nn.Linear | None = None
        self.pos_query_proj: nn.Linear | None = None
        if config.relative_attention and not config.share_att_key:
            self.pos_key_proj = nn.Linear(width, width) if self.by_query else None
            self.pos_query_proj = nn.Linear(width, width) if self.by_key else None

    def forward(
        self,
        hidden: Tensor,
        cu_tokens: Tensor,
        relative: RelativePositions,
        weights: list[list[Tensor]] | None,
    ) -> Tensor:
        """[tokens, hidden_size] to the same.

        Args:
            hidden: packed.
            cu_tokens: int32 [n + 1].
            relative: positions.
            weights: gets the attention weights of each sequence, [heads, queries, keys], after dropout.
        """
        projections = (self.query_proj, self.key_proj, self.value_proj)
        query, key, value = (self._heads(projection, hidden) for projection in projections)
        position_query, position_key = self.tables(relative)
        attend: Callable[..., Tensor] = flash_attention
        weigh: Callable[..., list[Tensor]] = attention_weights
        layout: tuple[Any, ...] = (cu_tokens, cu_tokens)
        if position_query is not None or position_key is not None:
            attend, weigh = disentangled_attention, disentangled_weights
            layout = (cu_tokens, position_query, position_key, relative.rows(hidden.device))
        options = {"scale": self.scale, "dropout": self.dropout if self.training else 0.0}
        if weights is not None:
            # As in `StackAttention`: what is recorded is what was used, and without dropout recording does
            # not change the output's bits.
            weights.append(weigh(query, key, *layout, **options))
            if options["dropout"]:
                return weighted_values(weights[-1], value, cu_tokens).flatten(1)
        return attend(query, key, value, *layout, **options).flatten(1)

    def tables(self, relative: RelativePositions) -> tuple[Tensor | None, Tensor | None]:
        """Relative positions as queries and as keys, [2 * span, heads, head_dim]; None for a term that scores
        do not have. They depend on the weights alone, so outside training they are cached."""
        embedded = relative.embedded()
        if embedded is None:
            return None, None
        again = self.training and self.position_dropout > 0
        if again:
            embedded = F.dropout(embedded, self.position_dropout)

        def projected(projection: nn.Linear) -> Tensor:
            given = embedded, projection.weight, projection.bias
            return _heads(*given, heads=self.heads) if again else cached(_heads, *given, heads=self.heads)

        return (
            projected(self.pos_query_proj or self.query_proj) if self.by_key else None,
            projected(self.pos_key_proj or self.key_proj) if self.by_query else None,
        )

    def _heads(self, projection: nn.Linear, hidden: Tensor) -> Tensor:
        return _heads(hidden, projection.weight, projection.bias, heads=self.heads)


def _heads(hidden: Tensor, weight: Tensor, bias: Tensor, *, heads: int) -> Tensor:
    return linear(hidden, weight, bias).view(len(hidden), heads, -1)


class _Output(nn.Module):
    """End of both halves of a layer: linear map, residual, normalization of their sum."""

    def __init__(self, config: SEWDConfig, inner: int) -> None:
        super().__init__()
        self.dropout = config.activation_dropout
        self.dense = nn.Linear(inner, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        """[tokens, inner] and [tokens, hidden_size] to [tokens, hidden_size]."""
        dropout = self.dropout if self.training else 0.0
        return normalize(self.LayerNorm, add_linear(self.dense, inner, residual, dropout))


class _Attention(nn.Module):
    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        self.self = DisentangledSelfAttention(config)
        self.output = _Output(config, config.hidden_size)


class SEWDLayer(nn.Module):
    """Self-attention within each utterance, then feed-forward, each normalized last."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        check_activation(config.hidden_act)
        self.attention = _Attention(config)
        self.intermediate = BertIntermediate(config, "encode")
        self.output = _Output(config, config.intermediate_size)

    def forward(
        self,
        hidden: Tensor,
        cu_tokens: Tensor,
        relative: RelativePositions,
        weights: list[list[Tensor]] | None,
    ) -> Tensor:
        """[tokens, hidden_size] to the same, with the arguments of `DisentangledSelfAttention.forward`."""
        mixed = self.attention.self(hidden, cu_tokens, relative, weights)
        hidden = self.attention.output(mixed, hidden)
        return cast(Tensor, self.output(self.intermediate(hidden), hidden))


class _Convolution(nn.Module):
    """Convolution of the first layer's input, added to its output where the configuration has one."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        width, kernel = config.hidden_size, config.conv_kernel_size
        self.activation = getattr(config, "conv_act", "tanh")
        check_activation(self.activation)
        self.dropout = getattr(config, "hidden_dropout_prob", config.hidden_dropout)
        self.conv = nn.Conv1d(
            width, width, kernel, padding=(kernel - 1) // 2, groups=getattr(config, "conv_groups", 1)
        )
        self.LayerNorm = nn.LayerNorm(width, config.layer_norm_eps)

    def forward(self, hidden: Tensor, output: Tensor, cu_tokens: Tensor) -> Tensor:
        """The first layer's input and output to the second one's input, [tokens, hidden_size] each."""
        weight, bias, groups = self.conv.weight, self.conv.bias, self.conv.groups
        if self.training and self.dropout:
            mixed = positional_conv(hidden, cu_tokens, weight, bias, groups=groups)
            total = output + activate(F.dropout(mixed, self.dropout), self.activation)
        else:
            total = positional_conv(
                hidden, cu_tokens, weight, bias, groups=groups, activation=self.activation, residual=output
            )
        return layer_norm(total, self.LayerNorm.weight, self.LayerNorm.bias, self.LayerNorm.eps)


class SEWDTransformer(RelativePositions):
    """Layers and the relative positions that they share."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__(config)
        self.layer = nn.ModuleList(SEWDLayer(config) for _ in range(config.num_hidden_layers))
        self.conv = _Convolution(config) if getattr(config, "conv_kernel_size", 0) > 0 else None

    def forward(
        self, hidden: Tensor, cu_tokens: Tensor, states: list[Tensor] | None, record: bool
    ) -> tuple[Tensor, Weights | None]:
        """Tokens [tokens, hidden_size] to the same, and attention weights; see `wav2vec2.layers.Encoder`."""
        weights: Weights | None = [] if record else None
        if states is not None:
            states.append(hidden)
        first = hidden
        for index, layer in enumerate(self.layer):
            hidden = layer(hidden, cu_tokens, self, weights)
            if states is not None:
                states.append(hidden)
            if index == 0 and self.conv is not None:
                hidden = self.conv(first, hidden, cu_tokens)
        return hidden, weights
