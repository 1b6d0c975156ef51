"""BERT's layers on packed tokens: bidirectional or causal, and beside an encoder's output."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.embedding import add_positions, embedding
from ...kernels.linear.gemm import linear
from ..core.attention import DecoderAttention
from ..core.config import PretrainedConfig
from ..core.layers import normalize, rows_of
from .config import BertLikeConfig


class BertEmbeddings(nn.Module):
    """Tokens, their types and positions, added and normalized.

    Args:
        config: sizes.
        position_padding: row of the position table that learns nothing.
        width: of all tables; hidden_size by default.
    """

    def __init__(
        self, config: PretrainedConfig, position_padding: int | None = None, width: int | None = None
    ) -> None:
        super().__init__()
        width = config.hidden_size if width is None else width
        self.word_embeddings = nn.Embedding(config.vocab_size, width, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width, position_padding)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, config.layer_norm_eps)

    def forward(self, given: Tensor, rows: Tensor, token_types: Tensor | None = None) -> Tensor:
        """[tokens, width] of what is given.

        Args:
            given: int [tokens], or instead of them their vectors [tokens, width].
            rows: int [tokens], of the position table.
            token_types: int [tokens]; 0 by default.
        """
        table, positions = self.word_embeddings.weight, self.position_embeddings.weight
        if given.dim() == 2:
            hidden = add_positions(given.to(positions.dtype), rows, positions, 1.0)
        elif torch.is_grad_enabled() and table.requires_grad:
            # By modules, whose padding rows learn nothing from the tokens read, as in transformers.
            hidden = self.word_embeddings(given) + self.position_embeddings(rows)
        else:
            hidden = embedding(given, rows, table, positions, 1.0)
        types = self.token_type_embeddings.weight
        return normalize(self.LayerNorm, hidden + (types[0] if token_types is None else types[token_types]))


class BertProjections(nn.Module):
    """Queries, keys and values of one attention.

    Args:
        config: sizes.
        phase: of `linear`, for queries.
        key_phase: for keys and values: cross-attention makes them of a whole recording.
    """

    def __init__(self, config: PretrainedConfig, phase: str, key_phase: str) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.phase = phase
        self.key_phase = key_phase
        self.scale = (width // self.heads) ** -0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def queries(self, hidden: Tensor) -> Tensor:
        """[tokens, width] to [tokens, heads, head_dim]."""
        return self._heads(self.query, hidden, self.phase)

    def key_values(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """[tokens, width] to keys and values, each [tokens, heads, head_dim]."""
        keys = self._heads(self.key, hidden, self.key_phase)
        return keys, self._heads(self.value, hidden, self.key_phase)

    def _heads(self, projection: nn.Linear, hidden: Tensor, phase: str) -> Tensor:
        projected = linear(hidden, projection.weight, projection.bias, phase=phase)
        return projected.view(hidden.shape[0], self.heads, -1)


class BertOutput(nn.Module):
    """What ends both halves of a layer: a linear map, the residual, the normalization of their sum."""

    def __init__(self, config: BertLikeConfig, inner: int, phase: str) -> None:
        super().__init__()
        self.phase = phase
        self.dropout = config.hidden_dropout_prob
        self.dense = nn.Linear(inner, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        """[tokens, inner] and [tokens, width] to [tokens, width]."""
        dropout = self.dropout if self.training else 0.0
        return add_normalized(self.dense, self.LayerNorm, inner, residual, dropout, self.phase)


class BertAttention(nn.Module):
    """One attention with its projections and what follows it; who attends to what is the caller's."""

    def __init__(self, config: BertLikeConfig, phase: str, key_phase: str) -> None:
        super().__init__()
        self.self = BertProjections(config, phase, key_phase)
        self.output = BertOutput(config, config.hidden_size, phase)


class BertIntermediate(nn.Module):
    """The first linear map of a layer's second half, with its activation.

    Args:
        config: `hidden_size`, `intermediate_size` and `hidden_act`, by BERT's names.
        phase: of `linear`.
    """

    def __init__(self, config: PretrainedConfig, phase: str) -> None:
        super().__init__()
        self.phase = phase
        self.activation = config.hidden_act
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """[tokens, width] to [tokens, inner]."""
        weight, bias = self.dense.weight, self.dense.bias
        return linear(hidden, weight, bias, activation=self.activation, phase=self.phase)


class BertLayer(nn.Module):
    """Self-attention, cross-attention where there is an encoder, feed-forward, each normalized after."""

    def __init__(self, config: BertLikeConfig, index: int) -> None:
        super().__init__()
        phase = "decode" if config.is_decoder else "encode"
        self.index = index
        self.attention = BertAttention(config, phase, phase)
        if config.add_cross_attention:
            self.crossattention = BertAttention(config, phase, "encode")
        self.intermediate = BertIntermediate(config, phase)
        self.output = BertOutput(config, config.intermediate_size, phase)

    def forward(self, hidden: Tensor, attention: DecoderAttention, wanted: Tensor | None = None) -> Tensor:
        """[tokens, width] to the same, or its `wanted` rows, in the given attention layout."""
        own = self.attention.self
        query, (key, value) = own.queries(hidden), own.key_values(hidden)
        mixed = attention.self_attention(self.index, query, key, value, own.scale)
        mixed, hidden = rows_of(mixed, wanted), rows_of(hidden, wanted)
        hidden = self.attention.output(mixed.flatten(1), hidden)
        if attention.crosses:
            cross = self.crossattention.self
            mixed = attention.cross_attention(self.index, cross.queries(hidden), cross.scale)
            hidden = self.crossattention.output(mixed.flatten(1), hidden)
        return self.output(self.intermediate(hidden), hidden)

    def cross_key_value(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention's keys and values of encoder tokens: [tokens, heads, head_dim] each."""
        return self.crossattention.self.key_values(encoded)


class BertEncoder(nn.Module):
    """The stack of layers, which in a decoder has this name too.

    Raises:
        ValueError: cross-attention without `is_decoder`.
    """

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__()
        if config.add_cross_attention and not config.is_decoder:
            raise ValueError(
                "add_cross_attention=True is for decoders; set is_decoder=True too, or leave it out"
            )
        self.layer = nn.ModuleList(BertLayer(config, index) for index in range(config.num_hidden_layers))


def add_normalized(
    dense: nn.Linear,
    norm: nn.LayerNorm,
    inner: Tensor,
    residual: Tensor,
    dropout: float = 0.0,
    phase: str = "encode",
) -> Tensor:
    """`norm(residual + dropout(dense(inner)))`: [tokens, inner] and [tokens, width] to [tokens, width]."""
    if dropout:
        out = residual + F.dropout(linear(inner, dense.weight, dense.bias, phase=phase), dropout)
    else:
        out = linear(inner, dense.weight, dense.bias, residual=residual, phase=phase)
    return normalize(norm, out)


class BertPooler(nn.Module):
    """What a classifier reads: a map of each sequence's first token."""

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        """First tokens [rows, width] to [rows, width]."""
        return linear(first, self.dense.weight, self.dense.bias, activation="tanh")


def check_token_types(token_types: Tensor | None, count: int) -> None:
    """Refuse token types that a model does not have.

    Raises:
        ValueError: with those that there are.
    """
    if token_types is not None and token_types.numel():
        least, most = int(token_types.min()), int(token_types.max())
        if not 0 <= least <= most < count:
            raise ValueError(
                f"token_type_ids go from {least} to {most}, and the model knows types 0 to {count - 1}"
            )
