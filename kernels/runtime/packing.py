"""Packed batches: sequences concatenated without padding, and their offsets `cu_seqlens`."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from weakref import ref

import torch
from torch import Tensor

from .upload import upload, upload_all


@dataclass(slots=True)
class _HostSide:
    """Facts that the host knows about offsets on another device."""

    tensor: "ref[Tensor]"
    offsets: list[int]
    following: dict[Hashable, Tensor] = field(default_factory=dict)  # results of `offsets_after`


# By the identity of the offsets' tensor, while that lives: reading it back would wait for the device. Not in
# `weight_cache`, since the values cannot be made from the tensor without that wait.
_host_sides: dict[int, _HostSide] = {}


def cumulative(lengths: Tensor | list[int], device: torch.device | str | None = None) -> Tensor:
    """Offsets `cu_seqlens` of n packed sequences from their lengths: int32 [n + 1], the first 0.

    They must not be changed in place, since values derived from them are cached. They come to the device
    without waiting for it, and the host keeps them too, for `spans`.
    """
    if isinstance(lengths, list) and device is not None:
        return _cumulative_each([lengths], torch.device(device))[0]
    counts = torch.as_tensor(lengths, dtype=torch.int32)
    offsets = torch.zeros(counts.numel() + 1, dtype=torch.int32, device=counts.device)
    torch.cumsum(counts, 0, dtype=torch.int32, out=offsets[1:])
    if device is None or offsets.device == torch.device(device):
        return offsets
    return keep_on_host(upload(offsets, torch.device(device)), offsets.tolist())


def keep_on_host(cu_seqlens: Tensor, offsets: list[int]) -> Tensor:
    """Keep the values of offsets that were copied to a device, for `spans`, and return their tensor."""
    if cu_seqlens.device.type != "cpu":
        key = id(cu_seqlens)
        _host_sides[key] = _HostSide(ref(cu_seqlens, lambda _: _host_sides.pop(key, None)), offsets)
    return cu_seqlens


def spans(cu_seqlens: Tensor) -> list[tuple[int, int]]:
    """(start, end) rows of each packed sequence; waits for a device unless the host knows the offsets."""
    known = _host_sides.get(id(cu_seqlens))
    return list(pairwise(cu_seqlens.tolist() if known is None else known.offsets))


def lengths_of(cu_seqlens: Tensor) -> list[int]:
    """Number of rows of each packed sequence; waits as `spans` does."""
    return [end - start for start, end in spans(cu_seqlens)]


def offsets_after(
    cu_seqlens: Tensor, length: Callable[[int, int, int], int], *layers: tuple[int, int]
) -> list[Tensor]:
    """Offsets `cu_seqlens` after each of several convolutions in a row, with one copy to the device for all.

    Called for all layers before the first, so that later calls for each of them find what they need.

    Args:
        cu_seqlens: offsets of the first layer's inputs.
        length: function of a sequence's length, kernel and stride, to the number of outputs.
        layers: kernel and stride of each convolution.
    """
    found: list[Tensor] = []
    for layer in layers:
        known = _host_sides.get(id(cu_seqlens))
        if known is None or (length, *layer) not in known.following:
            break
        cu_seqlens = known.following[(length, *layer)]
        found.append(cu_seqlens)
    if len(found) == len(layers):
        return found
    lengths, counts = lengths_of(cu_seqlens), []
    for kernel, stride in layers[len(found) :]:
        lengths = [length(one, kernel, stride) for one in lengths]
        counts.append(lengths)
    for layer, result in zip(layers[len(found) :], _cumulative_each(counts, cu_seqlens.device), strict=True):
        if cu_seqlens.device.type != "cpu" and (known := _host_sides.get(id(cu_seqlens))) is not None:
            known.following[(length, *layer)] = result
        cu_seqlens = result
        found.append(result)
    return found


def _cumulative_each(lengths: Sequence[list[int]], device: torch.device) -> list[Tensor]:
    offsets = [[0, *accumulate(counts)] for counts in lengths]
    tensors = upload_all([torch.tensor(one, dtype=torch.int32) for one in offsets], device)
    return [keep_on_host(tensor, one) for tensor, one in zip(tensors, offsets, strict=True)]


def index_table(function: Callable[..., Tensor], *cu_seqlens: Tensor, **options: int) -> Tensor:
    """Compute a table of indices from offsets: on the host, and copied, where the host knows them.

    The table's many small operations would each be a launch on a GPU.

    Args:
        function: function of the offsets and options.
        cu_seqlens: offsets, all on one device.
    """
    known = [_host_sides.get(id(one)) for one in cu_seqlens]
    offsets = [torch.tensor(one.offsets, dtype=torch.int32) for one in known if one is not None]
    if len(offsets) < len(cu_seqlens) or cu_seqlens[0].device.type != "cuda":
        return function(*cu_seqlens, **options)
    return upload(function(*offsets, **options), cu_seqlens[0].device)


def positions_within(cu_seqlens: Tensor, total: int) -> Tensor:
    """Position of each packed token in its own sequence, int64 [total]."""
    return index_table(_positions_within, cu_seqlens, total=total)


def _positions_within(cu_seqlens: Tensor, total: int) -> Tensor:
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
    if cu_seqlens.dtype is not torch.int32 or cu_seqlens.dim() != 1 or cu_seqlens.numel() == 0:
        raise ValueError(
            f"{name} must be an int32 tensor of length n + 1, "
            f"got {cu_seqlens.dtype} of shape {tuple(cu_seqlens.shape)}"
        )
    if not cu_seqlens.is_cpu:
        return
    offsets = cu_seqlens.tolist()
    if offsets[0] != 0 or offsets[-1] != total or any(a > b for a, b in pairwise(offsets)):
        raise ValueError(
            f"{name} must rise from 0 to the {total} packed rows, got {offsets[:4]}...{offsets[-1]}"
        )
