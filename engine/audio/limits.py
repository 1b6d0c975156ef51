"""Longest recording and text of a model, bounded by its positions and by memory."""

import os
from collections.abc import Callable
from typing import Any

import torch

from ..config import EngineConfig

_MAX_TOKENS = 1 << 24  # more than any table of positions has


def max_recording_seconds(model: Any, feature_extractor: Any, config: EngineConfig) -> float:
    """Seconds of the longest recording that can be encoded."""
    rate = feature_extractor.sampling_rate
    bound = int(min(config.max_seconds * rate, config.encode_memory_share * _memory_samples(model)))

    def fits(samples: int) -> bool:
        return _has_positions(model, max(feature_extractor.frame_count(samples), 1))

    return _largest(bound, fits) / rate


def max_text_tokens(model: Any) -> int | None:
    """Tokens of the longest text that the model has positions for; None where it has no limit."""
    if _has_positions(model, _MAX_TOKENS):
        return None
    return _largest(_MAX_TOKENS, lambda tokens: _has_positions(model, tokens))


def _memory_samples(model: Any) -> float:
    """Samples that fill the memory when they are encoded; the first convolutions take most of it."""
    config = getattr(model.config, "encoder", model.config)
    widths, strides = getattr(config, "conv_dim", None), getattr(config, "conv_stride", None)
    if not widths or not strides:  # filter banks: a hundredth of the numbers
        return float("inf")
    hop, numbers = 1, 0.0
    for width, stride in zip(widths, strides, strict=True):
        hop *= stride
        numbers = max(numbers, width / hop)
    # The input of a convolution, its output, and a norm of that.
    return _memory(model.device) / (3 * numbers * model.dtype.itemsize)


def _memory(device: torch.device) -> float:
    """Bytes of memory of a device; infinite where the system does not tell."""
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
    """The largest number below `bound` that fits, by bisection."""
    low = 0
    while bound - low > 1:
        middle = (low + bound) // 2
        low, bound = (middle, bound) if fits(middle) else (low, middle)
    return low
