"""RoBERTa (arXiv 1907.11692): BERT with positions counted from the padding token's, and another head."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ..bert.model import OTHER_HEADS, BertCausalLM, BertCheckpoint, BertModel, classifier_dropout
from ..core.classification import ClassificationHead, labels_of
from ..core.config import PretrainedConfig
from ..core.layers import normalize
from ..core.sequence_classifier import SequenceClassifier
from .config import RobertaConfig


class RobertaModel(BertModel):
    """RoBERTa without a head; arguments are those of `BertModel`."""

    config_class: ClassVar[type[PretrainedConfig]] = RobertaConfig
    base_prefix: ClassVar[str | tuple[str, ...]] = "roberta."
    counts_from_padding: ClassVar[bool] = True


class RobertaLMHead(nn.Module):
    """Map to the vocabulary, whose bias has two names, its own and the decoder's."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """[tokens, width] to [tokens, vocabulary]; the activation is gelu whatever the layers have."""
        inner = linear(hidden, self.dense.weight, self.dense.bias, activation="gelu", phase="decode")
        normed = normalize(self.layer_norm, inner)
        return linear(normed, self.decoder.weight, self.decoder.bias, phase="decode")


class RobertaForCausalLM(BertCausalLM, BertCheckpoint):
    """RoBERTa with its map to the vocabulary; arguments are those of `BertLMHeadModel`."""

    config_class: ClassVar[type[PretrainedConfig]] = RobertaConfig
    base_prefix: ClassVar[str | tuple[str, ...]] = "roberta."
    decoder_name: ClassVar[str] = "roberta"
    tied_weights: ClassVar[dict[str, str]] = {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.lm_head: Any = RobertaLMHead(config)
        self.initialize()
        self.tie_weights()

    @property
    def head(self) -> Any:
        """Head: hidden states [tokens, width] to logits [tokens, vocabulary]."""
        return self.lm_head


class RobertaForSequenceClassification(SequenceClassifier, BertCheckpoint):
    """RoBERTa with a head of two maps on its first token; arguments are `BertForSequenceClassification`'s."""

    config_class: ClassVar[type[PretrainedConfig]] = RobertaConfig
    base_prefix: ClassVar[str | tuple[str, ...]] = "roberta."
    base_name: ClassVar[str] = "roberta"
    ignored_keys: ClassVar[tuple[str, ...]] = (*BertCheckpoint.ignored_keys, *OTHER_HEADS)

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.classifier = ClassificationHead(
            config.hidden_size, labels_of(config), classifier_dropout(config)
        )
        self.initialize()

    def classify(self, pooled: Tensor) -> Tensor:
        """First tokens [texts, width] to logits [texts, labels]."""
        return self.classifier(pooled)
