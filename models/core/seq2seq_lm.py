"""Language-modeling head over an encoder-decoder model whose `model` has transformers' inputs."""

from typing import Any

from torch import Tensor

from .causal_lm import CausalLM
from .losses import cross_entropy, shift_right
from .outputs import Seq2SeqLMOutput


class Seq2SeqLM(CausalLM):
    """Base of encoder-decoder models with a language-modeling head: logits, and with labels the loss.

    A subclass has `model`, the encoder-decoder model without the head.
    """

    model: Any

    def forward_named(self, *, labels: Tensor | None = None, **inputs: Any) -> Seq2SeqLMOutput:  # type: ignore[override]
        """Implement `forward`, with keyword arguments only."""
        decoder_inputs = (inputs.get("decoder_input_ids"), inputs.get("decoder_inputs_embeds"))
        if labels is not None and decoder_inputs == (None, None):
            inputs["decoder_input_ids"] = shift_right(
                labels, self.config.pad_token_id, self.config.decoder_start_token_id
            )
        inner = self.model.forward_named(**inputs)
        hidden = inner.last_hidden_state
        logits = self.logits(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
        loss = None if labels is None else cross_entropy(logits, labels)
        return Seq2SeqLMOutput.from_base(inner, loss=loss, logits=logits)
