"""Arrays and tensors of samples as float32.

torch is not imported here: an array is tested for being a tensor only if the caller has imported torch.
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import AudioError

_PCM = (np.int8, np.int16, np.int32)


def split_rate(source: Any) -> tuple[Any, int | None]:
    """Split a source that names its rate into the two: (array, rate), or a row of Hugging Face's datasets.

    Args:
        source: pair (array, rate in Hz); mapping with `array` and `sampling_rate`, or with `bytes` or `path`
            of encoded audio; any other source is returned as it is, without a rate.

    Raises:
        AudioError: a mapping without a recording.
    """
    if isinstance(source, Mapping):
        if source.get("array") is not None:
            return source["array"], source.get("sampling_rate")
        encoded = source.get("bytes") or source.get("path")
        if encoded is None:
            raise AudioError(
                f"a mapping with the keys {', '.join(map(repr, source)) or 'none'}; it needs 'array' and "
                "'sampling_rate', or 'bytes' or 'path'"
            )
        return encoded, None
    is_pair = isinstance(source, tuple) and len(source) == 2 and not isinstance(source[0], str)
    return source if is_pair else (source, None)


def as_samples(source: Any) -> np.ndarray:
    """Copy a numpy array or torch tensor to float32 [samples] or [samples, channels].

    Raises:
        AudioError: an unsupported type, not 1 or 2 dimensions, or channels before samples.
    """
    return to_float(as_array(source))


def as_array(source: Any) -> np.ndarray:
    """View a numpy array or torch tensor as an array of its own sample type, and check its shape and type.

    Raises:
        AudioError: an unsupported type, not 1 or 2 dimensions, or channels before samples.
    """
    if (torch := sys.modules.get("torch")) is not None and isinstance(source, torch.Tensor):
        tensor = source.detach().cpu()
        source = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if not isinstance(source, np.ndarray):
        raise AudioError(
            f"cannot read audio from {type(source).__name__}; "
            "pass a path, bytes, a binary file object, a numpy array or a torch tensor of samples"
        )
    if source.ndim not in (1, 2):
        raise AudioError(
            f"array {source.shape}: has {source.ndim} dimensions; pass [samples] or [samples, channels]"
        )
    if source.ndim == 2 and 0 < source.shape[0] < source.shape[1]:
        raise AudioError(
            f"array {source.shape}: reads as {source.shape[1]} channels of {source.shape[0]} samples; "
            "pass [samples, channels], for instance array.T"
        )
    if source.dtype.kind != "f" and source.dtype not in (np.uint8, *_PCM):
        raise AudioError(
            f"array {source.shape}: samples of type {source.dtype}; "
            "pass floats in -1..1, or int16, int32 or uint8 PCM"
        )
    return source


def to_float(samples: np.ndarray) -> np.ndarray:
    """Copy samples to float32: integers are PCM, scaled to -1..1."""
    if samples.dtype == np.uint8:  # the one unsigned PCM: silence is 128
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype in _PCM:
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    with np.errstate(over="ignore"):
        return np.array(samples, dtype=np.float32)
