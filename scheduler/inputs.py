"""Packing of requests' inputs to one feature tensor, with features extracted from waveforms."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..kernels.features.log_mel import Excerpt
from ..kernels.runtime.packing import cumulative, keep_on_host, lengths_of
from ..kernels.runtime.upload import upload, upload_all
from .request import AudioExcerpt, Request


class FrontEnd(Protocol):
    """Protocol of extractors of a model's features from waveforms."""

    def frame_count(self, samples: int) -> int: ...
    def extract_packed(
        self, waveforms: Tensor, cu_samples: Tensor, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class ExcerptFrontEnd(FrontEnd, Protocol):
    """Protocol of front ends that take parts of recordings, `AudioExcerpt`, beside whole ones."""

    def extract_excerpts(
        self,
        waveforms: Tensor,
        cu_samples: Tensor,
        excerpts: Sequence[Excerpt | None],
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor]: ...  # None: a whole recording, as `extract_packed` takes it


def tensor_of(request: Request) -> Tensor:
    """Waveform, features or token ids of a request."""
    return request.inputs.samples if isinstance(request.inputs, AudioExcerpt) else request.inputs


def frames_of(request: Request, front_end: FrontEnd | None) -> int:
    """Number of frames of a request's features, given or extracted from its waveform.

    Raises:
        ValueError: a waveform, or a part of one, without a front end for it, or an input of under one frame.
    """
    if isinstance(request.inputs, AudioExcerpt):
        if not isinstance(front_end, ExcerptFrontEnd):
            name = "no front end" if front_end is None else f"a {type(front_end).__name__}"
            raise ValueError(f"this loop has {name}, which takes no AudioExcerpt; give the whole recording")
        return request.inputs.excerpt.rows
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
    requests: Sequence[Request], front_end: FrontEnd | None, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Pack the features of all requests, as submitted, or extracted from waveforms in a model's dtype.

    Returns:
        Features [frames, features] and cu_frames, int32 [requests + 1], on `device`.
    """
    tensors = [tensor_of(request) for request in requests]
    parts: list[Tensor | None] = [None if tensor.dim() == 1 else tensor for tensor in tensors]
    audio = [request for request, part in zip(requests, parts, strict=True) if part is None]
    if audio and front_end is not None:
        features, cu_frames = _extracted(audio, front_end, device, dtype)
        if len(audio) == len(requests):
            return features, cu_frames
        extracted = iter(features.split(lengths_of(cu_frames)))
        parts = [next(extracted) if part is None else part for part in parts]
    return _joined([part for part in parts if part is not None], device)


def _extracted(
    requests: Sequence[Request], front_end: FrontEnd, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Features of requests with waveforms, packed, and their offsets."""
    packed, cu_samples = _joined([tensor_of(request) for request in requests], device)
    inputs = [request.inputs for request in requests]
    excerpts = [one.excerpt if isinstance(one, AudioExcerpt) else None for one in inputs]
    if isinstance(front_end, ExcerptFrontEnd) and any(excerpts):
        return front_end.extract_excerpts(packed, cu_samples, excerpts, dtype)
    return front_end.extract_packed(packed, cu_samples, dtype)


def _joined(parts: list[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Concatenate tensors on the device, with their cu_seqlens.

    Host tensors in pinned memory are copied there one by one, others all at once, through pinned memory.
    """
    lengths, dtype = [part.shape[0] for part in parts], parts[0].dtype
    if device.type != "cuda" or any(part.is_cuda or part.dtype != dtype for part in parts):
        return torch.cat([upload(part, device) for part in parts]), cumulative(lengths, device)
    offsets = cumulative(lengths)
    if all(part.is_pinned() for part in parts):
        packed = torch.empty((sum(lengths), *parts[0].shape[1:]), dtype=dtype, device=device)
        for own, part in zip(packed.split(lengths), parts, strict=True):
            own.copy_(part, non_blocking=True)
        cu_seqlens = upload(offsets, device)
    else:
        packed, cu_seqlens = upload_all([parts, offsets], device)
    return packed, keep_on_host(cu_seqlens, offsets.tolist())
