"""BERT (arXiv 1810.04805): text encoder, sequence classifier, and decoder with cross-attention."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..core.causal_lm import NEXT_TOKEN_LOGITS, CausalLM
from ..core.classification import first_of_padded, labels_of
from ..core.config import PretrainedConfig
from ..core.forward import ENCODER_OUTPUT, OUTPUT_FLAGS, declare_forward
from ..core.layers import apply_linear, normalize
from ..core.model import PretrainedModel
from ..core.outputs import BaseModelOutputWithPoolingAndCrossAttentions, CausalLMOutputWithCrossAttentions
from ..core.parameters import ParametersMixin
from ..core.sequence_classifier import SequenceClassifier
from ..core.stack import HIDDEN_STATES, PositionIndexer, TransformerStack
from .config import BertConfig, BertLikeConfig
from .layers import BertEmbeddings, BertEncoder, BertPooler

# First arguments of `forward`, in the order of transformers' BERT models.
BERT_INPUTS = "input_ids attention_mask token_type_ids position_ids inputs_embeds"


class BertCheckpoint(PretrainedModel):
    """Base class of BERT's and RoBERTa's models: configuration class and tensor names of checkpoints."""

    config_class: ClassVar[type[PretrainedConfig]] = BertConfig
    base_prefix = "bert."
    # Layer norm names in checkpoints converted from TensorFlow.
    renamed_keys = (
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
    )
    # Tables that are computed here, and weights of heads for other tasks.
    ignored_keys: ClassVar[tuple[str, ...]] = (
        r"embeddings\.(position_ids|token_type_ids)$",
        r"^cls\.seq_relationship\.",
        r"^(\w+\.)?pooler\.",
    )
    fresh_keys = (
        r"\.crossattention\.",
        r"^(\w+\.)?pooler\.",
        r"^(cls|lm_head)\.",
        r"^classifier\.",
    )


# Language-modeling heads that a classifier ignores in a checkpoint: loading already warns that the
# classification head is randomly initialized.
OTHER_HEADS = (r"^(cls|lm_head)\.",)


class BertLikeStack(TransformerStack):
    """Transformer stack with BERT's embeddings and a pooler of each text's first token.

    A subclass sets `embeddings` and `pooler` in its constructor; `pooler` is None in a model without one.
    """

    embedding_name = "embeddings.word_embeddings"
    embeddings: BertEmbeddings
    pooler: nn.Module | None

    def forward_named(self, **inputs: Any) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """Run `forward` with keyword arguments: the outputs of `run_padded`, and the pooled first tokens."""
        output = self.run_padded(**inputs)
        pooled = None
        if self.pooler is not None:
            pooled = self.pool(first_of_padded(output.last_hidden_state, inputs.get("attention_mask")))
        return BaseModelOutputWithPoolingAndCrossAttentions.from_base(output, pooler_output=pooled)

    def pool(self, first: Tensor) -> Tensor:
        """Pool the first tokens' hidden states [texts, width] for a classification head: [texts, width]."""
        raise NotImplementedError

    def embed(self, inputs: Tensor, position_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        return self.embeddings(inputs, position_ids, token_types)

    def check_token_types(self, token_types: Tensor | None) -> None:
        if token_types is not None and token_types.numel():
            least, most, count = int(token_types.min()), int(token_types.max()), self.config.type_vocab_size
            if not 0 <= least <= most < count:
                raise ValueError(
                    f"token_type_ids go from {least} to {most}, and the model knows types 0 to {count - 1}"
                )


class BertModel(BertLikeStack, ParametersMixin, BertCheckpoint):
    """BERT without a head: embeddings, transformer layers and pooler; causal with `is_decoder`.

    Args:
        config: model configuration; weights are randomly initialized.
        add_pooling_layer: add the pooler of each text's first token.

    Raises:
        ValueError: `add_cross_attention` without `is_decoder`.
    """

    layers_name = "encoder.layer"
    # True: positions start at pad_token_id + 1, and padding tokens have position pad_token_id. False: at 0.
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

    @property
    def positions(self) -> PositionIndexer:
        count, padding = self.config.max_position_embeddings, self.config.pad_token_id
        if self.counts_from_padding:
            return PositionIndexer(padding + 1, count - padding - 1, padding)
        return PositionIndexer(0, count)

    def pool(self, first: Tensor) -> Tensor:
        assert self.pooler is not None
        return self.pooler(first)


class BertPredictionHeadTransform(nn.Module):
    """Linear layer, activation and layer norm before the vocabulary projection of BERT's head."""

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__()
        self.activation = config.hidden_act
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform hidden states [tokens, width]; the result has the same shape."""
        return normalize(self.LayerNorm, apply_linear(self.dense, hidden, self.activation, "decode"))


class BertLMPredictionHead(nn.Module):
    """Language-modeling head; its bias has two names in checkpoints, `bias` and `decoder.bias`."""

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__()
        self.transform = BertPredictionHeadTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits [tokens, vocabulary] of hidden states [tokens, width]."""
        return apply_linear(self.decoder, self.transform(hidden), phase="decode")


class BertOnlyMLMHead(nn.Module):
    """Wrapper that gives the language-modeling head its checkpoint name, `cls.predictions`."""

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__()
        self.predictions = BertLMPredictionHead(config)


class BertCausalLM(CausalLM):
    """Base class of BERT's and RoBERTa's causal language models: `head` has `decoder` and a tied `bias`."""

    forward = declare_forward(
        NEXT_TOKEN_LOGITS,
        f"{BERT_INPUTS} {ENCODER_OUTPUT} labels past_key_values use_cache logits_to_keep {OUTPUT_FLAGS}",
    )

    @property
    def head(self) -> Any:
        """Language-modeling head: hidden states [tokens, width] to logits [tokens, vocabulary]."""
        raise NotImplementedError

    def forward_named(
        self, *, labels: Tensor | None = None, use_cache: bool | None = None, **inputs: Any
    ) -> CausalLMOutputWithCrossAttentions:
        """Run `forward` with keyword arguments; `labels` disable the key-value cache, as in transformers."""
        return super().forward_named(
            labels=labels, use_cache=use_cache if labels is None else False, **inputs
        )

    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(hidden)

    def tie_weights(self) -> None:
        """Tie the head's weight to the token embedding, and its two biases, with `tie_word_embeddings`."""
        super().tie_weights()
        if self.config.tie_word_embeddings:
            self.head.decoder.bias = self.head.bias

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize the vocabulary of embedding and head; arguments are those of `ParametersMixin`."""
        tokens = super().resize_token_embeddings(*args, **kwargs)
        self._update_head_bias()
        return tokens

    def get_output_embeddings(self) -> nn.Linear:
        return self.head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.head.decoder = new_embeddings
        self._update_head_bias()

    def _update_head_bias(self) -> None:
        """Set the head's `bias` from `decoder.bias`: the same tensor if tied, else an unused copy."""
        bias, tied = self.head.decoder.bias, self.config.tie_word_embeddings
        self.head.bias = bias if tied else nn.Parameter(bias.detach().clone())


class BertLMHeadModel(BertCausalLM, BertCheckpoint):
    """BERT with a language-modeling head: logits and loss; a decoder for `SpeechEncoderDecoderModel`.

    Args:
        config: model configuration; weights are randomly initialized. `is_decoder` and
            `add_cross_attention` make the model a decoder with cross-attention.

    Raises:
        ValueError: `add_cross_attention` without `is_decoder`.
    """

    decoder_name = "bert"
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
        return self.cls.predictions


class BertForSequenceClassification(SequenceClassifier, BertCheckpoint):
    """BERT sequence classifier: linear classification head on each text's pooled first token."""

    base_name = "bert"
    ignored_keys = (*BertCheckpoint.ignored_keys, *OTHER_HEADS)

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, labels_of(config))
        self.initialize()

    def classify(self, pooled: Tensor) -> Tensor:
        return apply_linear(self.classifier, self.dropout(self.bert.pool(pooled)))


def classifier_dropout(config: BertLikeConfig) -> float:
    """Dropout probability of the classification head: `classifier_dropout`, or else `hidden_dropout_prob`."""
    own = config.classifier_dropout
    return config.hidden_dropout_prob if own is None else own
