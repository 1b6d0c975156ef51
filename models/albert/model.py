"""ALBERT (arXiv 1909.11942): BERT with narrow embeddings, and layers that share their weights."""

from typing import Any, ClassVar, cast

import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ..bert.layers import BERT_NAMES, BertEmbeddings, check_token_types
from ..core.attention import DecoderAttention
from ..core.classification import first_of_padded, labels_of
from ..core.config import PretrainedConfig
from ..core.layers import Attention, add_linear, normalize, select
from ..core.model import PretrainedModel
from ..core.outputs import BaseModelOutputWithPoolingAndCrossAttentions, as_asked
from ..core.parameters import ParametersMixin
from ..core.stack import DecoderSizes, PositionIndexer, TransformerStack
from ..core.text_classifier import TextClassifier
from .config import AlbertConfig


class AlbertCheckpoint(PretrainedModel):
    """How ALBERT's checkpoints name what they hold."""

    config_class: ClassVar[type[PretrainedConfig]] = AlbertConfig
    base_prefix: ClassVar[str | tuple[str, ...]] = "albert."
    # Tables that are counted, and the heads of other tasks.
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
    """Layers that are run one after the other, perhaps several times."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.albert_layers = nn.ModuleList(AlbertLayer(config) for _ in range(config.inner_group_num))


class AlbertTransformer(nn.Module):
    """The map from the embeddings' width to the layers', and the groups of layers."""

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

    causal = False
    has_cross_attention = False

    def __init__(self, config: AlbertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = BertEmbeddings(config, width=config.embedding_size)
        self.encoder = AlbertTransformer(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None
        self.initialize()

    def forward(  # type: ignore[override]  # its order of arguments is another one
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[Any, ...]:
        """Hidden states of every given token; each row's are what they would be alone.

        Arguments are those of `BertModel.forward`; inputs_embeds are embedding_size wide.

        Raises:
            ValueError: inputs that are missing or do not fit, or more tokens than there are positions.
        """
        check_token_types(token_type_ids, self.config.type_vocab_size)
        output = self.run_padded(
            input_ids,
            inputs_embeds,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        hidden = output.last_hidden_state
        pooled = None if self.pooler is None else self.pool(first_of_padded(hidden, attention_mask))
        with_pooled = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=hidden,
            pooler_output=pooled,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return as_asked(with_pooled, return_dict, self.config)

    @property
    def sizes(self) -> DecoderSizes:
        """See `TransformerStack`; the width is that of what is embedded."""
        config = self.config
        return DecoderSizes(
            config.num_hidden_layers * config.inner_group_num,
            config.num_attention_heads,
            config.embedding_size,
            attention_dropout=config.attention_probs_dropout_prob,
        )

    @property
    def positions(self) -> PositionIndexer:
        """See `TransformerStack`."""
        return PositionIndexer(0, self.config.max_position_embeddings)

    @property
    def layer_stack(self) -> nn.ModuleList:
        """See `TransformerStack`; the same layers come again and again."""
        count, groups = self.config.num_hidden_layers, self.encoder.albert_layer_groups
        # In transformers' arithmetic, which decides where the layers do not divide among the groups.
        chosen = [groups[int(place / (count / len(groups)))] for place in range(count)]
        return nn.ModuleList(
            layer for group in chosen for layer in cast(AlbertLayerGroup, group).albert_layers
        )

    def embed(self, given: Tensor, rows: Tensor, token_types: Tensor | None = None) -> Tensor:
        """See `TransformerStack`; dropout, which elsewhere follows, comes before the map to the layers' width."""
        narrow = self.embeddings(given, rows, token_types)
        narrow = F.dropout(narrow, self.config.hidden_dropout_prob, self.training)
        widen = self.encoder.embedding_hidden_mapping_in
        return linear(narrow, widen.weight, widen.bias)

    def pool(self, first: Tensor) -> Tensor:
        """First tokens [texts, width] to what classifiers read, [texts, width]."""
        assert self.pooler is not None
        return linear(first, self.pooler.weight, self.pooler.bias, activation="tanh")

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding."""
        self.embeddings.word_embeddings = value


class AlbertForSequenceClassification(TextClassifier, AlbertCheckpoint):
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

    def classify(self, first: Tensor) -> Tensor:
        """See `TextClassifier`."""
        pooled = self.dropout(self.albert.pool(first))
        return linear(pooled, self.classifier.weight, self.classifier.bias)
