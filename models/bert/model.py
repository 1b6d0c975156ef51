"""BERT (arXiv 1810.04805): a text encoder, and with causal layers and cross-attention a decoder."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ..core.causal_lm import NEXT_TOKEN_LOGITS, CausalLM
from ..core.classification import first_of_padded, labels_of
from ..core.config import PretrainedConfig
from ..core.forward import ENCODER_OUTPUT, OUTPUT_FLAGS, declare_forward
from ..core.layers import apply_linear, normalize
from ..core.model import PretrainedModel
from ..core.outputs import BaseModelOutputWithPoolingAndCrossAttentions, CausalLMOutputWithCrossAttentions
from ..core.parameters import ParametersMixin
from ..core.sequence_classifier import SequenceClassifier
from ..core.stack import HIDDEN_STATES, PositionIndexer, StackSizes, TransformerStack
from .config import BertConfig, BertLikeConfig
from .layers import BertEmbeddings, BertEncoder, BertPooler, check_token_types

# Arguments of `forward` in the order of BERT's and GPT-2's models.
BERT_INPUTS = "input_ids attention_mask token_type_ids position_ids inputs_embeds"


class BertCheckpoint(PretrainedModel):
    """Names of checkpoints of BERT and its kin."""

    config_class: ClassVar[type[PretrainedConfig]] = BertConfig
    base_prefix: ClassVar[str | tuple[str, ...]] = "bert."
    # Of checkpoints converted from TensorFlow.
    renamed_keys: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
    )
    # Tables that are computed here, and the heads of other tasks.
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


# Heads that a classifier ignores in a checkpoint; the warning that its own is fresh suffices.
OTHER_HEADS = (r"^(cls|lm_head)\.",)


class BertModel(TransformerStack, ParametersMixin, BertCheckpoint):
    """BERT without a head. With `is_decoder` its tokens see those before them alone.

    Args:
        config: sizes and constants; weights are fresh.
        add_pooling_layer: with the map of each first token that classifiers read.

    Raises:
        ValueError: cross-attention without `is_decoder`.
    """

    layers_name = "encoder.layer"
    embedding_name = "embeddings.word_embeddings"
    # Positions start behind the padding token's row, which padding tokens read wherever they are; else at 0.
    counts_from_padding: ClassVar[bool] = False

    forward = declare_forward(
        HIDDEN_STATES, f"{BERT_INPUTS} {ENCODER_OUTPUT} past_key_values use_cache {OUTPUT_FLAGS}"
    )

    def __init__(self, config: BertLikeConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.causal = config.is_decoder
        self.has_cross_attention = config.add_cross_attention
        self.embeddings = BertEmbeddings(config, config.pad_token_id if self.counts_from_padding else None)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config) if add_pooling_layer else None
        self.initialize()

    def forward_named(self, **inputs: Any) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """`forward` with its arguments by name: `run_padded`, and the pooled first tokens."""
        output = self.run_padded(**inputs)
        pooled = None
        if self.pooler is not None:
            pooled = self.pooler(first_of_padded(output.last_hidden_state, inputs.get("attention_mask")))
        return BaseModelOutputWithPoolingAndCrossAttentions.from_base(output, pooler_output=pooled)

    @property
    def sizes(self) -> StackSizes:
        """Sizes of the stack."""
        config = self.config
        return StackSizes(
            config.num_hidden_layers,
            config.num_attention_heads,
            config.hidden_size,
            config.hidden_dropout_prob,
            config.attention_probs_dropout_prob,
        )

    @property
    def positions(self) -> PositionIndexer:
        """Rows of the position table that tokens read."""
        count, padding = self.config.max_position_embeddings, self.config.pad_token_id
        if self.counts_from_padding:
            return PositionIndexer(padding + 1, count - padding - 1, padding)
        return PositionIndexer(0, count)

    def embed(self, inputs: Tensor, position_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Embed tokens, before dropout: [tokens, width]."""
        return self.embeddings(inputs, position_ids, token_types)

    def check_token_types(self, token_types: Tensor | None) -> None:
        """Check that token types exist; raises ValueError with those that there are."""
        check_token_types(token_types, self.config.type_vocab_size)


class BertPredictionHeadTransform(nn.Module):
    """Linear map, activation and norm before the map to the vocabulary."""

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
    """Map to the vocabulary, whose bias has two names, its own and the decoder's."""

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__()
        self.transform = BertPredictionHeadTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """[tokens, width] to [tokens, vocabulary]."""
        return linear(self.transform(hidden), self.decoder.weight, self.decoder.bias, phase="decode")


class BertOnlyMLMHead(nn.Module):
    """The head by its name in checkpoints."""

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__()
        self.predictions = BertLMPredictionHead(config)


class BertCausalLM(CausalLM):
    """Decoder of BERT's layers, and a head that has a `decoder` and, tied to its bias, a `bias`."""

    forward = declare_forward(
        NEXT_TOKEN_LOGITS,
        f"{BERT_INPUTS} {ENCODER_OUTPUT} labels past_key_values use_cache logits_to_keep {OUTPUT_FLAGS}",
    )

    @property
    def head(self) -> Any:
        """Head: hidden states [tokens, width] to logits [tokens, vocabulary]."""
        raise NotImplementedError

    def forward_named(
        self, *, labels: Tensor | None = None, use_cache: bool | None = None, **inputs: Any
    ) -> CausalLMOutputWithCrossAttentions:
        """`forward` with its arguments by name; as in transformers there is no cache with labels."""
        return super().forward_named(
            labels=labels, use_cache=use_cache if labels is None else False, **inputs
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [tokens, width] to logits [tokens, vocabulary]."""
        return self.head(hidden)

    def tie_weights(self) -> None:
        """Tie the output map to the token embedding and its bias to the head's, where that is configured."""
        super().tie_weights()
        if self.config.tie_word_embeddings:
            self.head.decoder.bias = self.head.bias

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Change the size of the vocabulary; arguments are `ParametersMixin`'s."""
        tokens = super().resize_token_embeddings(*args, **kwargs)
        self._update_head_bias()
        return tokens

    def get_output_embeddings(self) -> nn.Linear:
        """Map to the vocabulary."""
        return self.head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the map to the vocabulary."""
        self.head.decoder = new_embeddings
        self._update_head_bias()

    def _update_head_bias(self) -> None:
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

    decoder_name: ClassVar[str] = "bert"
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
        """Head: hidden states [tokens, width] to logits [tokens, vocabulary]."""
        return self.cls.predictions


class BertForSequenceClassification(SequenceClassifier, BertCheckpoint):
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

    def classify(self, pooled: Tensor) -> Tensor:
        """First tokens [texts, width] to logits [texts, labels]."""
        assert self.bert.pooler is not None
        return apply_linear(self.classifier, self.dropout(self.bert.pooler(pooled)))


def classifier_dropout(config: BertLikeConfig) -> float:
    """Dropout of a classifier's head: its own, or else that of hidden states."""
    own = config.classifier_dropout
    return config.hidden_dropout_prob if own is None else own
