"""The compatibility surface: padded tensors are packed where they enter and unpacked where they leave."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.packing import cumulative, pack


def pack_features(input_features: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Padded features [batch, frames, features] to packed ones and their cu_seqlens.

    Raises:
        ValueError: not three-dimensional, a mask of another shape, or one with a row of no frames.
    """
    if input_features.dim() != 3:
        raise ValueError(
            f"input_features must be [batch, frames, features], got {list(input_features.shape)}"
        )
    if attention_mask is None:
        mask = torch.ones(input_features.shape[:2], dtype=torch.bool, device=input_features.device)
    else:
        mask = attention_mask.to(input_features.device).bool()
    if mask.shape != input_features.shape[:2]:
        raise ValueError(f"attention_mask is {list(mask.shape)}, input_features {list(input_features.shape)}")
    lengths = mask.sum(1)
    if lengths.numel() == 0 or int(lengths.min()) == 0:
        raise ValueError("attention_mask has a row without frames; every recording needs at least one")
    return pack(input_features, mask), cumulative(lengths)


def mask_of(lengths: list[int], width: int, device: torch.device) -> Tensor:
    """True for the first `lengths[i]` of row i: bool [rows, width]."""
    return torch.arange(width, device=device)[None] < torch.tensor(lengths, device=device)[:, None]


def pad_weights(
    layers: list[list[Tensor]] | None, rows: Tensor, columns: Tensor
) -> tuple[Tensor, ...] | None:
    """Each layer's weights, [heads, target, source] a sequence, as [batch, heads, target, source]."""
    if not layers:
        return None
    padded = []
    for weights in layers:
        out = weights[0].new_zeros(len(weights), weights[0].shape[0], rows.shape[1], columns.shape[1])
        padded.append(
            torch.stack(
                [F.pad(w, (0, out.shape[3] - w.shape[2], 0, out.shape[2] - w.shape[1])) for w in weights]
            )
        )
    return tuple(padded)
