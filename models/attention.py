"""How a decoder's layers attend: over packed sequences here, over pages in `scheduler.cache`."""

from typing import Protocol

from torch import Tensor

from ..kernels.flash_attention import attention_weights, flash_attention


class DecoderAttention(Protocol):
    """The attention layout a decoder is given; layers are numbered from 0."""

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attend to this call's and all earlier tokens; [tokens, heads, head_dim] in and out."""
        ...

    def cross_attention(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Attend to the encoder's keys and values; [tokens, heads, head_dim] in and out."""
        ...


class PackedAttention:
    """Teacher-forced: all tokens of every sequence at once, causal, beside each sequence's encoder output.

    Args:
        cu_target: int32 [n + 1], the decoder's tokens.
        cu_source: int32 [n + 1], the encoder's.
        cross: keys and values of the encoder's tokens, [source tokens, heads, head_dim], a pair a layer.
        dropout: of the attention weights, for training.
        record: keep the attention weights in `self_weights` and `cross_weights`: a list of
            [heads, target, source] for each layer.
    """

    def __init__(
        self,
        cu_target: Tensor,
        cu_source: Tensor,
        cross: list[tuple[Tensor, Tensor]],
        dropout: float = 0.0,
        record: bool = False,
    ) -> None:
        self.cu_target = cu_target
        self.cu_source = cu_source
        self.cross = cross
        self.dropout = dropout
        self.record = record
        self.self_weights: list[list[Tensor]] = []
        self.cross_weights: list[list[Tensor]] = []

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `DecoderAttention`."""
        cu = self.cu_target
        if self.record:
            self.self_weights.append(attention_weights(query, key, cu, cu, causal=True, scale=scale))
        return flash_attention(query, key, value, cu, cu, causal=True, scale=scale, dropout=self.dropout)

    def cross_attention(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """See `DecoderAttention`."""
        key, value = self.cross[layer]
        if self.record:
            self.cross_weights.append(
                attention_weights(query, key, self.cu_target, self.cu_source, scale=scale)
            )
        return flash_attention(
            query, key, value, self.cu_target, self.cu_source, scale=scale, dropout=self.dropout
        )
