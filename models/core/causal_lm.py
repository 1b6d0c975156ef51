"""What every text decoder with a map to the vocabulary shares: logits, loss, and the generation contract."""

from typing import Any, ClassVar

from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from .attention import DecoderAttention, HeadMask
from .losses import cross_entropy, shift_left
from .model import PretrainedModel
from .outputs import BaseModelOutputWithPastAndCrossAttentions, CausalLMOutputWithCrossAttentions, as_asked
from .parameters import ParametersMixin
from .stack import TransformerStack


class CausalLM(ParametersMixin, PretrainedModel):
    """A text decoder and the map from its hidden states to the vocabulary.

    A family says where its decoder lies (`get_decoder`), and what makes its logits: `get_output_embeddings`,
    or `logits` where there is more to it than that. `encode` is not among what it offers: a
    `SpeechEncoderDecoderModel` has an encoder, and generates.
    """

    # Whether labels lie as input_ids do, so that logits are compared with those one place further; else the
    # caller has shifted them (BART and its kin).
    shifts_labels: ClassVar[bool] = True

    def get_decoder(self) -> TransformerStack:
        """The decoder, which takes padded tokens as in transformers."""
        raise NotImplementedError

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [tokens, width] to logits [tokens, vocabulary]."""
        head = self.get_output_embeddings()
        assert head is not None
        return linear(hidden, head.weight, head.bias, phase="decode")

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        head_mask: HeadMask | None = None,
        cross_attn_head_mask: HeadMask | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int = 0,
    ) -> CausalLMOutputWithCrossAttentions | tuple[Any, ...]:
        """Logits after every given token, and with labels the loss; see `TransformerStack.forward`.

        The order is that of BART and Speech2Text2; families with another one call `TransformerStack.run_padded`
        and `finish` themselves.

        Args:
            labels: int64 [batch, target], -100 where nothing is to be predicted. A label belongs to the token
                in its own place where `shifts_labels`, and to the one before it otherwise.
            logits_to_keep: return those of so many last places alone; all for 0.

        Raises:
            ValueError: inputs that are missing or do not fit, or more tokens than there are positions.
        """
        output = self.get_decoder().run_padded(
            input_ids,
            inputs_embeds,
            attention_mask=attention_mask,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            head_mask=head_mask,
            cross_attn_head_mask=cross_attn_head_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        return self.finish(output, labels, logits_to_keep, return_dict)

    def finish(
        self,
        output: BaseModelOutputWithPastAndCrossAttentions,
        labels: Tensor | None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithCrossAttentions | tuple[Any, ...]:
        """What `forward` returns of what the decoder returned; arguments are those of `forward`."""
        hidden = output.last_hidden_state[:, -logits_to_keep:]
        logits = self.logits(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
        loss = None
        if labels is not None:
            loss = cross_entropy(logits, shift_left(labels) if self.shifts_labels else labels)
        finished = CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            cross_attentions=output.cross_attentions,
        )
        return as_asked(finished, return_dict, self.config)

    # What the generation loop drives, packed in and packed out; together with an encoder's `encode`.

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """Layers, heads and head_dim of the keys and values to keep."""
        sizes = self.get_decoder().sizes
        return sizes.layers, sizes.heads, sizes.width // sizes.heads

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence, the start token counted."""
        return self.get_decoder().positions.limit

    def cross_key_values(self, encoded: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each layer's cross-attention keys and values of encoder tokens [tokens, width].

        Returns:
            A pair a layer, [tokens, heads, head_dim] each.
        """
        return self.get_decoder().cross_key_values(encoded)

    def decode(self, token_ids: Tensor, positions: Tensor, attention: DecoderAttention) -> Tensor:
        """Logits [tokens, vocabulary] of the next token after each of `token_ids` [tokens].

        Args:
            token_ids: int [tokens].
            positions: int [tokens], each token's place in its sequence, from 0.
            attention: the layout and cache to attend in.
        """
        return self.logits(self.get_decoder().packed(token_ids, positions, attention))

    def get_input_embeddings(self) -> nn.Embedding:
        """The decoder's token embedding."""
        return self.get_decoder().get_input_embeddings()
