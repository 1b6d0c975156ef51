"""BERT layers on packed tokens: bidirectional or causal attention, optional cross-attention."""

import torch
from torch import Tensor, nn

from ...kernels.embedding import add_positions, embedding
from ..core.attention import DecoderAttention
from ..core.config import PretrainedConfig
from ..core.layers import Attention, add_linear, apply_linear, normalize, select
from .config import BertLikeConfig

BERT_NAMES = {"query": "query", "key": "key", "value": "value"}  # parameter names, as `Attention` takes them


class BertEmbeddings(nn.Module):
    """Layer norm of the sum of token, position and token type embeddings.

    Args:
        config: model configuration.
        position_padding: row of the position-embedding table that gets no gradient.
        width: embedding width of all three tables; hidden_size by default.
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
        """Embed packed tokens: [tokens, width].

        Args:
            inputs: token ids, int [tokens], or token embeddings [tokens, width].
            position_ids: rows of the position-embedding table, int [tokens].
            token_types: token type ids, int [tokens]; 0 by default.
        """
        table, positions = self.word_embeddings.weight, self.position_embeddings.weight
        if inputs.dim() == 2:
            hidden = add_positions(inputs.to(positions.dtype), position_ids, positions, 1.0)
        elif torch.is_grad_enabled() and table.requires_grad:
            # The modules give their padding rows no gradient, as in transformers.
            hidden = self.word_embeddings(inputs) + self.position_embeddings(position_ids)
        else:
            hidden = embedding(inputs, position_ids, table, positions, 1.0)
        types = self.token_type_embeddings.weight
        return normalize(self.LayerNorm, hidden + (types[0] if token_types is None else types[token_types]))


def bert_attention(config: PretrainedConfig, phase: str, key_phase: str | None = None) -> Attention:
    """Query, key and value projections of one attention; `BertOutput` holds its output projection."""
    width, heads = config.hidden_size, config.num_attention_heads
    return Attention(width, heads, BERT_NAMES, phase=phase, key_phase=key_phase)


class BertOutput(nn.Module):
    """Linear projection, residual connection and layer norm that end both halves of a BERT layer."""

    def __init__(
        self, config: PretrainedConfig, inner: int, phase: str = "encode", dropout: float | None = None
    ) -> None:
        super().__init__()
        self.phase = phase
        self.dropout = config.hidden_dropout_prob if dropout is None else dropout
        self.dense = nn.Linear(inner, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        """Layer norm of residual [tokens, width] + projection of `inner` [tokens, inner]: [tokens, width]."""
        out = add_linear(self.dense, inner, residual, self.dropout, self.training, phase=self.phase)
        return normalize(self.LayerNorm, out)


class BertAttention(nn.Module):
    """Attention block with BERT's parameter names: projections in `self`, the rest in `output`."""

    def __init__(self, config: BertLikeConfig, phase: str, key_phase: str | None = None) -> None:
        super().__init__()
        self.self = bert_attention(config, phase, key_phase)
        self.output = BertOutput(config, config.hidden_size, phase)


class BertIntermediate(nn.Module):
    """First linear layer of the feed-forward block, with its activation.

    Args:
        config: configuration with BERT's fields `hidden_size`, `intermediate_size` and `hidden_act`.
        phase: phase of the `linear` kernel: "encode" (many rows) or "decode" (few).
    """

    def __init__(self, config: PretrainedConfig, phase: str) -> None:
        super().__init__()
        self.phase = phase
        self.activation = config.hidden_act
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Project hidden states [tokens, width] to [tokens, intermediate_size] and apply the activation."""
        return apply_linear(self.dense, hidden, self.activation, self.phase)


class BertLayer(nn.Module):
    """Post-norm transformer layer: self-attention, optional cross-attention, feed-forward block."""

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
        """Run the layer on hidden states [tokens, width]; returns those of `selected` tokens, or of all."""
        mixed = self.attention.self.attend(hidden, attention, self.index)
        hidden = self.attention.output(select(mixed, selected), select(hidden, selected))
        if attention.crosses:
            mixed = self.crossattention.self.cross_attend(hidden, attention, self.index)
            hidden = self.crossattention.output(mixed, hidden)
        return self.output(self.intermediate(hidden), hidden)

    @property
    def cross(self) -> Attention:
        """Cross-attention's projections."""
        return self.crossattention.self


class BertEncoder(nn.Module):
    """List of BERT layers; checkpoints call it `encoder` in a decoder too.

    Raises:
        ValueError: `add_cross_attention` without `is_decoder`.
    """

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__()
        if config.add_cross_attention and not config.is_decoder:
            raise ValueError(
                "add_cross_attention=True is for decoders; set is_decoder=True too, or leave it out"
            )
        self.layer = nn.ModuleList(BertLayer(config, index) for index in range(config.num_hidden_layers))


class BertPooler(nn.Module):
    """Pooler: linear layer and tanh on each text's first token, the input of a classification head."""

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        """Pool the first tokens' hidden states [texts, width]; the result has the same shape."""
        return apply_linear(self.dense, first, "tanh")
