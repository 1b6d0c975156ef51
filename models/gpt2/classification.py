"""Classifiers that read a text's last token: GPT-2's, and what GPT-Neo's shares with it."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ...kernels.runtime.packing import cumulative
from ...scheduler.model_protocol import Task
from ..core.classification import classification_loss, last_places
from ..core.model import PretrainedModel
from ..core.outputs import SequenceClassifierOutputWithPast, as_asked
from ..core.padding import as_mask
from ..core.parameters import ParametersMixin
from ..core.stack import TransformerStack
from .model import GPT2Checkpoint, GPT2Model


class LastTokenClassifier(ParametersMixin, PretrainedModel):
    """A causal text model and a map from the last token of a text that is not the padding token to labels.

    A family gives its `base_class`.

    Args:
        config: sizes and constants; weights are fresh.
    """

    task: ClassVar[Task] = Task.SEQUENCE_CLASSIFICATION
    has_token_types: ClassVar[bool] = True
    base_class: ClassVar[type[TransformerStack]]
    main_input_name: ClassVar[str] = "input_ids"
    fresh_keys: ClassVar[tuple[str, ...]] = (r"^score\.",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.transformer = self.base_class(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.initialize()

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutputWithPast | tuple[Any, ...]:
        """Logits [batch, labels], each row's what they would be alone, and with labels the loss.

        A text is read at its last token that is not `pad_token_id`, or at its first where there is no other;
        with inputs_embeds, or without a `pad_token_id`, at its last.

        Args:
            token_type_ids: int64 [batch, target], tokens whose vectors are added to those of the input.
            position_ids: int64 [batch or 1, target], rows of the position table instead of counted ones.
            labels: [batch] or [batch, labels], see `classification_loss`.

        The other arguments are `TransformerStack.forward`'s.

        Raises:
            ValueError: inputs or labels that do not fit, more tokens than there are positions, a row without
                tokens, or several rows without a `pad_token_id`.
        """
        output = self.transformer.run_padded(
            input_ids,
            inputs_embeds,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        hidden = output.last_hidden_state
        last = self._last(input_ids, attention_mask, hidden)
        logits = self._logits(hidden[torch.arange(len(hidden), device=hidden.device), last])
        finished = SequenceClassifierOutputWithPast(
            loss=None if labels is None else classification_loss(logits, labels, self.config),
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return as_asked(finished, return_dict, self.config)

    def _last(self, input_ids: Tensor | None, attention_mask: Tensor | None, hidden: Tensor) -> Tensor:
        """The place of the token that each row is read at: int64 [batch]."""
        batch, width = hidden.shape[:2]
        padding = self.config.pad_token_id
        if padding is None and batch > 1:
            raise ValueError(
                f"a batch of {batch} texts needs pad_token_id in the configuration, which is None, to tell "
                "where each ends; set it to the tokenizer's, or give one text at a time"
            )
        seen = None if attention_mask is None else attention_mask[:, -width:]
        there = as_mask(seen, batch, width, hidden.device, "attention_mask")
        if not bool(there.any(1).all()):
            raise ValueError("attention_mask has a row without tokens; every text needs at least one")
        counted = there if input_ids is None or padding is None else there & (input_ids != padding)
        last = (torch.arange(width, device=hidden.device) * counted).amax(1)
        return torch.where(counted.any(1), last, there.int().argmax(1))

    # What the engine drives: packed in, a row of logits a text out.

    def encoder_length(self, tokens: int) -> int:
        """Positions for so many tokens.

        Raises:
            ValueError: none at all, or more than there are.
        """
        limit = self.transformer.positions.limit
        if not 1 <= tokens <= limit:
            raise ValueError(
                f"a text of {tokens} tokens, and the model takes 1 to {limit}; let the tokenizer truncate it "
                f"(truncation=True, max_length={limit})"
            )
        return tokens

    def predict(self, features: Tensor, cu_tokens: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """The logits of packed texts, for `EncoderOnlyModel`.

        Args:
            features: int64 [tokens, 1], or [tokens, 2] with token types.
            cu_tokens: int32 [n + 1].

        Returns:
            logits, float32 [n, labels], and their cu_seqlens.
        """
        token_ids = features[:, 0].contiguous()
        token_types = features[:, 1].contiguous() if features.shape[1] > 1 else None
        padding = self.config.pad_token_id
        last = last_places(cu_tokens, None if padding is None else token_ids != padding)
        hidden = self.transformer.packed_sequences(token_ids, cu_tokens, token_types, last)
        logits = self._logits(hidden).float()
        return {"logits": (logits, cumulative([1] * len(logits), logits.device))}

    def _logits(self, rows: Tensor) -> Tensor:
        return linear(rows, self.score.weight)

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.transformer.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding."""
        self.transformer.wte = value


class GPT2ForSequenceClassification(LastTokenClassifier, GPT2Checkpoint):
    """GPT-2 with a map of each text's last token to labels."""

    base_class = GPT2Model
    ignored_keys: ClassVar[tuple[str, ...]] = (*GPT2Checkpoint.ignored_keys, r"^lm_head\.")
