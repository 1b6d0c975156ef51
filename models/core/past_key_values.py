"""Key-value cache passed from one call of a decoder to the next, in transformers' form."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .padding import TokenMasks, unpack_heads


class KeyValues(tuple[tuple[Tensor, ...], ...]):
    """Key-value cache of a decoder: for each layer self-attention's key and value, then cross-attention's.

    Each tensor is [batch, heads, length, head_dim], zero where a row has no token.
    """

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of cached decoder tokens per row, padding included."""
        return self[layer_idx][0].shape[2] if self else 0

    @property
    def has_cross(self) -> bool:
        """True where cross-attention keys and values are cached too."""
        return bool(self) and len(self[0]) == 4


def read_key_values(past: Any, layers: int, *, with_cross: bool) -> KeyValues | None:
    """Convert `past_key_values` of any accepted form to `KeyValues`; None where it is empty.

    Args:
        past: `KeyValues`, plain tuples of the same form, or a cache of transformers: `EncoderDecoderCache`,
            or `DynamicCache` for the self-attention alone.
        layers: number of decoder layers.
        with_cross: require cross-attention keys and values.

    Raises:
        ValueError: `past` has another form.
    """
    if past is None or (isinstance(past, tuple) and not past):
        return None
    if is_cache(past):
        length = past.get_seq_length()
        if length == 0:
            return None
        past = _read_cache(past, length, layers)
    elif not isinstance(past, tuple | list):
        raise ValueError(
            f"past_key_values must be what an earlier call returned, or an EncoderDecoderCache; "
            f"got {type(past).__name__}"
        )
    sizes = [len(layer) if isinstance(layer, tuple | list) else 0 for layer in past]
    if sizes != [4] * layers and (with_cross or sizes != [2] * layers):
        form = "(key, value, cross key, cross value)" + ("" if with_cross else " or (key, value)")
        raise ValueError(f"past_key_values must have {form} for each of the {layers} layers, got {sizes}")
    for tensor in (tensor for layer in past for tensor in layer):
        if not isinstance(tensor, Tensor) or tensor.dim() != 4:
            what = list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(
                f"past_key_values must hold tensors [batch, heads, length, head_dim], got {what}"
            )
    return KeyValues(tuple(layer) for layer in past)


def extend_key_values(
    past: Any,
    read: KeyValues | None,
    own: Sequence[tuple[Tensor, Tensor]],
    cross: Sequence[tuple[Tensor, Tensor]] | None,
    masks: TokenMasks,
) -> Any:
    """Append this call's keys and values to those of earlier calls, for the next call.

    A cache of transformers is extended in place, as its callers expect, and returned. A `DynamicCache` has no
    room for the encoder's keys: every call computes them anew.

    Args:
        past: `past_key_values` in any form that `read_key_values` accepts.
        read: result of `read_key_values` for it.
        own: packed key and value of this call in each layer, [target tokens, heads, head_dim].
        cross: the same of cross-attention, [source tokens, heads, head_dim]; None without an encoder.
        masks: masks of the packed tokens in padded tensors.
    """
    layers = []
    for index, (key, value) in enumerate(own):
        mine = unpack_heads(key, masks.target), unpack_heads(value, masks.target)
        its: tuple[Tensor, ...] = ()
        if read is not None and read.has_cross:
            its = read[index][2:]
        elif cross is not None:
            its = unpack_heads(cross[index][0], masks.source), unpack_heads(cross[index][1], masks.source)
        if _is_pair(past):
            past.self_attention_cache.update(*mine, index)
            if its and not past.is_updated.get(index):
                past.cross_attention_cache.update(*its, index)
                past.is_updated[index] = True
        elif is_cache(past):
            past.update(*mine, index)
        elif read is not None:
            mine = torch.cat([read[index][0], mine[0]], dim=2), torch.cat([read[index][1], mine[1]], dim=2)
        layers.append((*mine, *its))
    return past if is_cache(past) else KeyValues(layers)


def is_cache(past: Any) -> bool:
    """True for a cache object of transformers, known by attributes since transformers is no dependency."""
    return _is_pair(past) or all(hasattr(past, name) for name in ("layers", "update", "get_seq_length"))


def _is_pair(past: Any) -> bool:
    """True for an `EncoderDecoderCache` of transformers, known by its attributes."""
    return hasattr(past, "self_attention_cache") and hasattr(past, "cross_attention_cache")


def _read_cache(past: Any, length: int, layers: int) -> list[tuple[Tensor, ...]]:
    """Keys and values of the first `length` tokens in each layer of a transformers cache.

    A cache made from BART's configuration has as many layers as the encoder; surplus ones stay empty.
    """
    own = past.self_attention_cache.layers if _is_pair(past) else past.layers
    layer_pairs: list[tuple[Tensor, ...]] = [
        (layer.keys[:, :, :length], layer.values[:, :, :length]) for layer in own[:layers]
    ]
    cross = past.cross_attention_cache.layers[:layers] if _is_pair(past) else []
    # Allocated but empty where the earlier calls had no encoder.
    if not cross or getattr(cross[0], "keys", None) is None or not cross[0].keys.numel():
        return layer_pairs
    return [(*mine, its.keys, its.values) for mine, its in zip(layer_pairs, cross, strict=True)]
