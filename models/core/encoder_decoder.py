"""Models with an encoder and a decoder that both read text (BART, T5), without a head."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...kernels.runtime.packing import positions_within
from .attention import StackAttention
from .model import PretrainedModel
from .outputs import BaseModelOutput, Seq2SeqModelOutput, as_asked, as_encoder_output
from .padding import as_mask
from .parameters import ParametersMixin
from .stack import TransformerStack


class TeacherForcedAttention:
    """Attention to all tokens of packed sequences at once, and to an encoder's packed output.

    Args:
        own: self-attention of the decoder's tokens.
        layers: the decoder's.
        encoded: [source tokens, width], of the same sequences.
        cu_encoded: int32 [n + 1].
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
        """Attend to the encoder's keys and values, [tokens, heads, head_dim] in and out.

        They are made when their layer asks for them: those of all layers would be the largest tensors of a
        call.
        """
        key, value = self.layers[layer].cross_key_value(self.encoded)
        return self.cross.self_attention(layer, query, key, value, scale)


class TextToTextModel(ParametersMixin, PretrainedModel):
    """Encoder, decoder and the token embedding that they share.

    A family makes `shared`, `encoder` and `decoder` in its constructor; the latter two have a token embedding
    `embed_tokens` each, whose weight is that of `shared` where `ties_tables`.
    """

    # Whether the decoder reads the input, a place later, where it is given nothing of its own.
    reads_input: ClassVar[bool] = False
    shared: nn.Embedding
    encoder: TransformerStack
    decoder: TransformerStack

    @property
    def ties_tables(self) -> bool:
        """Whether encoder and decoder have the token embedding in common."""
        return bool(self.config.tie_word_embeddings)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Seq2SeqModelOutput | tuple[Any, ...]:
        """Teacher-forced: hidden states of every decoder token; each row's are what they would be alone.

        Args:
            input_ids: int64 [batch, source].
            attention_mask: [batch, source], 1 for tokens that are there; all by default.
            decoder_input_ids: int64 [batch, target].
            decoder_attention_mask: [batch, past + target], 1 for tokens that are there; all by default.
            encoder_outputs: of an earlier call, instead of running the encoder; `attention_mask` still says
                which of its tokens are there.
            past_key_values: what an earlier call returned, for the tokens before these.
            inputs_embeds, decoder_inputs_embeds: [batch, tokens, width] instead of token ids, scaled already.
            use_cache: return `past_key_values` for a next call.
            output_attentions: also return attention weights, [batch, heads, target, source] for each layer.
            output_hidden_states: also return what is embedded and each layer's output, the last normalized
                where there is a norm behind the layers.
            return_dict: False for a plain tuple.

        The last four are the configuration's where they are left out.

        Raises:
            ValueError: inputs that are missing or do not fit, or longer than the model's positions.
        """
        if self.reads_input and input_ids is not None and decoder_input_ids is decoder_inputs_embeds is None:
            decoder_input_ids = self.padded_one_later(input_ids, attention_mask)
            if decoder_attention_mask is None:
                decoder_attention_mask = attention_mask
        recorded: dict[str, Any] = {
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
        }
        if encoder_outputs is not None:
            encoded = as_encoder_output(encoder_outputs)
        else:
            given = self.encoder.run_padded(
                input_ids, inputs_embeds, attention_mask=attention_mask, use_cache=False, **recorded
            )
            encoded = BaseModelOutput(given.last_hidden_state, given.hidden_states, given.attentions)
        decoded = self.decoder.run_padded(
            decoder_input_ids,
            decoder_inputs_embeds,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **recorded,
        )
        output = Seq2SeqModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )
        return as_asked(output, return_dict, self.config)

    def packed(self, token_ids: Tensor, cu_tokens: Tensor) -> Tensor:
        """The decoder's hidden states when it reads what the encoder does, a place later.

        Args:
            token_ids: int [tokens], packed, of sequences that have at least one each.
            cu_tokens: int32 [n + 1].

        Returns:
            [tokens, width].
        """
        encoded = self.encoder.packed_sequences(token_ids, cu_tokens)
        own = self.decoder.packed_attention(cu_tokens, cu_tokens)
        attention = TeacherForcedAttention(own, self.decoder.layer_stack, encoded, cu_tokens)
        places = positions_within(cu_tokens, token_ids.shape[0])
        return self.decoder.packed(self.one_later(token_ids, places == 0), places, attention)

    def one_later(self, token_ids: Tensor, first: Tensor) -> Tensor:
        """Packed tokens as the decoder reads them: each sequence's start token, then all but its last.

        Args:
            token_ids: int [tokens], packed.
            first: bool [tokens], the first token of each sequence.

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

    def padded_one_later(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """`one_later` of each row of padded tokens [batch, source], by what is there of it."""
        batch, source = input_ids.shape
        mask = as_mask(attention_mask, batch, source, input_ids.device, "attention_mask")
        first = mask & (mask.cumsum(1) == 1)
        shifted = input_ids.clone()
        shifted[mask] = self.one_later(input_ids[mask], first[mask])
        return shifted

    def get_encoder(self) -> TransformerStack:
        """The encoder, which takes padded tokens as in transformers."""
        return self.encoder

    def get_decoder(self) -> TransformerStack:
        """The decoder, which takes padded tokens as in transformers."""
        return self.decoder

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.shared

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding, of encoder and decoder too."""
        self.shared = value
        self.encoder.embed_tokens = value
        self.decoder.embed_tokens = value

    def tie_weights(self) -> None:
        """Make the tables of encoder and decoder the shared one, where that is configured."""
        if self.ties_tables:
            for stack in (self.encoder, self.decoder):
                stack.get_input_embeddings().weight = self.shared.weight

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """See `ParametersMixin`.

        Raises:
            ValueError: also where encoder and decoder have tables of their own.
        """
        if not self.ties_tables:
            raise ValueError(
                "encoder and decoder have token embeddings of their own (tie_word_embeddings=False); resize "
                "a model whose embedding is shared"
            )
        tokens = super().resize_token_embeddings(*args, **kwargs)
        self.set_input_embeddings(tokens)
        return tokens
