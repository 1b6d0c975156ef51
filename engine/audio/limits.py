"""Maximum lengths of recordings and texts, from a model's positions and the memory."""

import os
from collections.abc import Callable
from typing import Any

import torch

from ..config import EngineConfig

_MAX_TOKENS = 1 << 24  # more than any position-embedding table has


def max_recording_seconds(model: Any, feature_extractor: Any, config: EngineConfig) -> float:
    """Duration in seconds of the longest recording that the model and the memory allow."""
    rate = feature_extractor.sampling_rate
    bound = int(min(config.max_seconds * rate, config.encode_memory_share * _memory_samples(model)))

    def fits(samples: int) -> bool:
        return _has_positions(model, max(feature_extractor.frame_count(samples), 1))

    return _largest(bound, fits) / rate


def min_recording_samples(model: Any, feature_extractor: Any, bound: int) -> int:
    """Number of samples, up to `bound`, from which on the model has encoder positions for a recording."""

    def too_short(samples: int) -> bool:
        frames = feature_extractor.frame_count(samples)
        return frames < 1 or not _has_positions(model, frames)

    return _largest(bound, too_short) + 1


def max_text_tokens(model: Any) -> int | None:
    """Number of tokens in the longest text that the model has positions for; None without a limit."""
    if _has_positions(model, _MAX_TOKENS):
        return None
    return _largest(_MAX_TOKENS, lambda tokens: _has_positions(model, tokens))


def _memory_samples(model: Any) -> float:
    """Number of samples whose encoding fills the memory, estimated from the model's convolutions."""
    config = getattr(model.config, "encoder", model.config)
    widths, strides = getattr(config, "conv_dim", None), getattr(config, "conv_stride", None)
    if not widths or not strides:  # filter-bank features hold a hundredth of the values
        return float("inf")
    hop, numbers = 1, 0.0
    for width, stride in zip(widths, strides, strict=True):
        hop *= stride
        numbers = max(numbers, width / hop)
    # A convolution's input, its output and the normalized output are in memory at once.
    return _memory(model.device) / (3 * numbers * model.dtype.itemsize)


def _memory(device: torch.device) -> float:
    """Total memory of a device in bytes; infinite where the system does not report it."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    if not hasattr(os, "sysconf"):
        return float("inf")
    return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")


def _has_positions(model: Any, frames: int) -> bool:
    try:
        model.encoder_length(frames)
    except ValueError:
        return False
    return True


def _largest(bound: int, fits: Callable[[int], bool]) -> int:
    """Largest number below `bound` for which `fits` is true, found by bisection."""
    low = 0
    while bound - low > 1:
        middle = (low + bound) // 2
        low, bound = (middle, bound) if fits(middle) else (low, middle)
    return low
