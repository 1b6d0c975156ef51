"""Encoder-decoder classifiers of text (BART, T5): a head on the decoder's last end token.

The decoder reads the encoder's input shifted right; its hidden state at the end token represents the text.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .chunks import in_chunks
from .classification import ClassificationHead, end_tokens, labels_of, last_end_token, no_end_token, one_each
from .encoder_decoder import TextToTextModel
from .forward import OUTPUT_FLAGS, declare_forward
from .outputs import ModelOutput, Seq2SeqSequenceClassifierOutput
from .padding import as_mask
from .sequence_classifier import LOGITS, Pooling, SequenceClassifier

# Tokens of a chunk on the CPU, as in Speech2Text's encoder.
_MAX_CHUNK_TOKENS = 1024


class TextToTextClassifier(SequenceClassifier):
    """Encoder-decoder model with a classification head; `base_class` is a family's model without head."""

    base_class: ClassVar[type[TextToTextModel]]

    pooling: ClassVar[Pooling] = staticmethod(last_end_token)
    output_class: ClassVar[type[ModelOutput]] = Seq2SeqSequenceClassifierOutput
    has_token_types: ClassVar[bool] = False
    # A checkpoint of a pretrained model has no head; it is randomly initialized then.
    fresh_keys: ClassVar[tuple[str, ...]] = (r"^classification_head\.",)
    forward = declare_forward(
        f"{LOGITS} Every row of input_ids has the same number of end tokens, and the last is classified; "
        "decoder inputs, by default the input shifted right, have as many tokens.",
        "input_ids attention_mask decoder_input_ids decoder_attention_mask encoder_outputs "
        f"inputs_embeds decoder_inputs_embeds labels use_cache {OUTPUT_FLAGS}",
    )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        setattr(self, self.base_name, self.base_class(config))
        self.classification_head = ClassificationHead(
            config.d_model, labels_of(config), config.classifier_dropout
        )
        self.initialize()

    def forward_named(
        self,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        **inputs: Any,
    ) -> ModelOutput:
        """Implement `forward`, with keyword arguments.

        Raises:
            NotImplementedError: inputs_embeds without input_ids, in which the end tokens are found.
            ValueError: inputs or labels that are missing or do not fit, rows without end tokens or with
                different numbers of them.
        """
        if input_ids is None:
            if inputs.get("inputs_embeds") is not None:
                raise NotImplementedError(
                    f"{type(self).__name__} finds the end token in input_ids; give those instead of "
                    "inputs_embeds"
                )
            raise ValueError("input_ids is missing; give token ids [batch, source]")
        if input_ids.dim() != 2:
            raise ValueError(f"input_ids must be [batch, source], got {list(input_ids.shape)}")
        batch, source = input_ids.shape
        mask = as_mask(attention_mask, batch, source, input_ids.device, "attention_mask")
        _check_counts((end_tokens(self.config, input_ids) & mask).sum(1))
        if inputs.get("decoder_input_ids") is None and inputs.get("decoder_inputs_embeds") is None:
            inputs["decoder_input_ids"] = self.base.shift_right_padded(input_ids, mask)
            decoder_attention_mask = mask if decoder_attention_mask is None else decoder_attention_mask
        return super().forward_named(
            labels=labels,
            input_ids=input_ids,
            attention_mask=mask,
            decoder_attention_mask=decoder_attention_mask,
            use_cache=use_cache if labels is None else False,
            **inputs,
        )

    def run_base(self, **inputs: Any) -> Any:
        input_ids = inputs["input_ids"]
        if inputs.get("inputs_embeds") is not None:
            inputs["input_ids"] = None
        output = self.base.forward_named(**inputs)
        tokens = output.last_hidden_state.shape[1]
        if tokens != input_ids.shape[1]:
            raise ValueError(
                f"the decoder was given {tokens} tokens a row, and input_ids has {input_ids.shape[1]}; the "
                "end token must have one position in both, give as many"
            )
        return output

    def classify(self, pooled: Tensor) -> Tensor:
        return self.classification_head(pooled)

    def check_text(self, token_ids: list[int]) -> None:
        """Validate that a text has an end token."""
        if not bool(end_tokens(self.config, torch.tensor(token_ids)).any()):
            raise no_end_token(self.config, "the text")

    def packed_logits(self, token_ids: Tensor, cu_tokens: Tensor, token_types: Tensor | None) -> Tensor:
        """Logits [texts, labels] of packed texts, on the CPU computed in chunks of texts."""

        def run(token_ids: Tensor, cu_tokens: Tensor) -> tuple[Tensor, Tensor]:
            logits = super(TextToTextClassifier, self).packed_logits(token_ids, cu_tokens, None)
            return logits, one_each(cu_tokens)

        if token_ids.device.type != "cpu":
            return run(token_ids, cu_tokens)[0]
        return in_chunks(run, token_ids, cu_tokens, _MAX_CHUNK_TOKENS)[0]

    def get_encoder(self) -> nn.Module:
        """Encoder stack, which takes padded tokens as in transformers."""
        encoder: nn.Module = self.base.get_encoder()
        return encoder

    def get_decoder(self) -> nn.Module:
        """Decoder stack, which takes padded tokens as in transformers."""
        decoder: nn.Module = self.base.get_decoder()
        return decoder

    def tie_weights(self) -> None:
        """Tie the token embeddings of encoder and decoder to the shared one."""
        self.base.tie_weights()

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize the shared token embedding; arguments as in `ParametersMixin.resize_token_embeddings`."""
        embedding: nn.Embedding = self.base.resize_token_embeddings(*args, **kwargs)
        return embedding


def _check_counts(counts: Tensor) -> None:
    """Check that all rows have the same number of end tokens, int64 [batch], at least one."""
    if counts.numel() and (int(counts.min()) != int(counts.max()) or int(counts.min()) == 0):
        raise ValueError(
            f"all rows must have the same number of end tokens (<eos>), at least one; these have "
            f"{counts.tolist()}"
        )
