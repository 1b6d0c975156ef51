"""Keys and values that one call of a decoder leaves to the next, in transformers' form."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .padded import Places, unpack_heads


class KeyValues(tuple[tuple[Tensor, Tensor, Tensor, Tensor], ...]):
    """For each layer its self-attention's key and value, then its cross-attention's.

    Each is [batch, heads, length, head_dim], zero where a row has no token.
    """

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Decoder tokens that it holds, a padded row's padding counted."""
        return self[layer_idx][0].shape[2] if self else 0


def read_key_values(past: Any, layers: int) -> KeyValues | None:
    """What an earlier call left, whichever way it comes; None where there is nothing yet.

    Args:
        past: `KeyValues`, plain tuples of the same form, or transformers' `EncoderDecoderCache`.
        layers: of the decoder.

    Raises:
        ValueError: another form.
    """
    if past is None or (isinstance(past, tuple) and not past):
        return None
    if is_cache(past):
        length = past.get_seq_length()
        if length == 0:
            return None
        own, cross = past.self_attention_cache.layers, past.cross_attention_cache.layers
        past = [
            (mine.keys[:, :, :length], mine.values[:, :, :length], its.keys, its.values)
            for mine, its in zip(own, cross, strict=True)
        ]
    elif not isinstance(past, tuple | list):
        raise ValueError(
            f"past_key_values must be what an earlier call returned, or an EncoderDecoderCache; "
            f"got {type(past).__name__}"
        )
    if len(past) != layers or any(len(layer) != 4 for layer in past):
        raise ValueError(
            f"past_key_values must have (key, value, cross key, cross value) for each of the {layers} "
            f"layers, got {[len(layer) for layer in past]}"
        )
    return KeyValues(tuple(layer) for layer in past)


def extend_key_values(
    past: Any,
    held: KeyValues | None,
    own: Sequence[tuple[Tensor, Tensor]],
    cross: Sequence[tuple[Tensor, Tensor]],
    places: Places,
) -> Any:
    """What the next call needs: what was held, and this call's own.

    transformers' cache is extended where it lies, as callers that keep it expect, and returned.

    Args:
        past: what the caller gave.
        held: what `read_key_values` read of it.
        own: this call's keys and values, [target tokens, heads, head_dim], packed, a pair a layer.
        cross: the encoder's, [source tokens, heads, head_dim], a pair a layer.
        places: where they lie in padded tensors.
    """
    layers = []
    for index, ((key, value), (cross_key, cross_value)) in enumerate(zip(own, cross, strict=True)):
        mine = unpack_heads(key, places.target), unpack_heads(value, places.target)
        if held is not None:
            its = held[index][2:]
        else:
            its = unpack_heads(cross_key, places.source), unpack_heads(cross_value, places.source)
        if is_cache(past):
            past.self_attention_cache.update(*mine, index)
            if not past.is_updated.get(index):
                past.cross_attention_cache.update(*its, index)
                past.is_updated[index] = True
        elif held is not None:
            mine = torch.cat([held[index][0], mine[0]], dim=2), torch.cat([held[index][1], mine[1]], dim=2)
        layers.append((*mine, *its))
    return past if is_cache(past) else KeyValues(layers)


def is_cache(past: Any) -> bool:
    """Whether this is transformers' `EncoderDecoderCache`, known by what it offers."""
    return hasattr(past, "self_attention_cache") and hasattr(past, "cross_attention_cache")
