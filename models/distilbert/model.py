"""DistilBERT (arXiv 1910.01108): half of BERT's layers, without token types."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ..core.attention import DecoderAttention
from ..core.classification import labels_of
from ..core.config import PretrainedConfig
from ..core.layers import Attention, add_linear, normalize, select
from ..core.model import PretrainedModel
from ..core.outputs import BaseModelOutput, SequenceClassifierOutput, as_asked
from ..core.parameters import ParametersMixin
from ..core.stack import DecoderSizes, PositionIndexer, TransformerStack, embed_tokens
from ..core.text_classifier import TextClassifier
from .config import DistilBertConfig

_EPS = 1e-12
_NAMES = {"query": "q_lin", "key": "k_lin", "value": "v_lin", "output": "out_lin"}  # see `Attention`


class DistilBertCheckpoint(PretrainedModel):
    """How DistilBERT's checkpoints name what they hold."""

    config_class: ClassVar[type[PretrainedConfig]] = DistilBertConfig
    base_prefix: ClassVar[str | tuple[str, ...]] = "distilbert."
    # Tables that are counted, and the heads of other tasks.
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

    def forward(self, given: Tensor, rows: Tensor) -> Tensor:
        """[tokens, width] of token ids [tokens], or of their vectors, at rows of the position table."""
        embedded = embed_tokens(given, rows, self.word_embeddings, self.position_embeddings.weight)
        return normalize(self.LayerNorm, embedded)


class FFN(nn.Module):
    """The two maps of a layer's second half."""

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
    """The stack of layers."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(TransformerBlock(config, index) for index in range(config.n_layers))


class DistilBertModel(TransformerStack, ParametersMixin, DistilBertCheckpoint):
    """DistilBERT without a head; every token sees all of its text.

    Args:
        config: sizes and constants; weights are fresh.
    """

    causal = False
    has_cross_attention = False

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.transformer = Transformer(config)
        self.initialize()

    def initialize(self) -> None:
        """See `PretrainedModel`; the position table may be sines and cosines."""
        super().initialize()
        if self.config.sinusoidal_pos_embds:
            table = self.embeddings.position_embeddings.weight
            with torch.no_grad():
                table.copy_(sines_and_cosines(*table.shape))

    def forward(  # type: ignore[override]  # its order of arguments is another one
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput | tuple[Any, ...]:
        """Hidden states of every given token; each row's are what they would be alone.

        Arguments are those of `BertModel.forward`.

        Raises:
            ValueError: inputs that are missing or do not fit, or more tokens than there are positions.
        """
        output = self.run_padded(
            input_ids,
            inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        whole = BaseModelOutput(output.last_hidden_state, output.hidden_states, output.attentions)
        return as_asked(whole, return_dict, self.config)

    @property
    def sizes(self) -> DecoderSizes:
        """See `TransformerStack`."""
        config = self.config
        return DecoderSizes(
            config.n_layers, config.n_heads, config.dim, config.dropout, config.attention_dropout
        )

    @property
    def positions(self) -> PositionIndexer:
        """See `TransformerStack`."""
        return PositionIndexer(0, self.config.max_position_embeddings)

    @property
    def layer_stack(self) -> nn.ModuleList:
        """See `TransformerStack`."""
        return self.transformer.layer

    def embed(self, given: Tensor, rows: Tensor, token_types: Tensor | None = None) -> Tensor:
        """See `TransformerStack`; there are no types."""
        return self.embeddings(given, rows)

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding."""
        self.embeddings.word_embeddings = value


class DistilBertForSequenceClassification(TextClassifier, DistilBertCheckpoint):
    """DistilBERT with two maps from its first token to labels, and a ReLU between them.

    Args:
        config: sizes and constants, with `num_labels`; weights are fresh.

    Raises:
        ValueError: no labels.
    """

    base_name: ClassVar[str] = "distilbert"
    has_token_types: ClassVar[bool] = False

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        self.distilbert = DistilBertModel(config)
        self.pre_classifier = nn.Linear(config.dim, config.dim)
        self.classifier = nn.Linear(config.dim, labels_of(config))
        self.initialize()
        self.distilbert.initialize()

    def forward(  # type: ignore[override]  # its order of arguments is another one
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Logits of a padded batch, each row's what they would be alone; see `TextClassifier.forward`.

        Raises:
            ValueError: inputs or labels that do not fit, more tokens than there are positions, or a row
                without any.
        """
        return super().forward(
            input_ids,
            attention_mask,
            None,
            position_ids,
            inputs_embeds,
            labels,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
        )

    def classify(self, first: Tensor) -> Tensor:
        """See `TextClassifier`."""
        before, last = self.pre_classifier, self.classifier
        inner = linear(first, before.weight, before.bias, activation="relu")
        inner = F.dropout(inner, self.config.seq_classif_dropout, self.training)
        return linear(inner, last.weight, last.bias)


def sines_and_cosines(count: int, width: int) -> Tensor:
    """The position table of "Attention is all you need" (arXiv 1706.03762): float32 [count, width].

    Sines in even columns and cosines in odd ones, of wavelengths 2 pi to 10000 * 2 pi.
    """
    exponents = 2 * (torch.arange(width, dtype=torch.float64) // 2) / width
    angles = torch.arange(count, dtype=torch.float64)[:, None] / 10000.0**exponents
    table = angles.sin()
    table[:, 1::2] = angles[:, 1::2].cos()
    return table.float()
