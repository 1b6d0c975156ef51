"""DistilBERT (arXiv 1910.01108): BERT with half the layers and without token types."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.attention import DecoderAttention
from ..core.classification import labels_of
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.layers import Attention, add_linear, apply_linear, normalize, select
from ..core.model import PretrainedModel
from ..core.outputs import BaseModelOutput
from ..core.parameters import ParametersMixin
from ..core.sequence_classifier import LOGITS, SequenceClassifier
from ..core.stack import HIDDEN_STATES, TransformerStack, embed_tokens
from .config import DistilBertConfig

_EPS = 1e-12
_NAMES = {"query": "q_lin", "key": "k_lin", "value": "v_lin", "output": "out_lin"}  # names for `Attention`


class DistilBertCheckpoint(PretrainedModel):
    """Base class of DistilBERT models: configuration class and tensor names of checkpoints."""

    config_class = DistilBertConfig
    base_prefix = "distilbert."
    # Tables that are computed here, and weights of heads for other tasks.
    ignored_keys = (
        r"embeddings\.position_ids$",
        r"^vocab_(transform|layer_norm|projector)\.",
        r"^qa_outputs\.",
    )
    fresh_keys = (r"^(pre_)?classifier\.",)


class Embeddings(nn.Module):
    """Layer norm of the sum of token and position embeddings."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.dim, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.dim)
        self.LayerNorm = nn.LayerNorm(config.dim, _EPS)

    def forward(self, inputs: Tensor, position_ids: Tensor) -> Tensor:
        """Embed token ids [tokens], or token embeddings [tokens, dim], at their positions: [tokens, dim]."""
        embedded = embed_tokens(inputs, position_ids, self.word_embeddings, self.position_embeddings.weight)
        return normalize(self.LayerNorm, embedded)


class FFN(nn.Module):
    """Two linear layers of the feed-forward block."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.lin1 = nn.Linear(config.dim, config.hidden_dim)
        self.lin2 = nn.Linear(config.hidden_dim, config.dim)


class TransformerBlock(nn.Module):
    """Post-norm transformer layer: self-attention, then feed-forward block."""

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
        """Run the layer on hidden states [tokens, width]; returns those of the `selected` tokens or all."""
        own, ffn = self.attention, self.ffn
        mixed = select(own.attend(hidden, attention, self.index), selected)
        # Unlike in BERT, there is no dropout after the attention.
        hidden = normalize(self.sa_layer_norm, add_linear(own.output, mixed, select(hidden, selected)))
        inner = apply_linear(ffn.lin1, hidden, self.activation)
        hidden = add_linear(ffn.lin2, inner, hidden, self.dropout, self.training)
        return normalize(self.output_layer_norm, hidden)


class Transformer(nn.Module):
    """List of DistilBERT's transformer layers."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(TransformerBlock(config, index) for index in range(config.n_layers))


class DistilBertModel(TransformerStack, ParametersMixin, DistilBertCheckpoint):
    """DistilBERT without a head: a bidirectional text encoder."""

    layers_name = "transformer.layer"
    embedding_name = "embeddings.word_embeddings"
    causal = False
    has_cross_attention = False
    dropout_fields = ("dropout", "attention_dropout")

    forward = declare_forward(
        HIDDEN_STATES, f"input_ids attention_mask inputs_embeds position_ids {OUTPUT_FLAGS}"
    )

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.transformer = Transformer(config)
        self.initialize()

    def initialize(self) -> None:
        """Initialize weights randomly, and the position-embedding table with sinusoids if configured."""
        super().initialize()
        if self.config.sinusoidal_pos_embds:
            table = self.embeddings.position_embeddings.weight
            with torch.no_grad():
                table.copy_(sines_and_cosines(*table.shape))

    def forward_named(self, **inputs: Any) -> BaseModelOutput:
        """Run `forward` with keyword arguments; returns DistilBERT's output class."""
        return BaseModelOutput.from_base(self.run_padded(**inputs))

    def embed(self, inputs: Tensor, position_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Embed tokens, before dropout: [tokens, dim]; `token_types` are ignored."""
        return self.embeddings(inputs, position_ids)


class DistilBertForSequenceClassification(SequenceClassifier, DistilBertCheckpoint):
    """DistilBERT sequence classifier: two linear layers with ReLU between on each text's first token."""

    base_name = "distilbert"
    has_token_types = False

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
        inner = apply_linear(self.pre_classifier, pooled, "relu")
        inner = F.dropout(inner, self.config.seq_classif_dropout, self.training)
        return apply_linear(self.classifier, inner)


def sines_and_cosines(count: int, width: int) -> Tensor:
    """Sinusoidal position table of "Attention is all you need" (arXiv 1706.03762): float32 [count, width].

    Even columns are sines and odd ones cosines, of wavelengths 2 pi to 10000 * 2 pi.
    """
    exponents = 2 * (torch.arange(width, dtype=torch.float64) // 2) / width
    angles = torch.arange(count, dtype=torch.float64)[:, None] / 10000.0**exponents
    table = angles.sin()
    table[:, 1::2] = angles[:, 1::2].cos()
    return table.float()
