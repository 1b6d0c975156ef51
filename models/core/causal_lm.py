"""Text decoders with a language-modeling head: logits, loss, and the methods that generation calls."""

from operator import attrgetter
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from .attention import DecoderAttention
from .forward import OUTPUT_FLAGS, declare_forward
from .layers import apply_linear
from .losses import cross_entropy, shift_left
from .model import PretrainedModel
from .outputs import CausalLMOutputWithCrossAttentions
from .parameters import ParametersMixin
from .stack import TransformerStack

# First line of the docstring of every decoder's `forward`.
NEXT_TOKEN_LOGITS = "Logits after every given token, and with labels the loss."


class CausalLM(ParametersMixin, PretrainedModel):
    """Text decoder with a language-modeling head.

    A family names its decoder (`decoder_name`) and its head, or computes logits by its own `logits`.
    `SpeechEncoderDecoderModel` combines it with an encoder and generates.
    """

    decoder_name: ClassVar[str]  # attribute of the decoder, or a path
    head_name: ClassVar[str] = "lm_head"  # attribute of the language-modeling head
    # Labels are the input tokens, compared with the logits one position before; False where the caller has
    # shifted them (BART and models derived from it).
    shifts_labels: ClassVar[bool] = True
    lm_head: nn.Linear

    # Argument order of BART and Speech2Text2; other families declare their own.
    forward = declare_forward(
        NEXT_TOKEN_LOGITS,
        "input_ids attention_mask encoder_hidden_states encoder_attention_mask head_mask "
        f"cross_attn_head_mask past_key_values inputs_embeds labels use_cache {OUTPUT_FLAGS} "
        "logits_to_keep",
    )

    def forward_named(
        self, *, labels: Tensor | None = None, logits_to_keep: int = 0, **inputs: Any
    ) -> CausalLMOutputWithCrossAttentions:
        """Implement `forward`, with keyword arguments; the decoder's go to `TransformerStack.run_padded`."""
        output = self.get_decoder().run_padded(**inputs)
        hidden = output.last_hidden_state[:, -logits_to_keep:]
        logits = self.logits(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
        loss = None
        if labels is not None:
            loss = cross_entropy(logits, shift_left(labels) if self.shifts_labels else labels)
        return CausalLMOutputWithCrossAttentions.from_base(output, loss=loss, logits=logits)

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the language-modeling head: hidden states [tokens, width] to logits [tokens, vocabulary]."""
        return apply_linear(self.get_output_embeddings(), hidden, phase="decode")

    # Methods that the generation loop calls, with packed inputs and outputs.

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """Shape of the key-value cache: (layers, heads, head_dim)."""
        sizes = self.get_decoder().sizes
        return sizes.layers, sizes.heads, sizes.width // sizes.heads

    @property
    def max_length(self) -> int:
        """Maximum sequence length in tokens, including the start token."""
        return self.get_decoder().max_tokens

    def cross_key_values(self, encoded: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Cross-attention keys and values of encoder tokens [tokens, width], for each layer.

        Returns:
            One pair per layer, [tokens, heads, head_dim] each.
        """
        return self.get_decoder().cross_key_values(encoded)

    def decode_hidden(self, token_ids: Tensor, positions: Tensor, attention: DecoderAttention) -> Tensor:
        """Hidden states [tokens, width], which `logits` takes; arguments as in `decode`."""
        return self.get_decoder().forward_packed(token_ids, positions, attention)

    def decode(self, token_ids: Tensor, positions: Tensor, attention: DecoderAttention) -> Tensor:
        """Logits [tokens, vocabulary] of the next token after each of `token_ids` [tokens].

        Args:
            token_ids: int [tokens].
            positions: int [tokens], each token's position in its sequence, from 0.
            attention: attention to the cached tokens and the encoder's.
        """
        return self.logits(self.decode_hidden(token_ids, positions, attention))

    def get_decoder(self) -> TransformerStack:
        """Decoder stack, which takes padded tokens as in transformers."""
        return cast(TransformerStack, attrgetter(self.decoder_name)(self))

    def get_input_embeddings(self) -> nn.Embedding:
        return self.get_decoder().get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.get_decoder().set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        return cast(nn.Linear, getattr(self, self.head_name))

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the language-modeling head."""
        setattr(self, self.head_name, new_embeddings)
