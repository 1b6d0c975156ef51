"""Speech2Text's decoder: tokens to hidden states, padded as in transformers or packed."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.embedding import add_positions, embedding
from ..kernels.packing import pack, unpack
from .attention import DecoderAttention, HeadMask, PackedAttention, head_masks
from .key_values import KeyValues, extend_key_values, is_cache, read_key_values
from .outputs import BaseModelOutputWithPastAndCrossAttentions, as_asked
from .padded import Places, as_mask, pack_heads, pad_weights, unpack_all
from .speech_to_text_config import Speech2TextConfig
from .speech_to_text_layers import DecoderLayer, SinusoidalPositions, embedding_scale, run_layers


class Speech2TextDecoder(nn.Module):
    """Token embedding, positions and decoder layers."""

    def __init__(self, config: Speech2TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.embed_positions = SinusoidalPositions(
            config.max_target_positions, config.d_model, config.pad_token_id
        )
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.decoder_layers))
        self.layer_norm = nn.LayerNorm(config.d_model)

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
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPastAndCrossAttentions | tuple[Any, ...]:
        """Teacher-forced: hidden states of every given token; each row's are what they would be alone.

        Args:
            input_ids: int64 [batch, target].
            attention_mask: [batch, past + target], 1 for tokens that are there; all by default.
            encoder_hidden_states: [batch, source, d_model]; may be left out where there is a past.
            encoder_attention_mask: [batch, source], 1 for encoder tokens that are there; all by default.
            head_mask, cross_attn_head_mask: [layers, heads], what each head's attention weights are
                multiplied by.
            past_key_values: what an earlier call returned, for the tokens before these.
            inputs_embeds: [batch, target, d_model] instead of input_ids, scaled already: a token's is its
                row of `embed_tokens` times sqrt(d_model) where the model scales. None counts as padding.
            use_cache: return `past_key_values` for a next call.
            output_attentions, output_hidden_states, return_dict: as the encoder's.

        Raises:
            ValueError: inputs that are missing or do not fit, or more tokens than there are positions.
        """
        config = self.config
        given = self._given(input_ids, inputs_embeds)
        held = read_key_values(past_key_values, config.decoder_layers)
        places = _places(given, attention_mask, encoder_hidden_states, encoder_attention_mask, held)
        shape = config.decoder_layers, config.decoder_attention_heads
        attention = PackedAttention(
            places,
            self._cross_of(encoder_hidden_states, held, places),
            None if held is None else [_packed_pair(layer[:2], places.past) for layer in held],
            head_mask=head_masks(head_mask, *shape, "decoder_head_mask"),
            cross_head_mask=head_masks(cross_attn_head_mask, *shape, "cross_attn_head_mask"),
            dropout=config.attention_dropout if self.training else 0.0,
            record=config.output_attentions if output_attentions is None else output_attentions,
        )
        keep = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        states: list[Tensor] | None = [] if keep else None
        hidden = self._run(self._embed(given, places), attention, states)
        returned = None
        wanted = config.use_cache if use_cache is None else use_cache
        # A call of which layer drop skipped a layer leaves no keys of it to go on from.
        if (wanted or is_cache(past_key_values)) and len(attention.key_values) == config.decoder_layers:
            own = [attention.key_values[layer] for layer in range(config.decoder_layers)]
            returned = extend_key_values(past_key_values, held, own, attention.cross_key_values, places)
        output = BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=unpack(hidden, places.target),
            past_key_values=returned,
            hidden_states=unpack_all(states, places.target),
            attentions=pad_weights(attention.own.weights, places.target, places.seen),
            cross_attentions=pad_weights(attention.cross.weights, places.target, places.source),
        )
        return as_asked(output, return_dict, config)

    def packed(self, token_ids: Tensor, positions: Tensor, attention: DecoderAttention) -> Tensor:
        """Tokens [tokens] at rows `positions` of the position table to hidden states [tokens, d_model]."""
        hidden = embedding(
            token_ids,
            positions,
            self.embed_tokens.weight,
            self.embed_positions.weights,
            embedding_scale(self.config),
        )
        return self._run(hidden, attention)

    def cross_key_values(self, encoded: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each layer's cross-attention keys and values, [source tokens, heads, head_dim] each."""
        layers = cast(Iterable[DecoderLayer], self.layers)
        return [layer.encoder_attn.key_value(encoded) for layer in layers]

    def _cross_of(
        self, encoded: Tensor | None, held: KeyValues | None, places: Places
    ) -> list[tuple[Tensor, Tensor]]:
        if held is not None:
            return [_packed_pair(layer[2:], places.source) for layer in held]
        assert encoded is not None  # _places refuses a call without either
        return self.cross_key_values(pack(encoded, places.source))

    def _run(
        self, embedded: Tensor, attention: DecoderAttention, states: list[Tensor] | None = None
    ) -> Tensor:
        config = self.config
        hidden = F.dropout(embedded, config.dropout, self.training)
        layerdrop = config.decoder_layerdrop if self.training else 0.0
        return run_layers(self.layers, self.layer_norm, hidden, attention, layerdrop, states)

    def _given(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """Whichever of the two was given, checked."""
        width, vocabulary = self.config.d_model, self.embed_tokens.weight.shape[0]
        if inputs_embeds is not None and input_ids is None:
            if inputs_embeds.dim() != 3 or inputs_embeds.shape[2] != width:
                raise ValueError(
                    f"decoder_inputs_embeds must be [batch, target, {width}], got {list(inputs_embeds.shape)}"
                )
            return inputs_embeds
        if input_ids is None or inputs_embeds is not None:
            raise ValueError(
                "give the decoder either decoder_input_ids (or labels), or else decoder_inputs_embeds"
            )
        if input_ids.dim() != 2:
            raise ValueError(f"decoder_input_ids must be [batch, target], got {list(input_ids.shape)}")
        if input_ids.numel() and not 0 <= int(input_ids.min()) <= int(input_ids.max()) < vocabulary:
            raise ValueError(
                f"decoder_input_ids go from {int(input_ids.min())} to {int(input_ids.max())}, and the model "
                f"knows tokens 0 to {vocabulary - 1}"
            )
        return input_ids

    def _embed(self, given: Tensor, places: Places) -> Tensor:
        """Token ids [batch, target] or their embeddings [batch, target, d_model] to packed [tokens, d_model].

        Positions count from padding_idx + 1 over the tokens that are not padding. Each of `given` embeddings
        counts: transformers has no positions for those, it fails.
        """
        padding, table = self.config.pad_token_id, self.embed_positions.weights
        real = given != padding if given.dim() == 2 else torch.ones_like(places.target)
        positions = (real.cumsum(1) + places.past.sum(1, keepdim=True)) * real + padding
        rows = pack(positions, places.target)
        if rows.numel() and int(rows.max()) >= table.shape[0]:
            raise ValueError(
                f"{int(rows.max()) - padding} decoder tokens, and the model has {self.embed_positions.limit} "
                "positions; give fewer"
            )
        tokens = pack(given, places.target)
        if given.dim() == 3:
            return add_positions(tokens.to(table.dtype), rows, table, 1.0)
        # Through the module, whose padding row learns nothing from the tokens read, as in transformers.
        return add_positions(self.embed_tokens(tokens), rows, table, embedding_scale(self.config))


def _places(
    given: Tensor,
    attention_mask: Tensor | None,
    encoded: Tensor | None,
    encoder_mask: Tensor | None,
    held: KeyValues | None,
) -> Places:
    """Where tokens lie, with everything that must have as many rows and columns checked."""
    batch, target = given.shape[:2]
    if encoded is not None:
        rows, source = encoded.shape[:2]
    elif held is not None:
        rows, source = held[0][2].shape[0], held[0][2].shape[2]
    else:
        raise ValueError("encoder_hidden_states is missing; give what the encoder returned")
    if rows != batch:
        raise ValueError(f"the decoder was given {batch} rows, and the encoder's output has {rows}")
    length = held.get_seq_length() if held is not None else 0
    seen = as_mask(attention_mask, batch, length + target, given.device, "decoder_attention_mask")
    mask = as_mask(encoder_mask, batch, source, given.device, "encoder_attention_mask")
    return Places(seen[:, :length], seen[:, length:], mask)


def _packed_pair(pair: Sequence[Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
    return pack_heads(pair[0], mask), pack_heads(pair[1], mask)
