"""What every text decoder shares: padded tensors, masks and caches outside, packed tokens inside.

A family derives from `TransformerStack` and says in five places what is its own: how large it is (`sizes`), which
row of its position table a token reads (`positions`), how tokens are embedded (`embed`), its layers
(`layer_stack`) and the norm behind them (`final_norm`). A map to the vocabulary is `causal_lm.CausalLM`'s.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.embedding import add_positions, embedding
from ...kernels.runtime.packing import cumulative, pack, positions_within, unpack
from .attention import DecoderAttention, HeadMask, PackedAttention, StackAttention, head_masks
from .layers import run_layers
from .outputs import BaseModelOutputWithPastAndCrossAttentions, as_asked
from .padding import Places, as_mask, pack_heads, pad_weights, unpack_all
from .past_key_values import KeyValues, extend_key_values, is_cache, read_key_values


@dataclass(frozen=True)
class DecoderSizes:
    """What the shared half needs to know of a decoder.

    Args:
        layers: transformer layers.
        heads: of each layer's attentions; they divide the width.
        width: of hidden states, and of the encoder's where layers attend to them.
        dropout: of what is embedded, in training.
        attention_dropout: of attention weights, in training.
        layerdrop: chance of skipping a layer, in training.
    """

    layers: int
    heads: int
    width: int
    dropout: float = 0.0
    attention_dropout: float = 0.0
    layerdrop: float = 0.0


@dataclass(frozen=True)
class PositionIndexer:
    """Which row of its position table each token of a sequence reads.

    Args:
        first: the row of a sequence's first token: 0 in BERT, 2 in BART, the padding token's number + 1 in
            RoBERTa and Speech2Text.
        limit: tokens that there are rows for.
        padding: a token that reads row `first - 1` wherever it stands, and that a call of several tokens does
            not count (RoBERTa, Speech2Text). None where all tokens are alike.
    """

    first: int
    limit: int
    padding: int | None = None

    def of_step(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        """Rows [tokens] for packed tokens at places 0, 1, ... of their sequences."""
        rows = positions + self.first
        return rows if self.padding is None else torch.where(token_ids == self.padding, self.first - 1, rows)

    def of_sequences(self, token_ids: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Rows [tokens] for packed whole sequences, of cu_seqlens int32 [n + 1]; how many is not checked."""
        positions = positions_within(cu_seqlens, token_ids.shape[0])
        if self.padding is None:
            return positions + self.first
        counted = token_ids != self.padding
        order = counted.long().cumsum(0)
        # What is counted before each sequence's own first token.
        before = (order - counted.long())[torch.arange(len(order), device=order.device) - positions]
        return (order - before) * counted + (self.first - 1)

    def of_call(self, given: Tensor, places: Places) -> Tensor:
        """Rows [tokens], packed, of token ids [batch, target] or of embeddings [batch, target, width].

        Every embedding counts: whether it is the padding token's cannot be seen.

        Raises:
            ValueError: more tokens than there are rows.
        """
        counted = places.target
        if self.padding is not None and given.dim() == 2:
            counted = counted & (given != self.padding)
        order = (counted.cumsum(1) + places.past.sum(1, keepdim=True)) * counted
        order = pack(order, places.target)
        most = int(order.max()) if order.numel() else 0
        if most > self.limit:
            raise ValueError(f"{most} decoder tokens, and the model has {self.limit} positions; give fewer")
        return order + (self.first - 1)


class DecoderLayer(Protocol):
    """What is needed of a layer."""

    def __call__(self, hidden: Tensor, attention: DecoderAttention) -> Tensor:
        """[tokens, width] to the same; leaves cross-attention out where `attention.crosses` is False."""
        ...

    def cross_key_value(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention's keys and values of encoder tokens: [tokens, heads, head_dim] each."""
        ...


class TransformerStack(nn.Module):
    """A stack of layers over tokens, with cross-attention to an encoder's output where there is one.

    The first three attributes are a class's or an object's; the properties and `embed` are a family's to
    write. `config` needs the fields of `PretrainedConfig` and `use_cache`.
    """

    # Whether a token sees only those before it. Without that nothing is kept for a next call.
    causal: bool = True
    # Whether the layers have cross-attention, and whether there must be something for it.
    has_cross_attention: bool = True
    needs_encoder: bool = False
    # What errors put before the names of arguments: "decoder_" in a model that has an encoder too.
    argument_prefix: str = ""

    config: Any

    @property
    def sizes(self) -> DecoderSizes:
        """How large it is; read anew in every call."""
        raise NotImplementedError

    @property
    def positions(self) -> PositionIndexer:
        """How tokens find their rows in the position table."""
        raise NotImplementedError

    @property
    def layer_stack(self) -> nn.ModuleList:
        """The layers, each a `DecoderLayer`, numbered from 0 in what they say to their attention."""
        raise NotImplementedError

    @property
    def windows(self) -> Sequence[int | None] | None:
        """For each layer how many keys self-attention sees, None for all; None where none has a window."""
        return None

    @property
    def final_norm(self) -> nn.LayerNorm | None:
        """Of the last layer's output; None where layers normalize their own."""
        return None

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        raise NotImplementedError

    def embed(self, given: Tensor, rows: Tensor, token_types: Tensor | None = None) -> Tensor:
        """What goes into the first layer, before dropout: [tokens, width].

        Args:
            given: token ids [tokens], or instead of them embeddings [tokens, width].
            rows: int64 [tokens], of the position table.
            token_types: int64 [tokens], for families that know types; None for type 0.
        """
        raise NotImplementedError

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
    ) -> Any:
        """Hidden states of every given token; each row's are what they would be alone.

        The order is that of BART and Speech2Text; families with another one call `run_padded` themselves.

        Args:
            input_ids: int64 [batch, target].
            attention_mask: [batch, past + target], 1 for tokens that are there; all by default.
            encoder_hidden_states: [batch, source, width]; without it layers leave cross-attention out, unless
                the past has its keys and values.
            encoder_attention_mask: [batch, source], 1 for encoder tokens that are there; all by default.
            head_mask, cross_attn_head_mask: [layers, heads], what each head's attention weights are
                multiplied by.
            past_key_values: what an earlier call returned, or a cache of transformers, for the tokens before
                these.
            inputs_embeds: [batch, target, width] instead of input_ids, scaled already: a token's is its row
                of the token embedding, times sqrt(width) where the model scales. None counts as padding.
            use_cache: return `past_key_values` for a next call.
            output_attentions: also return attention weights, [batch, heads, target, source] for each layer.
            output_hidden_states: also return what is embedded and each layer's output, the last normalized
                where there is a norm behind the layers.
            return_dict: False for a plain tuple.

        The last four are the configuration's where they are left out.

        Raises:
            ValueError: inputs that are missing or do not fit, or more tokens than there are positions.
        """
        output = self.run_padded(
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
        return as_asked(output, return_dict, self.config)

    def run_padded(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        head_mask: HeadMask | None = None,
        cross_attn_head_mask: HeadMask | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """`forward` with all arguments by name, and two more.

        Args:
            token_type_ids: int64 [batch, target], handed to `embed`.
            position_ids: int64 [batch or 1, target], rows of the position table instead of counted ones.
        """
        sizes, config = self.sizes, self.config
        given = self._given(input_ids, inputs_embeds)
        held = read_key_values(past_key_values, sizes.layers, with_cross=self.needs_encoder)
        places = self._places(given, attention_mask, encoder_hidden_states, encoder_attention_mask, held)
        shape = sizes.layers, sizes.heads
        own_mask = head_masks(head_mask, *shape, f"{self.argument_prefix}head_mask")
        cross_mask = head_masks(cross_attn_head_mask, *shape, "cross_attn_head_mask")
        options: dict[str, Any] = {
            "dropout": sizes.attention_dropout if self.training else 0.0,
            "record": config.output_attentions if output_attentions is None else output_attentions,
        }
        cu_target, cu_source = cumulative(places.target.sum(1)), cumulative(places.source.sum(1))
        cu_seen = cumulative(places.seen.sum(1))
        attention = PackedAttention(
            self.packed_attention(cu_target, cu_seen, head_mask=own_mask, **options),
            StackAttention(cu_target, cu_source, head_mask=cross_mask, **options),
            self._cross_of(encoder_hidden_states, held, places),
            None if held is None else [_packed_pair(layer[:2], places.past) for layer in held],
        )
        keep = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        states: list[Tensor] | None = [] if keep else None
        rows = self._rows(given, position_ids, places)
        types = None if token_type_ids is None else self._packed(token_type_ids, "token_type_ids", places)
        embedded = self.embed(pack(given, places.target), rows, types)
        hidden = self.run_packed(embedded, attention, states)
        returned = None
        returns_past = self.causal and (config.use_cache if use_cache is None else use_cache)
        # A call of which layer drop skipped a layer leaves no keys of it to go on from.
        if (returns_past or is_cache(past_key_values)) and len(attention.key_values) == sizes.layers:
            own = [attention.key_values[layer] for layer in range(sizes.layers)]
            returned = extend_key_values(past_key_values, held, own, attention.cross_key_values, places)
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=unpack(hidden, places.target),
            past_key_values=returned,
            hidden_states=unpack_all(states, places.target),
            attentions=pad_weights(attention.own.weights, places.target, places.seen),
            cross_attentions=pad_weights(attention.cross.weights, places.target, places.source),
        )

    def packed(self, token_ids: Tensor, positions: Tensor, attention: DecoderAttention) -> Tensor:
        """Tokens [tokens] at places `positions` of their sequences, from 0, to [tokens, width]."""
        return self.run_packed(self.embed(token_ids, self.positions.of_step(token_ids, positions)), attention)

    def packed_sequences(
        self,
        token_ids: Tensor,
        cu_seqlens: Tensor,
        token_types: Tensor | None = None,
        selected: Tensor | None = None,
    ) -> Tensor:
        """Whole sequences of tokens [tokens], with cu_seqlens int32 [n + 1], to [tokens, width].

        How many positions they need is for the caller to check.

        Args:
            token_types: int64 [tokens], handed to `embed`.
            selected: int64, the tokens whose hidden states are read, see `run_layers`; all by default.
        """
        rows = self.positions.of_sequences(token_ids, cu_seqlens)
        attention = self.packed_attention(cu_seqlens, cu_seqlens)
        return self.run_packed(self.embed(token_ids, rows, token_types), attention, selected=selected)

    def cross_key_values(self, encoded: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each layer's cross-attention keys and values, [source tokens, heads, head_dim] each."""
        layers: Iterable[Any] = self.layer_stack
        return [layer.cross_key_value(encoded) for layer in layers]

    def packed_attention(self, cu_query: Tensor, cu_key: Tensor, **options: Any) -> StackAttention:
        """Self-attention of all layers over packed sequences; arguments are `StackAttention`'s."""
        return StackAttention(cu_query, cu_key, causal=self.causal, windows=self.windows, **options)

    def run_packed(
        self,
        embedded: Tensor,
        attention: DecoderAttention,
        states: list[Tensor] | None = None,
        selected: Tensor | None = None,
    ) -> Tensor:
        hidden = F.dropout(embedded, self.sizes.dropout, self.training)
        layerdrop = self.sizes.layerdrop if self.training else 0.0
        return run_layers(self.layer_stack, self.final_norm, hidden, attention, layerdrop, states, selected)

    def _cross_of(
        self, encoded: Tensor | None, held: KeyValues | None, places: Places
    ) -> list[tuple[Tensor, Tensor]] | None:
        if held is not None and held.has_cross:
            return [_packed_pair(layer[2:], places.source) for layer in held]
        return None if encoded is None else self.cross_key_values(pack(encoded, places.source))

    def _given(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """Whichever of the two was given, checked."""
        prefix, width = self.argument_prefix, self.sizes.width
        vocabulary = self.get_input_embeddings().weight.shape[0]
        if inputs_embeds is not None and input_ids is None:
            if inputs_embeds.dim() != 3 or inputs_embeds.shape[2] != width:
                raise ValueError(
                    f"{prefix}inputs_embeds must be [batch, target, {width}], got {list(inputs_embeds.shape)}"
                )
            return inputs_embeds
        if input_ids is None or inputs_embeds is not None:
            raise ValueError(
                f"give the decoder either {prefix}input_ids (or labels), or else {prefix}inputs_embeds"
                if prefix
                else "give either input_ids or inputs_embeds"
            )
        if input_ids.dim() != 2:
            raise ValueError(f"{prefix}input_ids must be [batch, target], got {list(input_ids.shape)}")
        if input_ids.numel() and not 0 <= int(input_ids.min()) <= int(input_ids.max()) < vocabulary:
            raise ValueError(
                f"{prefix}input_ids go from {int(input_ids.min())} to {int(input_ids.max())}, and the model "
                f"knows tokens 0 to {vocabulary - 1}"
            )
        return input_ids

    def _places(
        self,
        given: Tensor,
        attention_mask: Tensor | None,
        encoded: Tensor | None,
        encoder_mask: Tensor | None,
        held: KeyValues | None,
    ) -> Places:
        """Where tokens lie, with everything that must have as many rows and columns checked."""
        batch, target = given.shape[:2]
        rows, source = batch, 0
        if encoded is not None:
            self._check_encoded(encoded)
            rows, source = encoded.shape[:2]
        elif held is None and self.needs_encoder:
            raise ValueError("encoder_hidden_states is missing; give what the encoder returned")
        if held is not None and held.has_cross:
            kept = held[0][2].shape[0], held[0][2].shape[2]
            if encoded is not None and kept != (rows, source):
                raise ValueError(
                    f"past_key_values is of an encoder output {list(kept)}, and encoder_hidden_states is "
                    f"{[rows, source]}; give that output again, or leave it out"
                )
            rows, source = kept
        if rows != batch:
            raise ValueError(f"the decoder was given {batch} rows, and the encoder's output has {rows}")
        if held is not None:
            self._check_past(held, batch)
        length = held.get_seq_length() if held is not None else 0
        prefix = self.argument_prefix
        seen = as_mask(attention_mask, batch, length + target, given.device, f"{prefix}attention_mask")
        mask = as_mask(
            encoder_mask if source else None, batch, source, given.device, "encoder_attention_mask"
        )
        return Places(seen[:, :length], seen[:, length:], mask)

    def _check_past(self, held: KeyValues, batch: int) -> None:
        if not self.causal:
            raise ValueError("past_key_values needs a decoder; set is_decoder=True in the configuration")
        if held[0][0].shape[0] != batch:
            raise ValueError(f"the decoder was given {batch} rows, past_key_values has {held[0][0].shape[0]}")

    def _check_encoded(self, encoded: Tensor) -> None:
        width = self.sizes.width
        if not self.has_cross_attention:
            raise ValueError(
                "encoder_hidden_states was given to a model without cross-attention; set is_decoder=True and "
                "add_cross_attention=True in its configuration"
            )
        if encoded.dim() != 3 or encoded.shape[2] != width:
            raise ValueError(
                f"encoder_hidden_states must be [batch, source, {width}], got {list(encoded.shape)}"
            )

    def _rows(self, given: Tensor, position_ids: Tensor | None, places: Places) -> Tensor:
        if position_ids is None:
            return self.positions.of_call(given, places)
        rows = self._packed(position_ids, "position_ids", places)
        most = self.positions.first + self.positions.limit - 1
        if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) <= most:
            raise ValueError(
                f"position_ids go from {int(rows.min())} to {int(rows.max())}, and the model has positions "
                f"0 to {most}"
            )
        return rows

    def _packed(self, numbers: Tensor, name: str, places: Places) -> Tensor:
        """One number a token, [batch or 1, target], packed."""
        batch, target = places.target.shape
        if numbers.dim() != 2 or numbers.shape[0] not in (1, batch) or numbers.shape[1] != target:
            raise ValueError(f"{name} must be {[batch, target]}, got {list(numbers.shape)}")
        return pack(numbers.expand(batch, -1), places.target)


def embed_tokens(
    given: Tensor, rows: Tensor, table: nn.Embedding, position_table: Tensor, scale: float = 1.0
) -> Tensor:
    """`table(given) * scale + position_table[rows]`; embeddings instead of tokens are scaled already.

    Args:
        given: token ids [tokens] or embeddings [tokens, width].
        rows: int64 [tokens].
        table: of the tokens.
        position_table: [positions, width].
        scale: of the tokens' vectors.
    """
    if given.dim() == 2:
        return add_positions(given.to(position_table.dtype), rows, position_table, 1.0)
    if torch.is_grad_enabled() and table.weight.requires_grad:
        # Through the module, whose padding row learns nothing from the tokens read, as in transformers.
        return add_positions(table(given), rows, position_table, scale)
    return embedding(given, rows, table.weight, position_table, scale)


def _packed_pair(pair: Sequence[Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
    return pack_heads(pair[0], mask), pack_heads(pair[1], mask)
