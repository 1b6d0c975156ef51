"""DistilBERT (arXiv 1910.01108): half of BERT's layers, without token types."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ..core.attention import DecoderAttention
from ..core.classification import labels_of
from ..core.config import PretrainedConfig
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.layers import Attention, add_linear, apply_linear, normalize, select
from ..core.model import PretrainedModel
from ..core.outputs import BaseModelOutput
from ..core.parameters import ParametersMixin
from ..core.sequence_classifier import LOGITS, SequenceClassifier
from ..core.stack import HIDDEN_STATES, PositionIndexer, StackSizes, TransformerStack, embed_tokens
from .config import DistilBertConfig

_EPS = 1e-12
_NAMES = {"query": "q_lin", "key": "k_lin", "value": "v_lin", "output": "out_lin"}  # see `Attention`


class DistilBertCheckpoint(PretrainedModel):
    """Names of DistilBERT's checkpoints."""

    config_class: ClassVar[type[PretrainedConfig]] = DistilBertConfig
    base_prefix: ClassVar[str | tuple[str, ...]] = "distilbert."
    # Tables that are computed here, and the heads of other tasks.
    ignored_keys: ClassVar[tuple[str, ...]] = (
        r"embeddings\.position_ids$",
        r"^vocab_(transform|layer_norm|projector)\.",
        r"^qa_outputs\.",
    )
    fresh_keys: ClassVar[tuple[str, ...]] = (r"^(pre_)?classifier\.",)


class Embeddings(nn.Module):
    """Tokens and positions, added and normalized."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.dim, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.dim)
        self.LayerNorm = nn.LayerNorm(config.dim, _EPS)

    def forward(self, inputs: Tensor, position_ids: Tensor) -> Tensor:
        """Embed token ids [tokens], or embeddings, at their positions: [tokens, dim]."""
        embedded = embed_tokens(inputs, position_ids, self.word_embeddings, self.position_embeddings.weight)
        return normalize(self.LayerNorm, embedded)


class FFN(nn.Module):
    """Two maps of a layer's second half."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.lin1 = nn.Linear(config.dim, config.hidden_dim)
        self.lin2 = nn.Linear(config.hidden_dim, config.dim)


class TransformerBlock(nn.Module):
    """Self-attention, then feed-forward, each normalized after."""

    def __init__(self, config: DistilBertConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.activation = config.activation
        self.dropout = config.dropout
        self.attention = Attention(config.dim, config.n_heads, _NAMES)
        self.sa_layer_norm = nn.LayerNorm(config.dim, _EPS)
        self.ffn = FFN(config)
        self.output_layer_norm = nn.LayerNorm(config.dim, _EPS)

    def forward(self, hidden: Tensor, attention: DecoderAttention, selected: Tensor | None = None) -> Tensor:
        """[tokens, width] to the same, of `selected` tokens alone if given, in the given attention layout."""
        own, ffn = self.attention, self.ffn
        mixed = select(own.attend(hidden, attention, self.index), selected)
        # Unlike BERT, without dropout behind the attention.
        hidden = normalize(self.sa_layer_norm, add_linear(own.output, mixed, select(hidden, selected)))
        inner = linear(hidden, ffn.lin1.weight, ffn.lin1.bias, activation=self.activation)
        dropout = self.dropout if self.training else 0.0
        return normalize(self.output_layer_norm, add_linear(ffn.lin2, inner, hidden, dropout))


class Transformer(nn.Module):
    """Stack of layers."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(TransformerBlock(config, index) for index in range(config.n_layers))


class DistilBertModel(TransformerStack, ParametersMixin, DistilBertCheckpoint):
    """DistilBERT without a head; every token sees all of its text.

    Args:
        config: sizes and constants; weights are fresh.
    """

    layers_name = "transformer.layer"
    embedding_name = "embeddings.word_embeddings"
    causal = False
    has_cross_attention = False

    forward = declare_forward(
        HIDDEN_STATES, f"input_ids attention_mask inputs_embeds position_ids {OUTPUT_FLAGS}"
    )

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.transformer = Transformer(config)
        self.initialize()

    def initialize(self) -> None:
        """Draw fresh weights; the position table may be sines and cosines."""
        super().initialize()
        if self.config.sinusoidal_pos_embds:
            table = self.embeddings.position_embeddings.weight
            with torch.no_grad():
                table.copy_(sines_and_cosines(*table.shape))

    def forward_named(self, **inputs: Any) -> BaseModelOutput:
        """`forward` with its arguments by name, in DistilBERT's output class."""
        return BaseModelOutput.from_base(self.run_padded(**inputs))

    @property
    def sizes(self) -> StackSizes:
        """Sizes of the stack."""
        config = self.config
        return StackSizes(
            config.n_layers, config.n_heads, config.dim, config.dropout, config.attention_dropout
        )

    @property
    def positions(self) -> PositionIndexer:
        """Rows of the position table that tokens read."""
        return PositionIndexer(0, self.config.max_position_embeddings)

    def embed(self, inputs: Tensor, position_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Embed tokens, before dropout: [tokens, dim]; there are no token types."""
        return self.embeddings(inputs, position_ids)


class DistilBertForSequenceClassification(SequenceClassifier, DistilBertCheckpoint):
    """DistilBERT with two maps from its first token to labels, and a ReLU between them.

    Args:
        config: sizes and constants, with `num_labels`; weights are fresh.

    Raises:
        ValueError: no labels.
    """

    base_name: ClassVar[str] = "distilbert"
    has_token_types: ClassVar[bool] = False

    forward = declare_forward(
        LOGITS, f"input_ids attention_mask inputs_embeds labels position_ids {OUTPUT_FLAGS}"
    )

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        self.distilbert = DistilBertModel(config)
        self.pre_classifier = nn.Linear(config.dim, config.dim)
        self.classifier = nn.Linear(config.dim, labels_of(config))
        self.initialize()
        self.distilbert.initialize()

    def classify(self, pooled: Tensor) -> Tensor:
        """First tokens [texts, dim] to logits [texts, labels]."""
        inner = apply_linear(self.pre_classifier, pooled, "relu")
        inner = F.dropout(inner, self.config.seq_classif_dropout, self.training)
        return apply_linear(self.classifier, inner)


def sines_and_cosines(count: int, width: int) -> Tensor:
    """Position table of "Attention is all you need" (arXiv 1706.03762): float32 [count, width].

    Sines in even columns and cosines in odd ones, of wavelengths 2 pi to 10000 * 2 pi.
    """
    exponents = 2 * (torch.arange(width, dtype=torch.float64) // 2) / width
    angles = torch.arange(count, dtype=torch.float64)[:, None] / 10000.0**exponents
    table = angles.sin()
    table[:, 1::2] = angles[:, 1::2].cos()
    return table.float()
