"""Sequence classifiers on each text's last token: GPT-2's, and the base class that GPT-Neo shares."""

from typing import Any, ClassVar

from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ..core.classification import labels_of, last_token
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.outputs import SequenceClassifierOutputWithPast
from ..core.sequence_classifier import LOGITS, Pooling, SequenceClassifier
from ..core.stack import TransformerStack
from .model import GPT_INPUTS, GPT2Checkpoint, GPT2Model


class LastTokenClassifier(SequenceClassifier):
    """Causal model with a linear classification head on each text's last token that is not padding.

    A subclass sets `base_class`, the model without a head.
    """

    base_class: ClassVar[type[TransformerStack]]
    base_name = "transformer"
    pooling: ClassVar[Pooling] = staticmethod(last_token)
    output_class = SequenceClassifierOutputWithPast
    fresh_keys = (r"^score\.",)

    forward = declare_forward(
        f"{LOGITS} A text is read at its last token that is not `pad_token_id`, or at its first where all "
        "are, and with inputs_embeds or without a `pad_token_id` at its last.",
        f"{GPT_INPUTS} labels use_cache {OUTPUT_FLAGS}",
    )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.transformer = self.base_class(config)
        self.score = nn.Linear(config.hidden_size, labels_of(config), bias=False)
        self.initialize()

    def run_base(self, **inputs: Any) -> Any:
        return self.base.run_padded(**inputs)

    def pool(self, hidden: Tensor, cu_tokens: Tensor, token_ids: Tensor | None) -> Tensor:
        """Select each text's last token from packed hidden states [tokens, width]: [texts, width].

        Raises:
            ValueError: the batch has several texts, and the configuration no `pad_token_id`.
        """
        batch = cu_tokens.numel() - 1
        if self.config.pad_token_id is None and batch > 1:
            raise ValueError(
                f"a batch of {batch} texts needs pad_token_id in the configuration, which is None, to tell "
                "where each ends; set it to the tokenizer's, or give one text at a time"
            )
        return super().pool(hidden, cu_tokens, token_ids)

    def classify(self, pooled: Tensor) -> Tensor:
        return linear(pooled, self.score.weight)


class GPT2ForSequenceClassification(LastTokenClassifier, GPT2Checkpoint):
    """GPT-2 sequence classifier: linear classification head on each text's last token."""

    base_class = GPT2Model
    ignored_keys = (*GPT2Checkpoint.ignored_keys, r"^lm_head\.")
