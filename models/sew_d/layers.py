"""SEW-D's transformer: DeBERTa v2's layers (arXiv 2006.03654), on packed batches."""

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
from ..bert.layers import BertIntermediate, BertOutput
from ..core.layers import Attention
from .config import SEWDConfig

_NAMES = {"query": "query_proj", "key": "key_proj", "value": "value_proj"}  # the projections' names
Weights = list[list[Tensor]]  # attention weights by layer and sequence: [heads, queries, keys]


class RelativePositions(nn.Module):
    """Table of relative-position embeddings, shared by all layers, and its layer normalization.

    Without `relative_attention` there is no table; the normalization stays, as checkpoints contain it.

    Raises:
        ValueError: position_buckets or the farthest distance does not suit `relative_rows`.
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
        """Table row of each relative distance, int32, from `relative_rows`."""
        try:
            return relative_rows(self.config.position_buckets, self.config.farthest, device)
        except ValueError as error:
            fields = "position_buckets, max_position_embeddings or max_relative_positions"
            raise ValueError(f"{fields} cannot be: {error}") from None

    def embedded(self) -> Tensor | None:
        """Normalized relative-position embeddings [2 * span, hidden_size]; None without a table."""
        if self.rel_embeddings is None:
            return None
        table, norm = self.rel_embeddings.weight, self.LayerNorm
        return table if norm is None else cached(layer_norm, table, norm.weight, norm.bias, eps=norm.eps)


class DisentangledSelfAttention(Attention):
    """Disentangled self-attention, which projects token contents and relative positions separately."""

    def __init__(self, config: SEWDConfig) -> None:
        width, heads = config.hidden_size, config.num_attention_heads
        by_query, by_key = "c2p" in config.pos_att_type, "p2c" in config.pos_att_type
        scale = (width // heads * (1 + by_query + by_key)) ** -0.5
        super().__init__(width, heads, _NAMES, scale=scale)
        self.by_query, self.by_key = by_query, by_key
        # Dropout rates of position embeddings and of attention weights; both draw as torch's dropout does.
        self.position_dropout = config.activation_dropout
        self.dropout = config.attention_dropout
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
        """Attend within each sequence: tokens [tokens, hidden_size] to the same shape.

        Args:
            hidden: packed tokens.
            cu_tokens: int32 [n + 1], their cu_seqlens.
            relative: module with the shared relative-position embeddings.
            weights: list that receives each sequence's attention weights, [heads, queries, keys], after
                dropout; None records none.
        """
        query, key, value = self.queries_key_values(hidden)
        position_query, position_key = self.tables(relative)
        attend: Callable[..., Tensor] = flash_attention
        weigh: Callable[..., list[Tensor]] = attention_weights
        layout: tuple[Any, ...] = (cu_tokens, cu_tokens)
        if position_query is not None or position_key is not None:
            attend, weigh = disentangled_attention, disentangled_weights
            layout = (cu_tokens, position_query, position_key, relative.rows(hidden.device))
        options = {"scale": self.scale, "dropout": self.dropout if self.training else 0.0}
        if weights is not None:
            # As in `StackAttention`: the recorded weights are those applied, and without dropout recording
            # does not change the output's bits.
            weights.append(weigh(query, key, *layout, **options))
            if options["dropout"]:
                return weighted_values(weights[-1], value, cu_tokens).flatten(1)
        return attend(query, key, value, *layout, **options).flatten(1)

    def tables(self, relative: RelativePositions) -> tuple[Tensor | None, Tensor | None]:
        """Project relative-position embeddings to queries and keys, [2 * span, heads, head_dim] each.

        None for a position term that is not configured. Cached where no dropout applies, as they then depend
        on weights only.
        """
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
            projected(self.pos_query_proj or self.projection("query")) if self.by_key else None,
            projected(self.pos_key_proj or self.projection("key")) if self.by_query else None,
        )


def _heads(hidden: Tensor, weight: Tensor, bias: Tensor, *, heads: int) -> Tensor:
    return linear(hidden, weight, bias).view(len(hidden), heads, -1)


class _Attention(nn.Module):
    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        self.self = DisentangledSelfAttention(config)
        self.output = BertOutput(config, config.hidden_size, dropout=config.activation_dropout)


class SEWDLayer(nn.Module):
    """Post-norm transformer layer: disentangled self-attention within each utterance, then feed-forward."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        check_activation(config.hidden_act)
        self.attention = _Attention(config)
        self.intermediate = BertIntermediate(config, "encode")
        self.output = BertOutput(config, config.intermediate_size, dropout=config.activation_dropout)

    def forward(
        self,
        hidden: Tensor,
        cu_tokens: Tensor,
        relative: RelativePositions,
        weights: list[list[Tensor]] | None,
    ) -> Tensor:
        """Transform tokens [tokens, hidden_size]; arguments as in `DisentangledSelfAttention.forward`."""
        mixed = self.attention.self(hidden, cu_tokens, relative, weights)
        hidden = self.attention.output(mixed, hidden)
        return cast(Tensor, self.output(self.intermediate(hidden), hidden))


class _Convolution(nn.Module):
    """Optional convolution of the first layer's input, added to that layer's output and normalized."""

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
        """Combine the first layer's input and output, [tokens, hidden_size] each, to the next one's input."""
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
    """Transformer layers of SEW-D, with shared relative-position embeddings and an optional convolution."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__(config)
        self.layer = nn.ModuleList(SEWDLayer(config) for _ in range(config.num_hidden_layers))
        self.conv = _Convolution(config) if getattr(config, "conv_kernel_size", 0) > 0 else None

    def forward(
        self, hidden: Tensor, cu_tokens: Tensor, states: list[Tensor] | None, record: bool
    ) -> tuple[Tensor, Weights | None]:
        """Transform tokens [tokens, hidden_size]; also return attention weights, as wav2vec2's `Encoder`."""
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
