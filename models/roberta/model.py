"""RoBERTa (arXiv 1907.11692): BERT with positions from pad_token_id + 1 on, and another head."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..bert.model import OTHER_HEADS, BertCausalLM, BertCheckpoint, BertModel, classifier_dropout
from ..core.classification import ClassificationHead, labels_of
from ..core.layers import apply_linear, normalize
from ..core.sequence_classifier import SequenceClassifier
from .config import RobertaConfig


class RobertaModel(BertModel):
    """RoBERTa without a head: embeddings and transformer layers; arguments are those of `BertModel`."""

    config_class = RobertaConfig
    base_prefix = "roberta."
    counts_from_padding = True


class RobertaLMHead(nn.Module):
    """Language-modeling head; its bias has two names in checkpoints, `bias` and `decoder.bias`."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits [tokens, vocabulary] of hidden states [tokens, width]; the activation is always gelu."""
        inner = apply_linear(self.dense, hidden, "gelu", phase="decode")
        normed = normalize(self.layer_norm, inner)
        return apply_linear(self.decoder, normed, phase="decode")


class RobertaForCausalLM(BertCausalLM, BertCheckpoint):
    """RoBERTa with a language-modeling head; arguments are those of `BertLMHeadModel`."""

    config_class = RobertaConfig
    base_prefix = "roberta."
    decoder_name = "roberta"
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
        return self.lm_head


class RobertaForSequenceClassification(SequenceClassifier, BertCheckpoint):
    """RoBERTa sequence classifier: a head of two linear layers on each text's first token."""

    config_class = RobertaConfig
    base_prefix = "roberta."
    base_name = "roberta"
    ignored_keys = (*BertCheckpoint.ignored_keys, *OTHER_HEADS)

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.classifier = ClassificationHead(
            config.hidden_size, labels_of(config), classifier_dropout(config)
        )
        self.initialize()

    def classify(self, pooled: Tensor) -> Tensor:
        return self.classifier(pooled)
