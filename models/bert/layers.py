"""BERT's layers on packed tokens: bidirectional or causal, and beside an encoder's output."""

import torch
from torch import Tensor, nn

from ...kernels.embedding import add_positions, embedding
from ...kernels.linear.gemm import linear
from ..core.attention import DecoderAttention
from ..core.config import PretrainedConfig
from ..core.layers import Attention, add_linear, apply_linear, normalize, select
from .config import BertLikeConfig

BERT_NAMES = {"query": "query", "key": "key", "value": "value"}  # see `Attention`


class BertEmbeddings(nn.Module):
    """Tokens, their types and positions, added and normalized.

    Args:
        config: sizes.
        position_padding: row of the position table that gets no gradient.
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

    def forward(self, inputs: Tensor, position_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Embed tokens: [tokens, width].

        Args:
            inputs: token ids, int [tokens], or instead of them embeddings [tokens, width].
            position_ids: int [tokens], rows of the position table.
            token_types: int [tokens]; 0 by default.
        """
        table, positions = self.word_embeddings.weight, self.position_embeddings.weight
        if inputs.dim() == 2:
            hidden = add_positions(inputs.to(positions.dtype), position_ids, positions, 1.0)
        elif torch.is_grad_enabled() and table.requires_grad:
            # By modules, whose padding rows get no gradient, as in transformers.
            hidden = self.word_embeddings(inputs) + self.position_embeddings(position_ids)
        else:
            hidden = embedding(inputs, position_ids, table, positions, 1.0)
        types = self.token_type_embeddings.weight
        return normalize(self.LayerNorm, hidden + (types[0] if token_types is None else types[token_types]))


def bert_attention(config: PretrainedConfig, phase: str, key_phase: str | None = None) -> Attention:
    """Queries, keys and values of one attention; the output projection lies in `BertOutput`."""
    width, heads = config.hidden_size, config.num_attention_heads
    return Attention(width, heads, BERT_NAMES, phase=phase, key_phase=key_phase)


class BertOutput(nn.Module):
    """End of both halves of a layer: a linear map, the residual, the normalization of their sum."""

    def __init__(self, config: BertLikeConfig, inner: int, phase: str) -> None:
        super().__init__()
        self.phase = phase
        self.dropout = config.hidden_dropout_prob
        self.dense = nn.Linear(inner, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        """[tokens, inner] and [tokens, width] to [tokens, width]."""
        dropout = self.dropout if self.training else 0.0
        out = add_linear(self.dense, inner, residual, dropout, phase=self.phase)
        return normalize(self.LayerNorm, out)


class BertAttention(nn.Module):
    """One attention by its names in checkpoints: its projections, and its output with the norm."""

    def __init__(self, config: BertLikeConfig, phase: str, key_phase: str | None = None) -> None:
        super().__init__()
        self.self = bert_attention(config, phase, key_phase)
        self.output = BertOutput(config, config.hidden_size, phase)


class BertIntermediate(nn.Module):
    """First linear map of the feed-forward half, with its activation.

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
        self.attention = BertAttention(config, phase)
        if config.add_cross_attention:
            self.crossattention = BertAttention(config, phase, "encode")
        self.intermediate = BertIntermediate(config, phase)
        self.output = BertOutput(config, config.intermediate_size, phase)

    def forward(self, hidden: Tensor, attention: DecoderAttention, selected: Tensor | None = None) -> Tensor:
        """[tokens, width] to the same, of `selected` tokens alone if given, in the given attention layout."""
        mixed = self.attention.self.attend(hidden, attention, self.index)
        hidden = self.attention.output(select(mixed, selected), select(hidden, selected))
        if attention.crosses:
            mixed = self.crossattention.self.cross_attend(hidden, attention, self.index)
            hidden = self.crossattention.output(mixed, hidden)
        return self.output(self.intermediate(hidden), hidden)

    def cross_key_value(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention's keys and values of encoder tokens: [tokens, heads, head_dim] each."""
        return self.crossattention.self.key_values(encoded)


class BertEncoder(nn.Module):
    """Stack of layers, by this name in a decoder too.

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


class BertPooler(nn.Module):
    """Map of each sequence's first token, which a classifier reads."""

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        """First tokens [texts, width] to the same."""
        return apply_linear(self.dense, first, "tanh")


def check_token_types(token_types: Tensor | None, count: int) -> None:
    """Check that token types are below `count`.

    Raises:
        ValueError: with those that there are.
    """
    if token_types is not None and token_types.numel():
        least, most = int(token_types.min()), int(token_types.max())
        if not 0 <= least <= most < count:
            raise ValueError(
                f"token_type_ids go from {least} to {most}, and the model knows types 0 to {count - 1}"
            )
