"""Text classifiers: a model without a head, pooling of one token per text, and a classification head."""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from ...kernels.runtime.packing import cumulative, pack
from ...scheduler.model_protocol import Task
from .classification import classification_loss, first_token, one_each
from .forward import OUTPUT_FLAGS, declare_forward
from .model import PretrainedModel
from .outputs import ModelOutput, SequenceClassifierOutput
from .padding import as_mask
from .parameters import ParametersMixin

# Choice of each text's token: (configuration, token ids [tokens] or None, cu_seqlens int32 [n + 1]) to token
# indices, int64 [n].
Pooling = Callable[[Any, Tensor | None, Tensor], Tensor]

# The first line of every classifier's `forward`.
LOGITS = "Logits of a padded batch, each row's equal to those of the row alone, and with labels the loss."


class SequenceClassifier(ParametersMixin, PretrainedModel):
    """Text classifier: a model with a classification head on one pooled token of each text.

    A family names its model without a head (`base_name`), chooses the token (`pooling`), and maps it to
    logits (`classify`).

    Padding on the left does not change logits. (In transformers it does: BERT's positions count from the
    first column, where the pooled token is read too, even if it is padding. RoBERTa's positions are right,
    but its pooled token is the first column's as well.)

    Raises:
        ValueError: a configuration without labels.
    """

    task: ClassVar[Task] = Task.SEQUENCE_CLASSIFICATION
    base_name: ClassVar[str]  # attribute of the model without a head, and its prefix in checkpoints
    pooling: ClassVar[Pooling] = staticmethod(first_token)
    output_class: ClassVar[type[ModelOutput]] = SequenceClassifierOutput
    main_input_name: ClassVar[str] = "input_ids"
    has_token_types: ClassVar[bool] = True  # takes token types, in features as a second column

    forward = declare_forward(
        LOGITS, f"input_ids attention_mask token_type_ids position_ids inputs_embeds labels {OUTPUT_FLAGS}"
    )

    @property
    def base(self) -> Any:
        """Model below the classification head."""
        return getattr(self, self.base_name)

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits [texts, labels] of the pooled hidden states of texts, [texts, width]."""
        raise NotImplementedError

    def forward_named(self, *, labels: Tensor | None = None, **inputs: Any) -> ModelOutput:
        """Run `forward` with its arguments by name."""
        output = self.run_base(**inputs)
        mask = self.token_mask(output.last_hidden_state, **inputs)
        token_ids = inputs.get("input_ids")
        pooled = self.pool(
            pack(output.last_hidden_state, mask),
            cumulative(mask.sum(1)),
            None if token_ids is None else pack(token_ids, mask),
        )
        logits = self.classify(pooled)
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        return self.output_class.from_base(output, loss=loss, logits=logits)

    def run_base(self, **inputs: Any) -> Any:
        """Output of the model without a head for a padded batch."""
        return self.base.run_padded(use_cache=False, **inputs)

    def token_mask(self, hidden: Tensor, attention_mask: Tensor | None = None, **inputs: Any) -> Tensor:
        """Mask of the real tokens of a padded batch, bool [batch, tokens].

        Raises:
            ValueError: a row without tokens.
        """
        batch, tokens = hidden.shape[:2]
        given = None if attention_mask is None else attention_mask[:, -tokens:]
        mask = as_mask(given, batch, tokens, hidden.device, "attention_mask")
        if not bool(mask.any(1).all()):
            raise ValueError("attention_mask has a row without tokens; every text needs at least one")
        return mask

    def pool(self, hidden: Tensor, cu_tokens: Tensor, token_ids: Tensor | None) -> Tensor:
        """Pooled hidden state of each text, [texts, width], from packed hidden states [tokens, width]."""
        return hidden[type(self).pooling(self.config, token_ids, cu_tokens)]

    # Encoder-only requests of the engine: packed texts in, one row of logits per text out.

    def encoder_length(self, tokens: int) -> int:
        """Length of a text of `tokens` tokens in the encoder: the same number.

        Raises:
            ValueError: no tokens, or more than the model has positions.
        """
        limit = self.base.max_tokens
        if tokens < 1 and limit is None:
            raise ValueError("a text without tokens cannot be classified; give at least one")
        if limit is not None and not 0 < tokens <= limit:
            raise ValueError(
                f"a text of {tokens} tokens, and the model takes 1 to {limit}; "
                + (f"cut it with truncation=True, max_length={limit}" if tokens else "give one that has some")
            )
        return tokens

    def predict(self, features: Tensor, cu_tokens: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Logits of a packed batch of texts; a method of `EncoderOnlyModel`.

        Args:
            features: token ids, int64 [tokens, 1], or with token types [tokens, 2] if the family has them.
            cu_tokens: cu_seqlens of the texts, int32 [texts + 1].

        Returns:
            "logits": float32 [texts, labels], with their cu_seqlens.

        Raises:
            ValueError: features of another shape, or (on the CPU) unknown tokens or types.
        """
        columns = features.shape[1] if features.dim() == 2 else 0
        if columns not in ((1, 2) if self.has_token_types else (1,)):
            more = ", or [tokens, 2] with their types" if self.has_token_types else ""
            raise ValueError(f"token ids must be [tokens, 1]{more}; got {list(features.shape)}")
        token_ids = features[:, 0].contiguous()
        token_types = features[:, 1].contiguous() if columns == 2 else None
        if features.device.type == "cpu":  # on a GPU the check would wait for it
            self._check_tokens(token_ids)
            self.base.check_token_types(token_types)
        logits = self.packed_logits(token_ids, cu_tokens, token_types)
        return {"logits": (logits.float(), one_each(cu_tokens))}

    def packed_logits(self, token_ids: Tensor, cu_tokens: Tensor, token_types: Tensor | None) -> Tensor:
        """Logits [texts, labels] of a packed batch; arguments are those of `forward_sequences`."""
        selected = type(self).pooling(self.config, token_ids, cu_tokens)
        return self.classify(self.base.forward_sequences(token_ids, cu_tokens, token_types, selected))

    def check_text(self, token_ids: list[int]) -> None:
        """Validate a text's token ids on the host. Raises ValueError where they cannot be classified."""

    def _check_tokens(self, token_ids: Tensor) -> None:
        most = self.get_input_embeddings().weight.shape[0] - 1
        if token_ids.numel() and not 0 <= int(token_ids.min()) <= int(token_ids.max()) <= most:
            raise ValueError(
                f"token ids go from {int(token_ids.min())} to {int(token_ids.max())}, and the model knows "
                f"tokens 0 to {most}; use its own tokenizer"
            )

    def get_input_embeddings(self) -> nn.Embedding:
        embedding: nn.Embedding = self.base.get_input_embeddings()
        return embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.base.set_input_embeddings(value)
