"""Packed batches: sequences concatenated without padding, and their offsets `cu_seqlens`."""

from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

# Python lists of offsets on another device, while the tensor lives: reading them back waits for the device.
# Not in `weight_cache`, since they cannot be made from the tensor without that wait.
_on_host: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def cumulative(lengths: Tensor | list[int], device: torch.device | str | None = None) -> Tensor:
    """Offsets `cu_seqlens` of n packed sequences from their lengths: int32 [n + 1], the first 0.

    They must not be changed in place, since values derived from them are cached.
    """
    counts = torch.as_tensor(lengths, dtype=torch.int32)
    offsets = torch.zeros(counts.numel() + 1, dtype=torch.int32, device=counts.device)
    torch.cumsum(counts, 0, dtype=torch.int32, out=offsets[1:])
    there = offsets if device is None else offsets.to(device)
    if offsets.device.type == "cpu" and there.device != offsets.device:
        _on_host[there] = offsets.tolist()
    return there


def spans(cu_seqlens: Tensor) -> list[tuple[int, int]]:
    """(start, end) rows of each packed sequence; waits for the device unless `cumulative` made them."""
    offsets = _on_host.get(cu_seqlens)
    return list(pairwise(cu_seqlens.tolist() if offsets is None else offsets))


def positions_within(cu_seqlens: Tensor, total: int) -> Tensor:
    """Position of each packed token in its own sequence, int64 [total]."""
    starts = cu_seqlens[:-1].long()
    lengths = (cu_seqlens[1:] - cu_seqlens[:-1]).long()
    first = torch.repeat_interleave(starts, lengths, output_size=total)
    return torch.arange(total, device=cu_seqlens.device) - first


def aligned(rows: Tensor) -> Tensor:
    """Rows that begin at a multiple of 64 bytes, as a new tensor's do: `rows` itself or a copy.

    MKL chooses the order of some narrow matrix products' sums by the address, and a sequence's address in a
    packed batch depends on the other sequences.
    """
    return rows.clone(memory_format=torch.contiguous_format) if rows.data_ptr() % 64 else rows


def pack(padded: Tensor, mask: Tensor) -> Tensor:
    """Pack `padded` [batch, time, ...] to the tokens where `mask` [batch, time] is true, [tokens, ...]."""
    return padded[mask]


def unpack(packed: Tensor, mask: Tensor) -> Tensor:
    """Pad packed tokens to [batch, time, ...], zero where `mask` is false: the inverse of `pack`."""
    padded = packed.new_zeros(*mask.shape, *packed.shape[1:])
    padded[mask] = packed
    return padded


def check_cu_seqlens(cu_seqlens: Tensor, total: int, name: str) -> None:
    """Validate the offsets of `total` packed rows, as far as possible without waiting for a GPU.

    Raises:
        ValueError: a wrong dtype or shape; on the CPU also values that do not rise from 0 to `total`.
    """
    if cu_seqlens.dtype != torch.int32 or cu_seqlens.dim() != 1 or cu_seqlens.numel() == 0:
        raise ValueError(
            f"{name} must be an int32 tensor of length n + 1, "
            f"got {cu_seqlens.dtype} of shape {tuple(cu_seqlens.shape)}"
        )
    if cu_seqlens.device.type != "cpu":
        return
    offsets = cu_seqlens.tolist()
    if offsets[0] != 0 or offsets[-1] != total or any(a > b for a, b in pairwise(offsets)):
        raise ValueError(
            f"{name} must rise from 0 to the {total} packed rows, got {offsets[:4]}...{offsets[-1]}"
        )
