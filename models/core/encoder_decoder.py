"""Encoder-decoder models of text (BART, T5), without a head."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...kernels.runtime.packing import positions_within
from .attention import StackAttention, Unpaged
from .forward import OUTPUT_FLAGS, declare_forward
from .layers import select
from .model import PretrainedModel
from .outputs import Seq2SeqModelOutput, as_encoder_output
from .padding import as_mask
from .parameters import ParametersMixin
from .stack import TransformerStack


class TeacherForcedAttention(Unpaged):
    """Decoder attention over whole packed sequences, with cross-attention to an encoder's packed output.

    Args:
        own: self-attention of the decoder's tokens.
        layers: decoder layers, which project the encoder's output to keys and values.
        encoded: [source tokens, width], packed encoder output of the same sequences.
        cu_encoded: int32 [n + 1], cu_seqlens of `encoded`.
    """

    crosses = True

    def __init__(
        self, own: StackAttention, layers: nn.ModuleList, encoded: Tensor, cu_encoded: Tensor
    ) -> None:
        self.self_attention = own.self_attention
        self.cross = StackAttention(own.cu_query, cu_encoded)
        self.layers: Any = layers
        self.encoded = encoded

    def cross_attention(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Cross-attention to the encoder's keys and values, [tokens, heads, head_dim] in and out.

        Keys and values are computed when their layer runs: those of all layers together would be the largest
        tensors of a call.
        """
        key, value = self.layers[layer].cross.key_values(self.encoded)
        return self.cross.self_attention(layer, query, key, value, scale)


class TextToTextModel(ParametersMixin, PretrainedModel):
    """Encoder-decoder model of text with a token embedding that encoder and decoder can share.

    A family's constructor sets `shared`, `encoder` and `decoder`; the latter two have a token embedding
    `embed_tokens` each, tied to `shared` where `ties_embeddings` is True.
    """

    # A decoder without inputs of its own reads the encoder's input, shifted right.
    reads_input: ClassVar[bool] = False
    embedding_name = "shared"
    shared: nn.Embedding
    encoder: TransformerStack
    decoder: TransformerStack

    @property
    def ties_embeddings(self) -> bool:
        """True where encoder and decoder share the token embedding."""
        return bool(self.config.tie_word_embeddings)

    forward = declare_forward(
        "Teacher-forced hidden states of every decoder token, each row's equal to those of the row alone.",
        "input_ids attention_mask decoder_input_ids decoder_attention_mask encoder_outputs "
        f"past_key_values inputs_embeds decoder_inputs_embeds use_cache {OUTPUT_FLAGS}",
    )

    def forward_named(
        self,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **flags: Any,
    ) -> Seq2SeqModelOutput:
        """Implement `forward`, with keyword arguments."""
        if self.reads_input and input_ids is not None and decoder_input_ids is decoder_inputs_embeds is None:
            decoder_input_ids = self.shift_right_padded(input_ids, attention_mask)
            if decoder_attention_mask is None:
                decoder_attention_mask = attention_mask
        if encoder_outputs is not None:
            encoded: Any = as_encoder_output(encoder_outputs)
        else:
            encoded = self.encoder.run_padded(
                input_ids, inputs_embeds, attention_mask=attention_mask, use_cache=False, **flags
            )
        decoded = self.decoder.run_padded(
            decoder_input_ids,
            decoder_inputs_embeds,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **flags,
        )
        return Seq2SeqModelOutput.from_halves(encoded, decoded)

    @property
    def max_tokens(self) -> int:
        """Maximum length of a text in tokens."""
        return self.encoder.max_tokens

    def check_token_types(self, token_types: Tensor | None) -> None:
        """Accept token types, which are None: these models have no table of them."""

    def forward_sequences(
        self,
        token_ids: Tensor,
        cu_tokens: Tensor,
        token_types: Tensor | None = None,
        selected: Tensor | None = None,
    ) -> Tensor:
        """Decoder hidden states of packed texts that encoder and decoder both read.

        Args:
            token_ids: int [tokens], packed texts of at least one token each.
            cu_tokens: int32 [n + 1], cu_seqlens of the texts.
            token_types: None; ignored.
            selected: int64, indices of the tokens to return; all by default.

        Returns:
            [tokens, width].
        """
        encoded = self.encoder.forward_sequences(token_ids, cu_tokens)
        own = self.decoder.packed_attention(cu_tokens, cu_tokens)
        attention = TeacherForcedAttention(own, self.decoder.layer_stack, encoded, cu_tokens)
        positions = positions_within(cu_tokens, token_ids.shape[0])
        shifted = self.shift_right(token_ids, positions == 0)
        return select(self.decoder.forward_packed(shifted, positions, attention), selected)

    def shift_right(self, token_ids: Tensor, first: Tensor) -> Tensor:
        """Shift packed texts right for the decoder: the start token, then each text's tokens but the last.

        Args:
            token_ids: int [tokens], packed; a -100 becomes the padding token.
            first: bool [tokens], True for the first token of each text.

        Raises:
            ValueError: a configuration without a start token.
        """
        start, padding = self.config.decoder_start_token_id, self.config.pad_token_id
        if start is None:
            raise ValueError(
                "decoder_start_token_id is None in the configuration, and the decoder reads the input behind "
                "its start token; set it (in T5 it usually is pad_token_id), or give decoder_input_ids"
            )
        shifted = torch.where(first, start, token_ids.roll(1))
        return shifted if padding is None else shifted.masked_fill(shifted == -100, padding)

    def shift_right_padded(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Shift each padded row's real tokens right for the decoder; [batch, source] in and out."""
        batch, source = input_ids.shape
        mask = as_mask(attention_mask, batch, source, input_ids.device, "attention_mask")
        first = mask & (mask.cumsum(1) == 1)
        shifted = input_ids.clone()
        shifted[mask] = self.shift_right(input_ids[mask], first[mask])
        return shifted

    def get_encoder(self) -> TransformerStack:
        """Encoder stack, which takes padded tokens as in transformers."""
        return self.encoder

    def get_decoder(self) -> TransformerStack:
        """Decoder stack, which takes padded tokens as in transformers."""
        return self.decoder

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the shared token embedding and those of encoder and decoder."""
        self.shared = value
        self.encoder.embed_tokens = value
        self.decoder.embed_tokens = value

    def tie_weights(self) -> None:
        """Tie the token embeddings of encoder and decoder to the shared one, where `ties_embeddings`."""
        if self.ties_embeddings:
            for stack in (self.encoder, self.decoder):
                stack.get_input_embeddings().weight = self.shared.weight

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize the shared token embedding; arguments as in `ParametersMixin.resize_token_embeddings`.

        Raises:
            ValueError: as there, and where encoder and decoder have token embeddings of their own.
        """
        if not self.ties_embeddings:
            raise ValueError(
                "encoder and decoder have token embeddings of their own (tie_word_embeddings=False); resize "
                "a model whose embedding is shared"
            )
        tokens = super().resize_token_embeddings(*args, **kwargs)
        self.set_input_embeddings(tokens)
        return tokens
