"""ALBERT (arXiv 1909.11942): BERT with narrower embeddings, and weights shared between layers."""

from dataclasses import replace
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from ..bert.layers import BERT_NAMES, BertEmbeddings
from ..bert.model import BERT_INPUTS, BertLikeStack
from ..core.attention import DecoderAttention
from ..core.classification import labels_of
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.layers import Attention, add_linear, apply_linear, normalize, select
from ..core.model import PretrainedModel
from ..core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from ..core.parameters import ParametersMixin
from ..core.sequence_classifier import SequenceClassifier
from ..core.stack import HIDDEN_STATES, StackSizes
from .config import AlbertConfig


class AlbertCheckpoint(PretrainedModel):
    """Base class of ALBERT models: configuration class and tensor names of checkpoints."""

    config_class = AlbertConfig
    base_prefix = "albert."
    # Tables that are computed here, and weights of heads for other tasks.
    ignored_keys = (
        r"embeddings\.(position_ids|token_type_ids)$",
        r"^(predictions|sop_classifier)\.",
        r"^(\w+\.)?pooler\.",
    )
    fresh_keys = (r"^(\w+\.)?pooler\.", r"^classifier\.")


class AlbertAttention(Attention):
    """Projections of self-attention, and the layer norm after its residual connection."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__(config.hidden_size, config.num_attention_heads, BERT_NAMES | {"output": "dense"})
        self.dropout = config.hidden_dropout_prob
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)


class AlbertLayer(nn.Module):
    """Post-norm transformer layer: self-attention, then feed-forward block."""

    # Attention layouts cache keys and values by layer index; an encoder has no cache, so 0 serves all.
    index = 0

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.activation = config.hidden_act
        self.full_layer_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.attention = AlbertAttention(config)
        self.ffn = nn.Linear(config.hidden_size, config.intermediate_size)
        self.ffn_output = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor, attention: DecoderAttention, selected: Tensor | None = None) -> Tensor:
        """Run the layer on hidden states [tokens, width]; returns those of `selected` tokens, or of all."""
        own = self.attention
        mixed = select(own.attend(hidden, attention, self.index), selected)
        hidden = add_linear(own.output, mixed, select(hidden, selected), own.dropout, self.training)
        hidden = normalize(own.LayerNorm, hidden)
        inner = apply_linear(self.ffn, hidden, self.activation)
        return normalize(self.full_layer_layer_norm, add_linear(self.ffn_output, inner, hidden))


class AlbertLayerGroup(nn.Module):
    """Group of `inner_group_num` consecutive layers, which may run several times with the same weights."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.albert_layers = nn.ModuleList(AlbertLayer(config) for _ in range(config.inner_group_num))


class AlbertTransformer(nn.Module):
    """Projection from embedding_size to hidden_size, and the layer groups."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.embedding_hidden_mapping_in = nn.Linear(config.embedding_size, config.hidden_size)
        self.albert_layer_groups = nn.ModuleList(
            AlbertLayerGroup(config) for _ in range(config.num_hidden_groups)
        )


class AlbertModel(BertLikeStack, ParametersMixin, AlbertCheckpoint):
    """ALBERT without a head: a bidirectional text encoder with a pooler.

    Args:
        config: model configuration; weights are randomly initialized.
        add_pooling_layer: add the pooler of each text's first token.
    """

    causal = False
    has_cross_attention = False

    forward = declare_forward(HIDDEN_STATES, f"{BERT_INPUTS} {OUTPUT_FLAGS}")

    def __init__(self, config: AlbertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = BertEmbeddings(config, width=config.embedding_size)
        self.encoder = AlbertTransformer(config)
        pooler = nn.Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None
        self.pooler: nn.Linear | None = pooler
        self.initialize()

    def forward_named(self, **inputs: Any) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """Run `forward` with keyword arguments; the output has no `cross_attentions`, as in transformers."""
        return replace(super().forward_named(**inputs), cross_attentions=None)

    @property
    def sizes(self) -> StackSizes:
        """Number of layer applications, heads, embedding width and dropout of the stack."""
        config = self.config
        return StackSizes(
            config.num_hidden_layers * config.inner_group_num,
            config.num_attention_heads,
            config.embedding_size,
            attention_dropout=config.attention_probs_dropout_prob,
        )

    @property
    def layer_stack(self) -> nn.ModuleList:
        """Layers in the order in which they run; a layer of shared weights occurs several times."""
        count, groups = self.config.num_hidden_layers, self.encoder.albert_layer_groups
        # transformers' arithmetic, which matters if the number of groups does not divide that of layers.
        chosen = [groups[int(index / (count / len(groups)))] for index in range(count)]
        return nn.ModuleList(
            layer for group in chosen for layer in cast(AlbertLayerGroup, group).albert_layers
        )

    def embed(self, inputs: Tensor, position_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Embed tokens, apply dropout and project to hidden_size: [tokens, hidden_size]."""
        narrow = self.embeddings(inputs, position_ids, token_types)
        narrow = F.dropout(narrow, self.config.hidden_dropout_prob, self.training)
        return apply_linear(self.encoder.embedding_hidden_mapping_in, narrow)

    def pool(self, first: Tensor) -> Tensor:
        assert self.pooler is not None
        return apply_linear(self.pooler, first, "tanh")


class AlbertForSequenceClassification(SequenceClassifier, AlbertCheckpoint):
    """ALBERT sequence classifier: linear classification head on each text's pooled first token."""

    base_name = "albert"

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__(config)
        self.albert = AlbertModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, labels_of(config))
        self.initialize()

    def classify(self, pooled: Tensor) -> Tensor:
        return apply_linear(self.classifier, self.dropout(self.albert.pool(pooled)))
