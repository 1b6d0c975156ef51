"""Packing of requests' inputs to one feature tensor, with features extracted from waveforms."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..kernels.runtime.packing import cumulative
from .request import Request


def uploaded(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device without waiting.

    A GPU copies it from pinned memory in the order of its launches; a blocking copy would wait for all
    earlier ones.
    """
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    # torch reuses pinned memory only when the copies out of it are done.
    return tensor.pin_memory().to(device, non_blocking=True)


class FrontEnd(Protocol):
    """Protocol of extractors of a model's features from waveforms."""

    def frame_count(self, samples: int) -> int: ...
    def extract_packed(self, waveforms: Tensor, cu_samples: Tensor) -> tuple[Tensor, Tensor]: ...


def frames_of(request: Request, front_end: FrontEnd | None) -> int:
    """Number of frames of a request's features, given or extracted from its waveform.

    Raises:
        ValueError: a waveform without a front end, or an input of less than one frame.
    """
    if request.inputs.dim() == 0:
        raise ValueError("inputs must be samples or features [frames, features], got a tensor of shape []")
    size = request.inputs.shape[0]
    if request.inputs.dim() > 1:
        if size == 0:
            raise ValueError("features of no frames were given; there is nothing to transcribe")
        return size
    if front_end is None:
        raise ValueError("this loop takes features [frames, features]; extract them from the waveform first")
    frames = front_end.frame_count(size)
    if frames == 0:
        raise ValueError(
            f"{size} samples are shorter than one frame of 25 ms; there is nothing to transcribe"
        )
    return frames


def pack_inputs(
    requests: Sequence[Request], front_end: FrontEnd | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Pack the features of all requests, as submitted or extracted from waveforms.

    Returns:
        Features [frames, features] and cu_frames, int32 [requests + 1], on `device`.
    """
    parts: list[Tensor | None] = [
        None if request.inputs.dim() == 1 else request.inputs for request in requests
    ]
    waveforms = [request.inputs for request in requests if request.inputs.dim() == 1]
    if waveforms and front_end is not None:
        packed = _joined(waveforms, device)
        features, cu_frames = front_end.extract_packed(packed, cumulative(list(map(len, waveforms)), device))
        if len(waveforms) == len(requests):
            return features, cu_frames
        extracted = iter(features.split((cu_frames[1:] - cu_frames[:-1]).tolist()))
        parts = [next(extracted) if part is None else part for part in parts]
    given = [part for part in parts if part is not None]
    return _joined(given, device), cumulative([part.shape[0] for part in given], device)


def _joined(parts: list[Tensor], device: torch.device) -> Tensor:
    """Concatenate tensors on the device; host tensors are copied at once, through pinned memory."""
    first = parts[0]
    if device.type != "cuda" or any(part.is_cuda or part.dtype != first.dtype for part in parts):
        return torch.cat([part.to(device) for part in parts])
    size = sum(part.shape[0] for part in parts), *first.shape[1:]
    pinned = torch.empty(size, dtype=first.dtype, pin_memory=True)
    torch.cat(parts, out=pinned)
    return pinned.to(device, non_blocking=True)
