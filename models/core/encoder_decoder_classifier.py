"""Classifiers of text with an encoder and a decoder (BART, T5): what the decoder makes of the last end token.

The decoder reads what the encoder does, a place later, and its hidden state at the end token is the text's.
"""

from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ...scheduler.model_protocol import Task
from .chunks import in_chunks
from .classification import classification_loss, last_rows, one_row_each
from .encoder_decoder import TextToTextModel
from .model import PretrainedModel
from .outputs import BaseModelOutput, Seq2SeqSequenceClassifierOutput, as_asked
from .padding import as_mask
from .parameters import ParametersMixin

# What a processor takes at a time, as in Speech2Text's encoder.
_CACHED_TOKENS = 1024


class ClassificationHead(nn.Module):
    """Two linear maps with tanh between them.

    Args:
        width: of the hidden states.
        labels: how many.
        dropout: before each map, in training.
    """

    def __init__(self, width: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.dense = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """[rows, width] to [rows, labels]."""
        pooled = F.dropout(pooled, self.dropout, self.training)
        inner = linear(pooled, self.dense.weight, self.dense.bias, activation="tanh")
        inner = F.dropout(inner, self.dropout, self.training)
        return linear(inner, self.out_proj.weight, self.out_proj.bias)


class TextToTextClassifier(ParametersMixin, PretrainedModel):
    """A model with encoder and decoder, and a head; a family gives its `base_name` and makes both.

    Its constructor sets `classification_head` and, as the attribute of `base_name`, the model without a head.
    """

    task: ClassVar[Task] = Task.SEQUENCE_CLASSIFICATION
    has_token_types: ClassVar[bool] = False
    base_name: ClassVar[str]  # the attribute that it is, and its name in checkpoints
    main_input_name: ClassVar[str] = "input_ids"
    # A checkpoint without a head for this task is fine: it is what is trained.
    fresh_keys: ClassVar[tuple[str, ...]] = (r"^classification_head\.",)
    classification_head: ClassificationHead

    @property
    def base(self) -> TextToTextModel:
        """The model without its head."""
        return cast(TextToTextModel, getattr(self, self.base_name))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Seq2SeqSequenceClassifierOutput | tuple[Any, ...]:
        """Logits of a padded batch, each row's what they would be alone, and with labels the loss.

        Args:
            input_ids: int64 [batch, source], with as many end tokens in every row; the hidden state at the
                last one is what is classified.
            attention_mask: [batch, source], 1 for tokens that are there; all by default. Padding may lie on
                either side.
            decoder_input_ids, decoder_inputs_embeds: what the decoder reads instead of the input a place
                later, as many tokens as there are in `input_ids`.
            decoder_attention_mask: [batch, source]; `attention_mask` where the decoder reads the input.
            labels: [batch], or [batch, labels]; see `classification.classification_loss`. Nothing is kept for
                a next call then.

        The other arguments are `TextToTextModel.forward`'s.

        Raises:
            NotImplementedError: inputs_embeds without input_ids: there is no telling the end tokens.
            ValueError: inputs or labels that are missing or do not fit, rows with different numbers of end
                tokens or none.
        """
        if input_ids is None:
            if inputs_embeds is not None:
                raise NotImplementedError(
                    f"{type(self).__name__} finds the end token in input_ids; give those instead of "
                    "inputs_embeds"
                )
            raise ValueError("input_ids is missing; give token ids [batch, source]")
        if input_ids.dim() != 2:
            raise ValueError(f"input_ids must be [batch, source], got {list(input_ids.shape)}")
        batch, source = input_ids.shape
        mask = as_mask(attention_mask, batch, source, input_ids.device, "attention_mask")
        last = _last_of_rows(self._ends(input_ids) & mask)
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.base.padded_one_later(input_ids, mask)
            decoder_attention_mask = mask if decoder_attention_mask is None else decoder_attention_mask
        inner = self.base(
            input_ids if inputs_embeds is None else None,
            mask,
            decoder_input_ids,
            decoder_attention_mask,
            encoder_outputs,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache if labels is None else False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        hidden = inner.last_hidden_state
        if hidden.shape[1] != input_ids.shape[1]:
            raise ValueError(
                f"the decoder was given {hidden.shape[1]} tokens a row, and input_ids has "
                f"{input_ids.shape[1]}; the end token must have one place in both, give as many"
            )
        logits = self.classification_head(hidden[torch.arange(len(last), device=last.device), last])
        output = Seq2SeqSequenceClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config),
            logits=logits,
            past_key_values=inner.past_key_values,
            decoder_hidden_states=inner.decoder_hidden_states,
            decoder_attentions=inner.decoder_attentions,
            cross_attentions=inner.cross_attentions,
            encoder_last_hidden_state=inner.encoder_last_hidden_state,
            encoder_hidden_states=inner.encoder_hidden_states,
            encoder_attentions=inner.encoder_attentions,
        )
        return as_asked(output, return_dict, self.config)

    # Encoder-only requests: packed in, a row of logits a text out.

    def encoder_length(self, tokens: int) -> int:
        """Encoder tokens for so many tokens: the same.

        Raises:
            ValueError: more than the model has positions for.
        """
        limit = self.base.encoder.positions.limit
        if not 0 < tokens <= limit:
            raise ValueError(
                f"a text of {tokens} tokens, and the model takes 1 to {limit}; "
                + (f"cut it with truncation=True, max_length={limit}" if tokens else "give one that has some")
            )
        return tokens

    def predict(self, features: Tensor, cu_tokens: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Logits of packed texts, for `EncoderOnlyModel`.

        Args:
            features: int64 [tokens, 1].
            cu_tokens: int32 [n + 1].

        Returns:
            logits, float32 [n, labels], with their cu_rows.

        Raises:
            ValueError: features of another shape, a text without an end token, or (on the CPU) tokens that
                the model does not know.
        """
        if features.dim() != 2 or features.shape[1] != 1:
            raise ValueError(f"token ids must be [tokens, 1], got {list(features.shape)}")
        if features.device.type == "cpu":
            self._check(features)
            logits, cu_rows = in_chunks(self._logits, features, cu_tokens, _CACHED_TOKENS)
        else:
            logits, cu_rows = self._logits(features, cu_tokens)
        return {"logits": (logits, cu_rows)}

    def _logits(self, features: Tensor, cu_tokens: Tensor) -> tuple[Tensor, Tensor]:
        token_ids = features[:, 0]
        ends = self._ends(token_ids)
        before = torch.cat([ends.new_zeros(1, dtype=torch.int64), ends.cumsum(0)])[cu_tokens.long()]
        if not bool((before.diff() > 0).all()):
            text = int((before.diff() == 0).nonzero()[0])
            raise ValueError(
                f"text {text} of the batch has no end token ({self.config.eos_token_id}), which is what is "
                "classified; put one behind it, as the tokenizer does"
            )
        pooled = last_rows(self.base.packed(token_ids, cu_tokens), cu_tokens, ends)
        return self.classification_head(pooled).float(), one_row_each(cu_tokens)

    def _check(self, token_ids: Tensor) -> None:
        most = self.get_input_embeddings().weight.shape[0] - 1
        if token_ids.numel() and not 0 <= int(token_ids.min()) <= int(token_ids.max()) <= most:
            raise ValueError(
                f"token ids go from {int(token_ids.min())} to {int(token_ids.max())}, and the model knows "
                f"tokens 0 to {most}; use its own tokenizer"
            )

    def _ends(self, token_ids: Tensor) -> Tensor:
        """Which tokens are end tokens."""
        ends = self.config.eos_token_id
        if ends is None:
            raise ValueError("eos_token_id is None in the configuration, and its place is what is classified")
        first, *others = [ends] if isinstance(ends, int) else ends
        found = token_ids == first
        for other in others:
            found |= token_ids == other
        return found

    def get_encoder(self) -> nn.Module:
        """The encoder, which takes padded tokens as in transformers."""
        return self.base.get_encoder()

    def get_decoder(self) -> nn.Module:
        """The decoder, which takes padded tokens as in transformers."""
        return self.base.get_decoder()

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.base.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding, of encoder and decoder too."""
        self.base.set_input_embeddings(value)

    def tie_weights(self) -> None:
        """See `TextToTextModel`."""
        self.base.tie_weights()

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """See `TextToTextModel`."""
        return self.base.resize_token_embeddings(*args, **kwargs)


def _last_of_rows(ends: Tensor) -> Tensor:
    """The last place in each row of a bool [batch, tokens]: int64 [batch].

    Raises:
        ValueError: rows with different numbers of them, or none.
    """
    counts = ends.sum(1)
    if counts.numel() and (int(counts.min()) != int(counts.max()) or int(counts.min()) == 0):
        raise ValueError(
            f"all rows must have the same number of end tokens (<eos>), at least one; these have "
            f"{counts.tolist()}"
        )
    places = torch.arange(ends.shape[1], device=ends.device)
    return torch.where(ends, places, 0).amax(1)
