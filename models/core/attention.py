"""Attention over packed sequences; the decode step over a paged cache is in `scheduler.cache`."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ...kernels.attention.flash import attention_weights, flash_attention, weighted_values
from ...kernels.attention.projection import NewRows
from ...kernels.runtime.packing import spans

# Factors of the heads' attention weights: [layers, heads], or one entry per layer, None for all 1.
HeadMask = Tensor | Sequence[Tensor | None]


class DecoderAttention(Protocol):
    """Interface by which decoder layers, numbered from 0, attend to cached and current tokens."""

    @property
    def crosses(self) -> bool:
        """True where an encoder's output is available; without it layers skip their cross-attention."""
        ...

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Self-attention to this call's and all earlier tokens; [tokens, heads, head_dim] in and out."""
        ...

    def new_rows(self, layer: int) -> NewRows | None:
        """Pages for the keys and values of this call's tokens; None where `self_attention` takes them."""
        ...

    def stored_attention(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Self-attention, once this call's keys and values have been written to `new_rows`."""
        ...

    def cross_attention(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Cross-attention to the encoder's keys and values; [tokens, heads, head_dim] in and out."""
        ...


class Unpaged:
    """Base of layouts without pages, whose self-attention takes keys and values."""

    def new_rows(self, layer: int) -> NewRows | None:
        """None: there are no pages."""
        return None

    def stored_attention(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Refuse, since no keys and values are stored."""
        raise ValueError(f"layer {layer} attends to pages, and there are none; use self_attention")


class StackAttention(Unpaged):
    """Self-attention or cross-attention of all layers of a stack, over packed sequences.

    For a stack without key-value cache and encoder it is a complete `DecoderAttention`.

    Args:
        cu_query, cu_key: int32 [n + 1] each, cu_seqlens of the queries and keys of the same n sequences.
        causal: let a query see the keys up to its own position, with the ends of both aligned.
        dropout: dropout probability of the attention weights, for training.
        head_mask: for each layer the factors of its heads, from `head_masks`.
        record: keep each layer's attention weights in `weights`: [heads, queries, keys] for each sequence,
            after dropout and head mask, as transformers returns them. `weights` is None otherwise.
        windows: for each layer the number of keys that a causal query sees, None for all; None where no
            layer has a window.
    """

    crosses = False

    def __init__(
        self,
        cu_query: Tensor,
        cu_key: Tensor,
        *,
        causal: bool = False,
        dropout: float = 0.0,
        head_mask: Sequence[Tensor | None] | None = None,
        record: bool = False,
        windows: Sequence[int | None] | None = None,
    ) -> None:
        self.windows = windows
        self.cu_query = cu_query
        self.cu_key = cu_key
        self.causal = causal
        self.dropout = dropout
        self.head_mask = head_mask
        self.weights: list[list[Tensor]] | None = [] if record else None

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of one layer: query, key and value [tokens, heads, head_dim] to the query's shape."""
        options: dict[str, Any] = {"causal": self.causal, "scale": scale, "dropout": self.dropout}
        if self.windows is not None:
            options["window"] = self.windows[layer]
        mixed = None
        if self.weights is not None:
            weights = self.weigh(query, key, **options)
            self.weights.append(weights)
            # Recorded weights must be those used, and dropout draws anew each time. Without dropout the
            # usual kernel computes the output, so that recording weights does not change a result's bits.
            mixed = weighted_values(weights, value, self.cu_key) if self.dropout else None
        if mixed is None:
            mixed = self.attend(query, key, value, **options)
        mask = None if self.head_mask is None else self.head_mask[layer]
        if mask is None:
            return mixed
        if self.weights is not None:
            self.weights[-1] = [weight * mask.to(weight)[:, None, None] for weight in self.weights[-1]]
        # A head's output is linear in its attention weights, so the mask may be applied to the output.
        return mixed * mask.to(mixed)[:, None]

    __call__ = self_attention

    def cross_attention(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Refuse cross-attention with a ValueError, since there is no encoder's output."""
        raise ValueError(f"layer {layer} attends to an encoder's output, and there is none")

    def weigh(self, query: Tensor, key: Tensor, **options: Any) -> list[Tensor]:
        """Attention weights of each sequence, [heads, queries, keys]; options as in `attention_weights`."""
        return attention_weights(query, key, self.cu_query, self.cu_key, **options)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Attention output [tokens, heads, head_dim]; options as in `flash_attention`."""
        return flash_attention(query, key, value, self.cu_query, self.cu_key, **options)


class PackedAttention(Unpaged):
    """Attention of a decoder call with several tokens of every sequence, such as a prefill.

    Args:
        own: self-attention of this call's tokens to these and all earlier ones.
        cross: cross-attention to the encoder's tokens.
        cross_key_values: one pair per layer, keys and values of the encoder's tokens, [source tokens, heads,
            head_dim] each; None without an encoder.
        past: one pair per layer, packed keys and values of each sequence's earlier tokens; None without.
    """

    def __init__(
        self,
        own: StackAttention,
        cross: StackAttention,
        cross_key_values: list[tuple[Tensor, Tensor]] | None,
        past: list[tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.own = own
        self.cross = cross
        self.cross_key_values = cross_key_values
        self.past = past
        self.order = None if past is None else interleaved(own.cu_key - own.cu_query, own.cu_query)
        # This call's keys and values by layer; a layer skipped by layerdrop has none.
        self.key_values: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def crosses(self) -> bool:
        """True where an encoder's output is available."""
        return self.cross_key_values is not None

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Self-attention to this call's and all earlier tokens; [tokens, heads, head_dim] in and out."""
        self.key_values[layer] = (key, value)
        if self.past is not None:
            past_key, past_value = self.past[layer]
            key = torch.cat([past_key, key])[self.order]
            value = torch.cat([past_value, value])[self.order]
        return self.own.self_attention(layer, query, key, value, scale)

    def cross_attention(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Cross-attention to the encoder's keys and values; [tokens, heads, head_dim] in and out."""
        assert self.cross_key_values is not None  # layers look at `crosses` first
        key, value = self.cross_key_values[layer]
        return self.cross.self_attention(layer, query, key, value, scale)


def interleaved(cu_first: Tensor, cu_second: Tensor) -> Tensor:
    """Token indices that make each sequence's parts adjacent in `torch.cat([first, second])`, both packed."""
    shift = int(cu_first[-1])
    pieces = [
        piece
        for (a, b), (c, d) in zip(spans(cu_first), spans(cu_second), strict=True)
        for piece in (torch.arange(a, b), torch.arange(c + shift, d + shift))
    ]
    return torch.cat([torch.empty(0, dtype=torch.int64), *pieces]).to(cu_first.device)


def head_masks(mask: HeadMask | None, layers: int, heads: int, name: str) -> list[Tensor | None] | None:
    """Convert a head mask to one [heads] tensor per layer, None for a layer without a mask.

    Args:
        mask: [layers, heads], or [layers] where a layer's heads share a factor, or one entry per layer, each
            [heads], a single factor or None. 1 leaves a head as it is, 0 silences it.
        layers, heads: numbers of layers and heads of the stack.
        name: name of the argument, for the error.

    Raises:
        ValueError: not one entry for each layer, or an entry that is not one factor for each head.
    """
    if mask is None:
        return None
    if (isinstance(mask, Tensor) and mask.dim() == 0) or len(mask) != layers:
        size = list(mask.shape) if isinstance(mask, Tensor) else f"{len(mask)} entries"
        raise ValueError(f"{name} must have one entry for each of the {layers} layers, got {size}")
    entries: list[Tensor | None] = []
    for entry in mask:
        if entry is not None and entry.numel() not in (1, heads):
            raise ValueError(
                f"{name} must have one number for each of the {heads} heads of a layer, "
                f"got {list(entry.shape)}"
            )
        entries.append(None if entry is None else entry.reshape(-1).expand(heads))
    return entries
