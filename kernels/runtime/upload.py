"""Copies of host tensors to a device that never wait for it.

A copy from pageable memory waits until the device has done all work before it. Here values pass through
pinned memory, which torch reuses once the copies out of it are done, and the device copies in the order of
its launches.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

_ALIGNMENT = 16  # bytes, of the tensors in a common copy, as kernels need (`launch.ready`)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device without waiting; one that is there already is returned as it is."""
    if tensor.device.type != "cpu" or device.type != "cuda":
        return tensor.to(device)
    pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
    return pinned.to(device, non_blocking=True)


def upload_all(tensors: Sequence[Tensor | list[Tensor]], device: torch.device) -> list[Tensor]:
    """Copy host tensors to the device in one copy without waiting; the results share one storage there.

    Args:
        tensors: tensors on the host; those of a list become one, concatenated.
        device: device of the results.
    """
    parts = [one if isinstance(one, list) else [one] for one in tensors]
    if device.type != "cuda":
        return [(torch.cat(one) if len(one) > 1 else one[0]).to(device) for one in parts]
    shapes = [(sum(part.shape[0] for part in one), *one[0].shape[1:]) for one in parts]
    sizes = [math.prod(shape) * one[0].itemsize for shape, one in zip(shapes, parts, strict=True)]
    starts = list(accumulate((-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes), initial=0))
    pinned = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=True)

    def views(buffer: Tensor) -> list[Tensor]:
        return [
            buffer[start : start + size].view(one[0].dtype).view(shape)
            for start, size, one, shape in zip(starts, sizes, parts, shapes, strict=False)
        ]

    for one, view in zip(parts, views(pinned), strict=True):
        torch.cat(one, out=view)
    return views(pinned.to(device, non_blocking=True))
