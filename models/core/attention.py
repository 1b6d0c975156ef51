"""How layers attend over packed sequences; a decode step over pages is in `scheduler.cache`."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ...kernels.attention.flash import attention_weights, flash_attention, weighted_values
from ...kernels.runtime.packing import cumulative, spans
from .padding import Places

# [layers, heads], or one entry a layer: what the weights of its heads are multiplied by, None for nothing.
HeadMask = Tensor | Sequence[Tensor | None]


class DecoderAttention(Protocol):
    """The attention layout a decoder is given; layers are numbered from 0."""

    @property
    def crosses(self) -> bool:
        """Whether there is an encoder's output; without it layers leave their cross-attention out."""
        ...

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attend to this call's and all earlier tokens; [tokens, heads, head_dim] in and out."""
        ...

    def cross_attention(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Attend to the encoder's keys and values; [tokens, heads, head_dim] in and out."""
        ...


class StackAttention:
    """One attention, self or cross, of all layers of a stack, over packed sequences.

    Args:
        cu_query, cu_key: int32 [n + 1] each; the same n sequences.
        causal: a query sees the keys up to its own place, both ends aligned.
        dropout: of the attention weights, for training.
        head_mask: for each layer what the weights of its heads are multiplied by, see `head_masks`.
        record: keep each layer's weights in `weights`: [heads, queries, keys] for each sequence, after
            dropout and head mask, as transformers returns them. None otherwise.
        windows: for each layer how many keys a causal query sees, None for all; None where no layer has any.
    """

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

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attend in one layer: query, key and value [tokens, heads, head_dim] to the query's shape."""
        window = None if self.windows is None else self.windows[layer]
        if self.weights is None:
            mixed = self._attend(query, key, value, scale, window)
        else:
            weights = self._weigh(query, key, scale, window)
            # What is recorded must be what was used, and dropout draws anew each time. Without it the
            # output is made the usual way, so that asking for weights does not change a result's bits.
            mixed = (
                weighted_values(weights, value, self.cu_key)
                if self.dropout
                else self._attend(query, key, value, scale, window)
            )
            self.weights.append(weights)
        mask = None if self.head_mask is None else self.head_mask[layer]
        if mask is None:
            return mixed
        if self.weights is not None:
            self.weights[-1] = [weight * mask.to(weight)[:, None, None] for weight in self.weights[-1]]
        # A head's output is linear in its weights, so the mask may follow the kernel.
        return mixed * mask.to(mixed)[:, None]

    def _weigh(self, query: Tensor, key: Tensor, scale: float, window: int | None) -> list[Tensor]:
        return attention_weights(
            query,
            key,
            self.cu_query,
            self.cu_key,
            causal=self.causal,
            scale=scale,
            window=window,
            dropout=self.dropout,
        )

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        return flash_attention(
            query,
            key,
            value,
            self.cu_query,
            self.cu_key,
            causal=self.causal,
            scale=scale,
            window=window,
            dropout=self.dropout,
        )


class PackedAttention:
    """A decoder's attention over several tokens of every sequence at once, beside its encoder output.

    Args:
        places: where the sequences' tokens lie in padded tensors.
        cross_key_values: keys and values of the encoder's tokens, [source tokens, heads, head_dim], a pair
            a layer; None where there is no encoder.
        past: keys and values of each sequence's earlier tokens, packed, a pair a layer.
        causal: a token sees itself and those before it; else all of its sequence.
        head_mask, cross_head_mask: see `StackAttention`, as are dropout, record and windows.
    """

    def __init__(
        self,
        places: Places,
        cross_key_values: list[tuple[Tensor, Tensor]] | None,
        past: list[tuple[Tensor, Tensor]] | None = None,
        *,
        causal: bool = True,
        head_mask: Sequence[Tensor | None] | None = None,
        cross_head_mask: Sequence[Tensor | None] | None = None,
        dropout: float = 0.0,
        record: bool = False,
        windows: Sequence[int | None] | None = None,
    ) -> None:
        target, source = cumulative(places.target.sum(1)), cumulative(places.source.sum(1))
        earlier, seen = cumulative(places.past.sum(1)), cumulative(places.seen.sum(1))
        self.own = StackAttention(
            target,
            seen,
            causal=causal,
            dropout=dropout,
            head_mask=head_mask,
            record=record,
            windows=windows,
        )
        self.cross = StackAttention(target, source, dropout=dropout, head_mask=cross_head_mask, record=record)
        self.cross_key_values = cross_key_values
        self.past = past
        self.order = interleaved(earlier, target) if past is not None else None
        # This call's keys and values, by layer: a skipped layer has none.
        self.key_values: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def crosses(self) -> bool:
        """See `DecoderAttention`."""
        return self.cross_key_values is not None

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `DecoderAttention`."""
        self.key_values[layer] = (key, value)
        if self.past is not None:
            past_key, past_value = self.past[layer]
            key = torch.cat([past_key, key])[self.order]
            value = torch.cat([past_value, value])[self.order]
        return self.own(layer, query, key, value, scale)

    def cross_attention(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """See `DecoderAttention`."""
        assert self.cross_key_values is not None  # layers look at `crosses` first
        key, value = self.cross_key_values[layer]
        return self.cross(layer, query, key, value, scale)


class PackedSelfAttention:
    """Self-attention over whole packed sequences with nothing before them and no encoder beside them.

    Args:
        cu_seqlens: int32 [n + 1].
        causal: a token sees itself and those before it; else all of its sequence.
        windows: see `StackAttention`.
    """

    crosses = False

    def __init__(
        self, cu_seqlens: Tensor, *, causal: bool, windows: Sequence[int | None] | None = None
    ) -> None:
        self.own = StackAttention(cu_seqlens, cu_seqlens, causal=causal, windows=windows)

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `DecoderAttention`."""
        return self.own(layer, query, key, value, scale)

    def cross_attention(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Not to be called: there is nothing to attend to.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"layer {layer} attends to an encoder's output, and there is none")


def interleaved(cu_first: Tensor, cu_second: Tensor) -> Tensor:
    """Rows of `torch.cat([first, second])`, both packed, as each sequence's first and then its second."""
    shift = int(cu_first[-1])
    pieces = [
        piece
        for (a, b), (c, d) in zip(spans(cu_first), spans(cu_second), strict=True)
        for piece in (torch.arange(a, b), torch.arange(c + shift, d + shift))
    ]
    return torch.cat([torch.empty(0, dtype=torch.int64), *pieces]).to(cu_first.device)


def head_masks(mask: HeadMask | None, layers: int, heads: int, name: str) -> list[Tensor | None] | None:
    """A head mask as one [heads] tensor a layer, None where a layer's heads all count.

    Args:
        mask: [layers, heads], or [layers] where a layer's heads share a number, or one entry a layer, each
            [heads], a single number or None. 1 keeps a head, 0 silences it.
        layers, heads: of the stack.
        name: of the argument, for the error.

    Raises:
        ValueError: not one entry for each layer, or an entry that is not one number for each head.
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
