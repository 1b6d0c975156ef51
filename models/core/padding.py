"""Packing of padded inputs, and unpacking of packed outputs, for `forward` and `generate`."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels.runtime.packing import cumulative, pack, unpack


@dataclass(frozen=True)
class TokenMasks:
    """Masks of the real tokens in the padded tensors of a decoder's call, bool [batch, time] each."""

    past: Tensor  # tokens of earlier calls; no columns in the first one
    target: Tensor  # this call's tokens
    source: Tensor  # the encoder's tokens; no columns without an encoder

    @property
    def seen(self) -> Tensor:
        """Mask of the tokens of earlier calls and of this one, bool [batch, time]."""
        return torch.cat([self.past, self.target], dim=1)


def one_input(
    inputs: Tensor | None, input_values: Tensor | None, input_features: Tensor | None
) -> Tensor | None:
    """Input tensor of a model, given under any of its argument names; None where it is missing.

    Raises:
        ValueError: more than one is given.
    """
    named = {"inputs": inputs, "input_values": input_values, "input_features": input_features}
    given = {name: tensor for name, tensor in named.items() if tensor is not None}
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are given at the same time; give one of them")
    return next(iter(given.values()), None)


def check_inputs(
    input_ids: Tensor | None, inputs_embeds: Tensor | None, vocabulary: int, width: int, prefix: str = ""
) -> Tensor:
    """Validate and return the given token ids [batch, tokens] or embeddings [batch, tokens, width].

    Args:
        input_ids, inputs_embeds: token ids and embeddings, one of them None.
        vocabulary, width: sizes of the token-embedding table.
        prefix: prefix of argument names in errors: "decoder_" in a model with an encoder.

    Raises:
        ValueError: none or both given, another shape, or token ids outside the vocabulary.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError(
            f"give the decoder either {prefix}input_ids (or labels), or else {prefix}inputs_embeds"
            if prefix
            else "give either input_ids or inputs_embeds"
        )
    if inputs_embeds is not None:
        if inputs_embeds.dim() != 3 or inputs_embeds.shape[2] != width:
            raise ValueError(
                f"{prefix}inputs_embeds must be [batch, tokens, {width}], got {list(inputs_embeds.shape)}"
            )
        return inputs_embeds
    assert input_ids is not None
    if input_ids.dim() != 2:
        raise ValueError(f"{prefix}input_ids must be [batch, tokens], got {list(input_ids.shape)}")
    if input_ids.numel() and not 0 <= int(input_ids.min()) <= int(input_ids.max()) < vocabulary:
        raise ValueError(
            f"{prefix}input_ids go from {int(input_ids.min())} to {int(input_ids.max())}, and the model "
            f"knows tokens 0 to {vocabulary - 1}"
        )
    return input_ids


def pack_features(input_features: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pack padded features [batch, frames, features] to [all frames, features] and cu_seqlens.

    Raises:
        ValueError: not three-dimensional, a mask of another shape, or one with a row of no frames.
    """
    if input_features.dim() != 3:
        raise ValueError(
            f"input_features must be [batch, frames, features], got {list(input_features.shape)}"
        )
    return _pack(input_features, attention_mask, f"input_features {list(input_features.shape)}", "frames")


def pack_waveforms(input_values: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pack padded waveforms [batch, samples] to [all samples, 1] and cu_seqlens.

    Raises:
        ValueError: not two-dimensional, a mask of another shape, or one with a row of no samples.
    """
    if input_values.dim() != 2:
        raise ValueError(f"input_values must be [batch, samples], got {list(input_values.shape)}")
    what = f"input_values {list(input_values.shape)}"
    return _pack(input_values[..., None], attention_mask, what, "samples")


def _pack(padded: Tensor, attention_mask: Tensor | None, what: str, unit: str) -> tuple[Tensor, Tensor]:
    """Pack a padded batch [batch, time, width] to [rows, width] and cu_seqlens."""
    batch, width = padded.shape[:2]
    if attention_mask is None:
        mask = torch.ones(batch, width, dtype=torch.bool, device=padded.device)
    else:
        mask = attention_mask.to(padded.device).bool()
    if mask.shape != (batch, width):
        raise ValueError(f"attention_mask is {list(mask.shape)}, {what}")
    lengths = mask.sum(1)
    if lengths.numel() == 0 or int(lengths.min()) == 0:
        raise ValueError(f"attention_mask has a row without {unit}; every recording needs at least one")
    return pack(padded, mask), cumulative(lengths)


def mask_of(lengths: list[int], width: int, device: torch.device) -> Tensor:
    """Mask that is true for the first `lengths[i]` columns of row i: bool [rows, width]."""
    return torch.arange(width, device=device)[None] < torch.tensor(lengths, device=device)[:, None]


def as_mask(mask: Tensor | None, batch: int, width: int, device: torch.device, name: str) -> Tensor:
    """Convert a mask to bool [batch, width]; None becomes all true.

    Raises:
        ValueError: the mask has another shape.
    """
    if mask is None:
        return torch.ones(batch, width, dtype=torch.bool, device=device)
    if mask.shape != (batch, width):
        raise ValueError(f"{name} must be {[batch, width]}, got {list(mask.shape)}")
    return mask.to(device).bool()


def unpack_all(packed: list[Tensor] | None, mask: Tensor) -> tuple[Tensor, ...] | None:
    """Unpack tensors [tokens, ...] to [batch, time, ...], zero where `mask` is false; None stays None."""
    return None if packed is None else tuple(unpack(tensor, mask) for tensor in packed)


def pack_heads(padded: Tensor, mask: Tensor) -> Tensor:
    """Pack keys or values [batch, heads, time, head_dim] to [tokens, heads, head_dim], by `mask`."""
    return pack(padded.transpose(1, 2), mask)


def unpack_heads(packed: Tensor, mask: Tensor) -> Tensor:
    """Unpack [tokens, heads, head_dim] to [batch, heads, time, head_dim], zero where `mask` is false."""
    return unpack(packed, mask).transpose(1, 2)


def pad_weights(
    layers: list[list[Tensor]] | None, query_mask: Tensor, key_mask: Tensor
) -> tuple[Tensor, ...] | None:
    """Pad each layer's attention weights to [batch, heads, target, source], zero where a mask is false.

    Args:
        layers: attention weights of each sequence, [heads, queries, keys], by layer.
        query_mask, key_mask: masks of real queries [batch, target] and keys [batch, source], bool.
    """
    if layers is None:
        return None
    indices = [
        (queries.nonzero(), keys.nonzero()[:, 0]) for queries, keys in zip(query_mask, key_mask, strict=True)
    ]
    padded = []
    for weights in layers:
        heads = weights[0].shape[0]
        out = weights[0].new_zeros(len(weights), heads, query_mask.shape[1], key_mask.shape[1])
        for row, (weight, (queries, keys)) in enumerate(zip(weights, indices, strict=True)):
            out[row][:, queries, keys] = weight
        padded.append(out)
    return tuple(padded)
