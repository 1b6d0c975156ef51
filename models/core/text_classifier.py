"""What classifiers of texts share whose layers see the whole text: BERT and its kin."""

from typing import Any, ClassVar, cast

from torch import Tensor, nn

from ...scheduler.model_protocol import Task
from ..bert.layers import check_token_types
from .classification import classification_loss, first_of_padded, one_row_each
from .model import PretrainedModel
from .outputs import SequenceClassifierOutput, as_asked
from .padding import as_mask
from .parameters import ParametersMixin
from .stack import TransformerStack


class TextClassifier(ParametersMixin, PretrainedModel):
    """An encoder of texts with a head that reads each text's first token.

    A family says where the encoder lies (`base_name`) and what its head is (`classify`).
    """

    task: ClassVar[Task] = Task.SEQUENCE_CLASSIFICATION
    base_name: ClassVar[str]
    main_input_name: ClassVar[str] = "input_ids"
    # Whether there is a second column of features, and an argument, for the types of tokens.
    has_token_types: ClassVar[bool] = True

    @property
    def base(self) -> TransformerStack:
        """The model without its head."""
        return cast(TransformerStack, getattr(self, self.base_name))

    def classify(self, first: Tensor) -> Tensor:
        """First tokens' hidden states [texts, width] to logits [texts, labels]."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Logits of a padded batch, each row's what they would be alone, and with labels the loss.

        So padding on the left changes nothing either. (transformers counts BERT's positions from the first
        column, and reads the pooled token there, padding or not: its logits of a text that is padded on the
        left are others. RoBERTa's positions are counted from the text's own first token, but the token in the
        first column is read there too.)

        Args:
            input_ids: int64 [batch, tokens].
            attention_mask: [batch, tokens], 1 for tokens that are there; all by default.
            token_type_ids: int64 [batch, tokens]; 0 by default.
            position_ids: int64 [batch or 1, tokens], rows of the position table instead of counted ones.
            inputs_embeds: [batch, tokens, width] of the token embedding, instead of input_ids.
            labels: see `classification.classification_loss`.
            output_attentions, output_hidden_states, return_dict: see `TransformerStack.forward`.

        Raises:
            ValueError: inputs or labels that do not fit, more tokens than there are positions, or a row
                without any.
        """
        given = inputs_embeds if input_ids is None else input_ids
        if attention_mask is not None and given is not None and given.dim() > 1:
            rows, width = given.shape[:2]
            mask = as_mask(attention_mask, rows, width, given.device, "attention_mask")
            if not bool(mask.any(1).all()):
                raise ValueError("attention_mask has a row without tokens; every text needs at least one")
        if token_type_ids is not None:
            check_token_types(token_type_ids, self.config.type_vocab_size)
        output = self.base.run_padded(
            input_ids,
            inputs_embeds,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        logits = self.classify(first_of_padded(output.last_hidden_state, attention_mask))
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        finished = SequenceClassifierOutput(loss, logits, output.hidden_states, output.attentions)
        return as_asked(finished, return_dict, self.config)

    # What the generation loop drives: packed in, a row of logits a text out.

    def encoder_length(self, tokens: int) -> int:
        """Positions that so many tokens take.

        Raises:
            ValueError: none, or more than there are.
        """
        limit = self.base.positions.limit
        if not 0 < tokens <= limit:
            raise ValueError(
                f"a text of {tokens} tokens, and the model takes 1 to {limit}; "
                + (f"cut it with truncation=True, max_length={limit}" if tokens else "give one that has some")
            )
        return tokens

    def predict(self, features: Tensor, cu_tokens: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """The logits of packed texts, for `EncoderOnlyModel`.

        Args:
            features: int64 [tokens, 1], token ids; with their types [tokens, 2] where the family knows types.
            cu_tokens: int32 [texts + 1].

        Returns:
            logits, float32 [texts, labels], with their cu_seqlens.

        Raises:
            ValueError: features of another shape.
        """
        columns = features.shape[1] if features.dim() == 2 else 0
        if columns not in ((1, 2) if self.has_token_types else (1,)):
            more = ", or [tokens, 2] with their types" if self.has_token_types else ""
            raise ValueError(f"token ids must be [tokens, 1]{more}; got {list(features.shape)}")
        types = features[:, 1] if columns == 2 else None
        if features.device.type == "cpu":  # a GPU would have to be waited for
            self._check(features[:, 0], types)
        first = self.base.packed_sequences(features[:, 0], cu_tokens, types, cu_tokens[:-1].long())
        logits = self.classify(first).float()
        return {"logits": (logits, one_row_each(cu_tokens))}

    def _check(self, token_ids: Tensor, types: Tensor | None) -> None:
        most = self.get_input_embeddings().weight.shape[0] - 1
        if token_ids.numel() and not 0 <= int(token_ids.min()) <= int(token_ids.max()) <= most:
            raise ValueError(
                f"token ids go from {int(token_ids.min())} to {int(token_ids.max())}, and the model knows "
                f"tokens 0 to {most}; use its own tokenizer"
            )
        if types is not None:
            check_token_types(types, self.config.type_vocab_size)

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.base.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding."""
        cast(Any, self.base).set_input_embeddings(value)
