"""ALBERT (arXiv 1909.11942): BERT with narrow embeddings, and layers that share their weights."""

from typing import Any, ClassVar, cast

import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ..bert.layers import BERT_NAMES, BertEmbeddings, check_token_types
from ..bert.model import BERT_INPUTS
from ..core.attention import DecoderAttention
from ..core.classification import first_of_padded, labels_of
from ..core.config import PretrainedConfig
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.layers import Attention, add_linear, apply_linear, normalize, select
from ..core.model import PretrainedModel
from ..core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from ..core.parameters import ParametersMixin
from ..core.sequence_classifier import SequenceClassifier
from ..core.stack import HIDDEN_STATES, PositionIndexer, StackSizes, TransformerStack
from .config import AlbertConfig


class AlbertCheckpoint(PretrainedModel):
    """Names of ALBERT's checkpoints."""

    config_class: ClassVar[type[PretrainedConfig]] = AlbertConfig
    base_prefix: ClassVar[str | tuple[str, ...]] = "albert."
    # Tables that are computed here, and the heads of other tasks.
    ignored_keys: ClassVar[tuple[str, ...]] = (
        r"embeddings\.(position_ids|token_type_ids)$",
        r"^(predictions|sop_classifier)\.",
        r"^(\w+\.)?pooler\.",
    )
    fresh_keys: ClassVar[tuple[str, ...]] = (r"^(\w+\.)?pooler\.", r"^classifier\.")


class AlbertAttention(Attention):
    """Self-attention with its output and the norm of that."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__(config.hidden_size, config.num_attention_heads, BERT_NAMES | {"output": "dense"})
        self.dropout = config.hidden_dropout_prob
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)


class AlbertLayer(nn.Module):
    """Self-attention, then feed-forward, each normalized after."""

    # Layouts number layers to keep keys and values by, which an encoder never reads.
    index = 0

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.activation = config.hidden_act
        self.full_layer_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.attention = AlbertAttention(config)
        self.ffn = nn.Linear(config.hidden_size, config.intermediate_size)
        self.ffn_output = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor, attention: DecoderAttention, selected: Tensor | None = None) -> Tensor:
        """[tokens, width] to the same, of `selected` tokens alone if given, in the given attention layout."""
        own = self.attention
        mixed = select(own.attend(hidden, attention, self.index), selected)
        dropout = own.dropout if self.training else 0.0
        hidden = normalize(own.LayerNorm, add_linear(own.output, mixed, select(hidden, selected), dropout))
        inner = linear(hidden, self.ffn.weight, self.ffn.bias, activation=self.activation)
        return normalize(self.full_layer_layer_norm, add_linear(self.ffn_output, inner, hidden))


class AlbertLayerGroup(nn.Module):
    """Layers that run one after the other, perhaps several times."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.albert_layers = nn.ModuleList(AlbertLayer(config) for _ in range(config.inner_group_num))


class AlbertTransformer(nn.Module):
    """Map from the embeddings' width to the layers', and the groups of layers."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.embedding_hidden_mapping_in = nn.Linear(config.embedding_size, config.hidden_size)
        self.albert_layer_groups = nn.ModuleList(
            AlbertLayerGroup(config) for _ in range(config.num_hidden_groups)
        )


class AlbertModel(TransformerStack, ParametersMixin, AlbertCheckpoint):
    """ALBERT without a head; every token sees all of its text.

    Args:
        config: sizes and constants; weights are fresh.
        add_pooling_layer: with the map of each first token that classifiers read.
    """

    embedding_name = "embeddings.word_embeddings"
    causal = False
    has_cross_attention = False

    forward = declare_forward(HIDDEN_STATES, f"{BERT_INPUTS} {OUTPUT_FLAGS}")

    def __init__(self, config: AlbertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = BertEmbeddings(config, width=config.embedding_size)
        self.encoder = AlbertTransformer(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None
        self.initialize()

    def forward_named(self, **inputs: Any) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """`forward` with its arguments by name: `run_padded`, and the pooled first tokens."""
        output = self.run_padded(**inputs)
        pooled = None
        if self.pooler is not None:
            pooled = self.pool(first_of_padded(output.last_hidden_state, inputs.get("attention_mask")))
        return BaseModelOutputWithPoolingAndCrossAttentions.from_base(
            output, pooler_output=pooled, cross_attentions=None
        )

    @property
    def sizes(self) -> StackSizes:
        """Sizes of the stack; the width is the embeddings'."""
        config = self.config
        return StackSizes(
            config.num_hidden_layers * config.inner_group_num,
            config.num_attention_heads,
            config.embedding_size,
            attention_dropout=config.attention_probs_dropout_prob,
        )

    @property
    def positions(self) -> PositionIndexer:
        """Rows of the position table that tokens read."""
        return PositionIndexer(0, self.config.max_position_embeddings)

    @property
    def layer_stack(self) -> nn.ModuleList:
        """Layers in the order in which they run, each several times."""
        count, groups = self.config.num_hidden_layers, self.encoder.albert_layer_groups
        # transformers' arithmetic, which matters where the groups do not divide the layers.
        chosen = [groups[int(index / (count / len(groups)))] for index in range(count)]
        return nn.ModuleList(
            layer for group in chosen for layer in cast(AlbertLayerGroup, group).albert_layers
        )

    def embed(self, inputs: Tensor, position_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Embed tokens: [tokens, hidden_size], with dropout before the map to the layers' width."""
        narrow = self.embeddings(inputs, position_ids, token_types)
        narrow = F.dropout(narrow, self.config.hidden_dropout_prob, self.training)
        return apply_linear(self.encoder.embedding_hidden_mapping_in, narrow)

    def check_token_types(self, token_types: Tensor | None) -> None:
        """Check that token types exist; raises ValueError with those that there are."""
        check_token_types(token_types, self.config.type_vocab_size)

    def pool(self, first: Tensor) -> Tensor:
        """Map of first tokens [texts, width], which classifiers read."""
        assert self.pooler is not None
        return apply_linear(self.pooler, first, "tanh")


class AlbertForSequenceClassification(SequenceClassifier, AlbertCheckpoint):
    """ALBERT with a map from its pooled first token to labels.

    Args:
        config: sizes and constants, with `num_labels`; weights are fresh.

    Raises:
        ValueError: no labels.
    """

    base_name: ClassVar[str] = "albert"

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__(config)
        self.albert = AlbertModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, labels_of(config))
        self.initialize()

    def classify(self, pooled: Tensor) -> Tensor:
        """First tokens [texts, width] to logits [texts, labels]."""
        return apply_linear(self.classifier, self.dropout(self.albert.pool(pooled)))
