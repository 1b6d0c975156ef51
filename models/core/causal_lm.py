"""Text decoders with a map to the vocabulary: logits, loss, and the generation contract."""

from typing import Any, ClassVar, cast

from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from .attention import DecoderAttention
from .forward import OUTPUT_FLAGS, declare_forward
from .losses import cross_entropy, shift_left
from .model import PretrainedModel
from .outputs import CausalLMOutputWithCrossAttentions
from .parameters import ParametersMixin
from .stack import TransformerStack

# The first line of every decoder's `forward`.
NEXT_TOKEN_LOGITS = "Logits after every given token, and with labels the loss."


class CausalLM(ParametersMixin, PretrainedModel):
    """Text decoder with a map from its hidden states to the vocabulary.

    A family names its decoder (`decoder_name`) and makes logits by `lm_head`, or by its own `logits`. With an
    encoder's `encode` it has the generation contract: `SpeechEncoderDecoderModel` generates.
    """

    decoder_name: ClassVar[str]  # attribute of the decoder, or a path
    # Labels are the tokens themselves, compared with the logits one position before; else the caller has
    # shifted them (BART and its kin).
    shifts_labels: ClassVar[bool] = True
    lm_head: nn.Linear

    # The order of BART and Speech2Text2; other families declare their own.
    forward = declare_forward(
        NEXT_TOKEN_LOGITS,
        "input_ids attention_mask encoder_hidden_states encoder_attention_mask head_mask "
        f"cross_attn_head_mask past_key_values inputs_embeds labels use_cache {OUTPUT_FLAGS} "
        "logits_to_keep",
    )

    def forward_named(
        self, *, labels: Tensor | None = None, logits_to_keep: int = 0, **inputs: Any
    ) -> CausalLMOutputWithCrossAttentions:
        """`forward` with its arguments by name; the decoder's go to `TransformerStack.run_padded`.

        Raises:
            ValueError: inputs that are missing or do not fit, or more tokens than there are positions.
        """
        output = self.get_decoder().run_padded(**inputs)
        hidden = output.last_hidden_state[:, -logits_to_keep:]
        logits = self.logits(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
        loss = None
        if labels is not None:
            loss = cross_entropy(logits, shift_left(labels) if self.shifts_labels else labels)
        return CausalLMOutputWithCrossAttentions.from_base(output, loss=loss, logits=logits)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [tokens, width] to logits [tokens, vocabulary]."""
        head = self.get_output_embeddings()
        return linear(hidden, head.weight, head.bias, phase="decode")

    # Contract with the generation loop: packed in, packed out.

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """Layers, heads and head_dim of the cached keys and values."""
        sizes = self.get_decoder().sizes
        return sizes.layers, sizes.heads, sizes.width // sizes.heads

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence, the start token counted."""
        return self.get_decoder().max_tokens

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
            positions: int [tokens], each token's position in its sequence, from 0.
            attention: the layout and cache to attend in.
        """
        return self.logits(self.get_decoder().forward_packed(token_ids, positions, attention))

    def get_decoder(self) -> TransformerStack:
        """Decoder, which takes padded tokens as in transformers."""
        return cast(TransformerStack, self.get_submodule(self.decoder_name))

    def get_input_embeddings(self) -> nn.Embedding:
        """Token embedding of the decoder."""
        return self.get_decoder().get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding; `tie_weights` makes the output map follow."""
        self.get_decoder().set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        """Map to the vocabulary."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the map to the vocabulary."""
        self.lm_head = new_embeddings
