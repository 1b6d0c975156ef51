"""Transformer stack over tokens that takes padded batches, masks and caches, and computes on packed tokens.

A family derives from `TransformerStack` and gives its sizes, its position ids, the names of its layers and
token embedding, the embedding of tokens, and the normalization behind the layers, if any.
`causal_lm.CausalLM` adds the language-modeling head.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.embedding import add_positions, embedding, step_position_ids
from ...kernels.runtime.packing import cumulative, pack, positions_within, unpack
from .attention import DecoderAttention, HeadMask, PackedAttention, StackAttention, head_masks
from .forward import OUTPUT_FLAGS, declare_forward
from .layers import Attention, all_key_values, run_layers
from .outputs import BaseModelOutputWithPastAndCrossAttentions, ModelOutput
from .padding import TokenMasks, as_mask, check_inputs, pack_heads, pad_weights, unpack_all
from .parameters import TokenEmbedding
from .past_key_values import KeyValues, extend_key_values, is_cache, read_key_values

# The first line of every stack's `forward`.
HIDDEN_STATES = "Hidden states of every given token, each row's equal to those of the row alone."


@dataclass(frozen=True)
class StackSizes:
    """Sizes of a transformer stack, and its dropout probabilities in training."""

    layers: int
    heads: int  # of each attention
    width: int  # of hidden states, and of the encoder's where layers attend to them
    dropout: float = 0.0  # of embedded tokens
    attention_dropout: float = 0.0  # of attention weights
    layerdrop: float = 0.0  # chance of skipping a layer


@dataclass(frozen=True)
class PositionIndexer:
    """Function from tokens to position ids, their row indices in the position-embedding table.

    Args:
        first: position id of a sequence's first token: 0 in BERT, 2 in BART, the padding token's id plus one
            in RoBERTa and Speech2Text.
        limit: maximum sequence length in tokens.
        padding: id of a padding token, which gets position id `first - 1` wherever it stands, and which
            `of_sequences` and `of_call` do not count (RoBERTa, Speech2Text). None where all tokens count.
    """

    first: int
    limit: int
    padding: int | None = None

    def of_step(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        """Position ids [tokens] of a step's tokens, which are at `positions` of their sequences, from 0."""
        if self.padding is None:
            return positions + self.first if self.first else positions
        return step_position_ids(token_ids, positions, self.first, self.padding)

    def of_sequences(self, token_ids: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Position ids [tokens] of a packed batch of whole sequences, whose lengths are not checked."""
        positions = positions_within(cu_seqlens, token_ids.shape[0])
        if self.padding is None:
            return positions + self.first
        counted = token_ids != self.padding
        order = counted.long().cumsum(0)
        # Number of counted tokens in earlier sequences.
        before = (order - counted.long())[torch.arange(len(order), device=order.device) - positions]
        return (order - before) * counted + (self.first - 1)

    def of_call(self, inputs: Tensor, masks: TokenMasks) -> Tensor:
        """Packed position ids [tokens] of ids [batch, target] or embeddings [batch, target, width].

        Every embedding counts, since none shows that it is a padding token's.

        Raises:
            ValueError: more tokens than `limit`.
        """
        counted = masks.target
        if self.padding is not None and inputs.dim() == 2:
            counted = counted & (inputs != self.padding)
        order = (counted.cumsum(1) + masks.past.sum(1, keepdim=True)) * counted
        order = pack(order, masks.target)
        most = int(order.max()) if order.numel() else 0
        if most > self.limit:
            raise ValueError(f"{most} decoder tokens, and the model has {self.limit} positions; give fewer")
        return order + (self.first - 1)


class StackLayer(Protocol):
    """Protocol of a stack's layer: forward pass and cross-attention."""

    def __call__(self, hidden: Tensor, attention: DecoderAttention) -> Tensor:
        """Run the layer on [tokens, width]; without cross-attention where `attention.crosses` is False."""
        ...

    @property
    def cross(self) -> Attention:
        """Projections of the cross-attention to an encoder's output."""
        ...


class TransformerStack(TokenEmbedding):
    """Stack of transformer layers over tokens, with cross-attention where there is an encoder's output.

    A family sets the first attributes on its class or its objects, and overrides `embed` and the properties
    that differ from BERT's. `config` needs the fields of `PretrainedConfig` and `use_cache`.
    """

    layers_name: ClassVar[str] = "layers"  # attribute name, or a dotted path
    causal: bool = True  # tokens attend to earlier ones only; else to all, and there is no cache
    has_cross_attention: bool = True
    needs_encoder: bool = False  # refuse a call without an encoder's output
    argument_prefix: str = ""  # of argument names in errors: "decoder_" in a model with an encoder
    # Configuration fields of two dropouts: of embedded tokens, and of attention weights.
    dropout_fields: ClassVar[tuple[str, ...]] = ("hidden_dropout_prob", "attention_probs_dropout_prob")

    config: Any

    @property
    def sizes(self) -> StackSizes:
        """Sizes of the stack, read from `config` in every call; by default from BERT's fields or aliases."""
        config = self.config
        dropouts = (getattr(config, name) for name in self.dropout_fields)
        return StackSizes(config.num_hidden_layers, config.num_attention_heads, config.hidden_size, *dropouts)

    @property
    def positions(self) -> PositionIndexer:
        """Function from tokens to position ids; by default those are the positions from 0."""
        return PositionIndexer(0, self.config.max_position_embeddings)

    @property
    def layer_stack(self) -> nn.ModuleList:
        """Layers of the stack, each a `StackLayer` that passes its number, from 0, to the attention."""
        return cast(nn.ModuleList, self.get_submodule(self.layers_name))

    @property
    def windows(self) -> Sequence[int | None] | None:
        """Attention window of each layer, in keys, None for no window; None where no layer has one."""
        return None

    @property
    def final_norm(self) -> nn.LayerNorm | None:
        """Normalization of the last layer's output; None where layers normalize their own."""
        return None

    @property
    def max_tokens(self) -> int:
        """Maximum sequence length in tokens."""
        return self.positions.limit

    def embed(self, inputs: Tensor, position_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Embeddings of tokens, positions and types, before dropout: [tokens, width].

        Args:
            inputs: token ids [tokens], or instead of them embeddings [tokens, width].
            position_ids: int64 [tokens], row indices of the position-embedding table.
            token_types: int64 [tokens], for families that have types; None for type 0.
        """
        raise NotImplementedError

    def check_token_types(self, token_types: Tensor | None) -> None:
        """Check that token types are rows of the family's token-type table, if it has one.

        Raises:
            ValueError: an unknown token type, with those that there are.
        """

    # Arguments in the order of BART and Speech2Text; other families declare their own.
    forward = declare_forward(
        HIDDEN_STATES,
        "input_ids attention_mask encoder_hidden_states encoder_attention_mask head_mask "
        f"cross_attn_head_mask past_key_values inputs_embeds use_cache {OUTPUT_FLAGS}",
    )

    def forward_named(self, **inputs: Any) -> ModelOutput:
        """Run `forward` with its arguments by name: `run_padded`, in the family's output class."""
        return self.run_padded(**inputs)

    def run_padded(
        self,
        input_ids: Tensor | None = None,
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
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Pack a padded batch, run the layers, and unpack their outputs; arguments are those of `forward`.

        Raises:
            ValueError: inputs that are missing or do not fit, or more tokens than there are positions.
        """
        sizes, config = self.sizes, self.config
        self.check_token_types(token_type_ids)
        vocabulary = self.get_input_embeddings().weight.shape[0]
        inputs = check_inputs(input_ids, inputs_embeds, vocabulary, sizes.width, self.argument_prefix)
        past = read_key_values(past_key_values, sizes.layers, with_cross=self.needs_encoder)
        masks = self._masks(inputs, attention_mask, encoder_hidden_states, encoder_attention_mask, past)
        shape = sizes.layers, sizes.heads
        own_mask = head_masks(head_mask, *shape, f"{self.argument_prefix}head_mask")
        cross_mask = head_masks(cross_attn_head_mask, *shape, "cross_attn_head_mask")
        options: dict[str, Any] = {
            "dropout": sizes.attention_dropout if self.training else 0.0,
            "record": output_attentions,
        }
        cu_target, cu_source = cumulative(masks.target.sum(1)), cumulative(masks.source.sum(1))
        cu_seen = cumulative(masks.seen.sum(1))
        attention = PackedAttention(
            self.packed_attention(cu_target, cu_seen, head_mask=own_mask, **options),
            StackAttention(cu_target, cu_source, head_mask=cross_mask, **options),
            self._cross_key_values(encoder_hidden_states, past, masks),
            None if past is None else [_packed_pair(layer[:2], masks.past) for layer in past],
        )
        states: list[Tensor] | None = [] if output_hidden_states else None
        packed_ids = self._position_ids(inputs, position_ids, masks)
        types = None if token_type_ids is None else _pack_numbers(token_type_ids, "token_type_ids", masks)
        embedded = self.embed(pack(inputs, masks.target), packed_ids, types)
        hidden = self.run_packed(embedded, attention, states)
        returned = None
        returns_past = self.causal and (config.use_cache if use_cache is None else use_cache)
        # Where layer drop skipped a layer, its keys are missing, and no cache is returned.
        if (returns_past or is_cache(past_key_values)) and len(attention.key_values) == sizes.layers:
            own = [attention.key_values[layer] for layer in range(sizes.layers)]
            returned = extend_key_values(past_key_values, past, own, attention.cross_key_values, masks)
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=unpack(hidden, masks.target),
            past_key_values=returned,
            hidden_states=unpack_all(states, masks.target),
            attentions=pad_weights(attention.own.weights, masks.target, masks.seen),
            cross_attentions=pad_weights(attention.cross.weights, masks.target, masks.source),
        )

    def forward_packed(self, token_ids: Tensor, positions: Tensor, attention: DecoderAttention) -> Tensor:
        """Hidden states [tokens, width] of tokens [tokens] at `positions` of their sequences, from 0."""
        return self.run_packed(self.embed(token_ids, self.positions.of_step(token_ids, positions)), attention)

    def forward_sequences(
        self,
        token_ids: Tensor,
        cu_seqlens: Tensor,
        token_types: Tensor | None = None,
        selected: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [tokens, width] of a packed batch of whole sequences.

        Args:
            token_ids: int64 [tokens]; the caller checks that no sequence is longer than `max_tokens`.
            cu_seqlens: int32 [n + 1].
            token_types: int64 [tokens], for families that have types.
            selected: int64, indices of the tokens to return, as in `run_layers`; all by default.
        """
        position_ids = self.positions.of_sequences(token_ids, cu_seqlens)
        attention = self.packed_attention(cu_seqlens, cu_seqlens)
        return self.run_packed(self.embed(token_ids, position_ids, token_types), attention, selected=selected)

    def cross_key_values(self, encoded: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Cross-attention keys and values of all layers, [source tokens, heads, head_dim] each."""
        layers: Iterable[Any] = self.layer_stack
        return all_key_values([layer.cross for layer in layers], encoded)

    def packed_attention(self, cu_query: Tensor, cu_key: Tensor, **options: Any) -> StackAttention:
        """Self-attention over packed sequences for all layers; options are those of `StackAttention`."""
        return StackAttention(cu_query, cu_key, causal=self.causal, windows=self.windows, **options)

    def run_packed(
        self,
        embedded: Tensor,
        attention: DecoderAttention,
        states: list[Tensor] | None = None,
        selected: Tensor | None = None,
    ) -> Tensor:
        """Hidden states of embedded tokens [tokens, width] behind all layers, by `run_layers`."""
        hidden = F.dropout(embedded, self.sizes.dropout, self.training)
        layerdrop = self.sizes.layerdrop if self.training else 0.0
        return run_layers(self.layer_stack, self.final_norm, hidden, attention, layerdrop, states, selected)

    def _cross_key_values(
        self, encoded: Tensor | None, past: KeyValues | None, masks: TokenMasks
    ) -> list[tuple[Tensor, Tensor]] | None:
        if past is not None and past.has_cross:
            return [_packed_pair(layer[2:], masks.source) for layer in past]
        return None if encoded is None else self.cross_key_values(pack(encoded, masks.source))

    def _masks(
        self,
        inputs: Tensor,
        attention_mask: Tensor | None,
        encoded: Tensor | None,
        encoder_mask: Tensor | None,
        past: KeyValues | None,
    ) -> TokenMasks:
        """Masks of a call's tokens, past tokens and encoder tokens; ValueError where sizes disagree."""
        batch, target = inputs.shape[:2]
        encoded_batch, source = batch, 0
        if encoded is not None:
            self._check_encoded(encoded)
            encoded_batch, source = encoded.shape[:2]
        elif past is None and self.needs_encoder:
            raise ValueError("encoder_hidden_states is missing; give the encoder's output")
        if past is not None and past.has_cross:
            size = past[0][2].shape[0], past[0][2].shape[2]
            if encoded is not None and size != (encoded_batch, source):
                raise ValueError(
                    f"past_key_values is of an encoder output {list(size)}, and encoder_hidden_states is "
                    f"{[encoded_batch, source]}; give that output again, or leave it out"
                )
            encoded_batch, source = size
        if encoded_batch != batch:
            raise ValueError(
                f"the decoder was given {batch} rows, and the encoder's output has {encoded_batch}"
            )
        if past is not None:
            self._check_past(past, batch)
        length = past.get_seq_length() if past is not None else 0
        prefix = self.argument_prefix
        seen = as_mask(attention_mask, batch, length + target, inputs.device, f"{prefix}attention_mask")
        mask = as_mask(
            encoder_mask if source else None, batch, source, inputs.device, "encoder_attention_mask"
        )
        return TokenMasks(seen[:, :length], seen[:, length:], mask)

    def _check_past(self, past: KeyValues, batch: int) -> None:
        if not self.causal:
            raise ValueError("past_key_values needs a decoder; set is_decoder=True in the configuration")
        if past[0][0].shape[0] != batch:
            raise ValueError(f"the decoder was given {batch} rows, past_key_values has {past[0][0].shape[0]}")

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

    def _position_ids(self, inputs: Tensor, position_ids: Tensor | None, masks: TokenMasks) -> Tensor:
        if position_ids is None:
            return self.positions.of_call(inputs, masks)
        packed = _pack_numbers(position_ids, "position_ids", masks)
        most = self.positions.first + self.positions.limit - 1
        if packed.numel() and not 0 <= int(packed.min()) <= int(packed.max()) <= most:
            raise ValueError(
                f"position_ids go from {int(packed.min())} to {int(packed.max())}, and the model has "
                f"positions 0 to {most}"
            )
        return packed


def embed_tokens(
    inputs: Tensor, position_ids: Tensor, table: nn.Embedding, position_table: Tensor, scale: float = 1.0
) -> Tensor:
    """Token plus position embeddings, `table(inputs) * scale + position_table[position_ids]`.

    Args:
        inputs: token ids [tokens], or embeddings [tokens, width], which are scaled already.
        position_ids: int64 [tokens], row indices of `position_table`.
        table: token embedding.
        position_table: position-embedding table [positions, width].
        scale: factor of the token embeddings.
    """
    if inputs.dim() == 2:
        return add_positions(inputs.to(position_table.dtype), position_ids, position_table, 1.0)
    if torch.is_grad_enabled() and table.weight.requires_grad:
        # Through the module, whose padding row gets no gradient, as in transformers.
        return add_positions(table(inputs), position_ids, position_table, scale)
    return embedding(inputs, position_ids, table.weight, position_table, scale)


def _packed_pair(pair: Sequence[Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
    return pack_heads(pair[0], mask), pack_heads(pair[1], mask)


def _pack_numbers(numbers: Tensor, name: str, masks: TokenMasks) -> Tensor:
    """Pack one integer per token, [batch or 1, target], to [tokens]; ValueError for another shape."""
    batch, target = masks.target.shape
    if numbers.dim() != 2 or numbers.shape[0] not in (1, batch) or numbers.shape[1] != target:
        raise ValueError(f"{name} must be {[batch, target]}, got {list(numbers.shape)}")
    return pack(numbers.expand(batch, -1), masks.target)
