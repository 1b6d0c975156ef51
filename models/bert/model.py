"""BERT (arXiv 1810.04805): a text encoder, and with causal layers and cross-attention a decoder.

Its kin derive from the classes here and say what is their own, see `roberta`.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ..core.causal_lm import CausalLM
from ..core.classification import first_of_padded, labels_of
from ..core.config import PretrainedConfig
from ..core.layers import normalize
from ..core.model import PretrainedModel
from ..core.outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
    as_asked,
)
from ..core.parameters import ParametersMixin
from ..core.stack import DecoderSizes, PositionIndexer, TransformerStack
from ..core.text_classifier import TextClassifier
from .config import BertConfig, BertLikeConfig
from .layers import BertEmbeddings, BertEncoder, BertPooler, check_token_types


class BertCheckpoint(PretrainedModel):
    """How checkpoints of BERT and its kin name what they hold."""

    config_class: ClassVar[type[PretrainedConfig]] = BertConfig
    base_prefix: ClassVar[str | tuple[str, ...]] = "bert."
    # Those that were converted from TensorFlow.
    renamed_keys: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
    )
    # Tables that are counted, and the heads of other tasks.
    ignored_keys: ClassVar[tuple[str, ...]] = (
        r"embeddings\.(position_ids|token_type_ids)$",
        r"^cls\.seq_relationship\.",
        r"^(\w+\.)?pooler\.",
    )
    fresh_keys: ClassVar[tuple[str, ...]] = (
        r"\.crossattention\.",
        r"^(\w+\.)?pooler\.",
        r"^(cls|lm_head)\.",
        r"^classifier\.",
    )


# Tensors that a classifier finds in checkpoints with another head; that its own is fresh is warned of anyway.
OTHER_HEADS = (r"^(cls|lm_head)\.",)


class BertModel(TransformerStack, ParametersMixin, BertCheckpoint):
    """BERT without a head. With `is_decoder` its tokens see those before them alone.

    Args:
        config: sizes and constants; weights are fresh.
        add_pooling_layer: with the map of each first token that classifiers read.

    Raises:
        ValueError: cross-attention without `is_decoder`.
    """

    # Whether the first token has the row behind the padding token's in the position table, which padding
    # tokens read wherever they stand; else row 0.
    counts_from_padding: ClassVar[bool] = False

    def __init__(self, config: BertLikeConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.causal = config.is_decoder
        self.has_cross_attention = config.add_cross_attention
        self.embeddings = BertEmbeddings(config, config.pad_token_id if self.counts_from_padding else None)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config) if add_pooling_layer else None
        self.initialize()

    def forward(  # type: ignore[override]  # its order of arguments is another one
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[Any, ...]:
        """Hidden states of every given token; each row's are what they would be alone.

        Args:
            token_type_ids: int64 [batch, target]; 0 by default.
            position_ids: int64 [batch or 1, target], rows of the position table instead of counted ones.

        The other arguments are `TransformerStack.forward`'s.

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
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        hidden = output.last_hidden_state
        pooled = None
        if self.pooler is not None:
            pooled = self.pooler(first_of_padded(hidden, attention_mask))
        with_pooled = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=hidden,
            pooler_output=pooled,
            hidden_states=output.hidden_states,
            past_key_values=output.past_key_values,
            attentions=output.attentions,
            cross_attentions=output.cross_attentions,
        )
        return as_asked(with_pooled, return_dict, self.config)

    @property
    def sizes(self) -> DecoderSizes:
        """See `TransformerStack`."""
        config = self.config
        return DecoderSizes(
            config.num_hidden_layers,
            config.num_attention_heads,
            config.hidden_size,
            config.hidden_dropout_prob,
            config.attention_probs_dropout_prob,
        )

    @property
    def positions(self) -> PositionIndexer:
        """See `TransformerStack`."""
        rows, padding = self.config.max_position_embeddings, self.config.pad_token_id
        if self.counts_from_padding:
            return PositionIndexer(padding + 1, rows - padding - 1, padding)
        return PositionIndexer(0, rows)

    @property
    def layer_stack(self) -> nn.ModuleList:
        """See `TransformerStack`."""
        return self.encoder.layer

    def embed(self, given: Tensor, rows: Tensor, token_types: Tensor | None = None) -> Tensor:
        """See `TransformerStack`."""
        return self.embeddings(given, rows, token_types)

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding."""
        self.embeddings.word_embeddings = value


class BertPredictionHeadTransform(nn.Module):
    """What comes before the map to the vocabulary."""

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__()
        self.activation = config.hidden_act
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """[tokens, width] to the same."""
        weight, bias = self.dense.weight, self.dense.bias
        inner = linear(hidden, weight, bias, activation=self.activation, phase="decode")
        return normalize(self.LayerNorm, inner)


class BertLMPredictionHead(nn.Module):
    """The map to the vocabulary. The bias goes by two names, its own and the decoder's."""

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__()
        self.transform = BertPredictionHeadTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """[tokens, width] to [tokens, vocabulary]."""
        return linear(self.transform(hidden), self.decoder.weight, self.decoder.bias, phase="decode")


class BertOnlyMLMHead(nn.Module):
    """The head by the name that checkpoints give it."""

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__()
        self.predictions = BertLMPredictionHead(config)


class BertCausalLM(CausalLM):
    """A decoder of BERT's layers with a head that has a `decoder` and, tied to its bias, a `bias`.

    A family says where the two lie: `get_decoder` and `head`.
    """

    def get_decoder(self) -> BertModel:
        """See `CausalLM`."""
        raise NotImplementedError

    @property
    def head(self) -> Any:
        """Hidden states [tokens, width] to logits [tokens, vocabulary]."""
        raise NotImplementedError

    def forward(  # type: ignore[override]  # its order of arguments is another one
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithCrossAttentions | tuple[Any, ...]:
        """Logits after every given token, and with labels the loss; see `BertModel.forward`.

        Args:
            labels: int64 [batch, target], the tokens themselves, -100 where nothing is to be predicted: each
                is compared with the logits one place before it. Nothing is kept for a next call then.
            logits_to_keep: return those of so many last places alone; all for 0.

        Raises:
            ValueError: inputs that are missing or do not fit, or more tokens than there are positions.
        """
        check_token_types(token_type_ids, self.config.type_vocab_size)
        output = self.get_decoder().run_padded(
            input_ids,
            inputs_embeds,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache if labels is None else False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        return self.finish(output, labels, logits_to_keep, return_dict)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [tokens, width] to logits [tokens, vocabulary]."""
        return self.head(hidden)

    def tie_weights(self) -> None:
        """Make the output map the token embedding and its bias the head's, where that is configured."""
        super().tie_weights()
        if self.config.tie_word_embeddings:
            self.head.decoder.bias = self.head.bias

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """See `ParametersMixin`."""
        tokens = super().resize_token_embeddings(*args, **kwargs)
        self._follow()
        return tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding; `tie_weights` makes the output map follow."""
        self.get_decoder().set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        """The map to the vocabulary."""
        return self.head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the map to the vocabulary."""
        self.head.decoder = new_embeddings
        self._follow()

    def _follow(self) -> None:
        """Make the head's own bias fit its map's; in a model that is not tied nothing reads it."""
        bias, tied = self.head.decoder.bias, self.config.tie_word_embeddings
        self.head.bias = bias if tied else nn.Parameter(bias.detach().clone())


class BertLMHeadModel(BertCausalLM, BertCheckpoint):
    """BERT with its map to the vocabulary: losses, logits, and a decoder for `SpeechEncoderDecoderModel`.

    Args:
        config: sizes and constants; weights are fresh. `is_decoder` and `add_cross_attention` make it a
            decoder beside an encoder.

    Raises:
        ValueError: cross-attention without `is_decoder`.
    """

    tied_weights: ClassVar[dict[str, str]] = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.cls = BertOnlyMLMHead(config)
        self.initialize()
        self.tie_weights()

    @property
    def head(self) -> BertLMPredictionHead:
        """See `BertCausalLM`."""
        return self.cls.predictions

    def get_decoder(self) -> BertModel:
        """The model without its head, which takes padded tokens as in transformers."""
        return self.bert


class BertForSequenceClassification(TextClassifier, BertCheckpoint):
    """BERT with a map from its pooled first token to labels.

    Args:
        config: sizes and constants, with `num_labels`; weights are fresh.

    Raises:
        ValueError: no labels.
    """

    base_name: ClassVar[str] = "bert"
    ignored_keys: ClassVar[tuple[str, ...]] = (*BertCheckpoint.ignored_keys, *OTHER_HEADS)

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, labels_of(config))
        self.initialize()

    def classify(self, first: Tensor) -> Tensor:
        """See `TextClassifier`."""
        assert self.bert.pooler is not None
        pooled = self.dropout(self.bert.pooler(first))
        return linear(pooled, self.classifier.weight, self.classifier.bias)


def classifier_dropout(config: BertLikeConfig) -> float:
    """Dropout of a classifier's head: its own, or else that of hidden states."""
    given = config.classifier_dropout
    return config.hidden_dropout_prob if given is None else given
