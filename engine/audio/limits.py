"""How long a recording or text may be: as far as the model has positions, and encoding it memory."""

import os
from collections.abc import Callable
from typing import Any

import torch

LONGEST_EVER = 24 * 3600.0  # seconds
_MOST_TOKENS = 1 << 24  # no table of positions is so long
# Of the memory that there is; the rest is for the weights, the cache and everybody else.
_SHARE = 0.25


def longest_seconds(model: Any, feature_extractor: Any) -> float:
    """Seconds of the longest recording that is taken at once."""

    rate = feature_extractor.sampling_rate
    too_many = int(min(LONGEST_EVER * rate, _samples_in_memory(model)))

    def fits(samples: int) -> bool:
        return _takes(model, max(feature_extractor.frame_count(samples), 1))

    return _most_below(too_many, fits) / rate


def _samples_in_memory(model: Any) -> float:
    """Samples whose encoding fits into a share of the memory; the first convolutions take the most of it."""
    config = getattr(model.config, "encoder", model.config)
    widths, strides = getattr(config, "conv_dim", None), getattr(config, "conv_stride", None)
    if not widths or not strides:  # reads filter banks: a hundredth of the numbers
        return float("inf")
    hop, numbers = 1, 0.0
    for width, stride in zip(widths, strides, strict=True):
        hop *= stride
        numbers = max(numbers, width / hop)
    # What a convolution reads, what it writes, and a norm of that.
    return _SHARE * _memory(model.device) / (3 * numbers * model.dtype.itemsize)


def _memory(device: torch.device) -> float:
    """Bytes of memory of a device; infinite where the system does not say."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    if not hasattr(os, "sysconf"):
        return float("inf")
    return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")


def longest_text(model: Any) -> int | None:
    """Tokens of the longest text that the model has positions for; None where it has no limit."""
    if _takes(model, _MOST_TOKENS):
        return None
    return _most_below(_MOST_TOKENS, lambda tokens: _takes(model, tokens))


def _takes(model: Any, frames: int) -> bool:
    """Whether a model has positions for so many frames or tokens."""
    try:
        model.encoder_length(frames)
    except ValueError:
        return False
    return True


def _most_below(too_many: int, fits: Callable[[int], bool]) -> int:
    """The largest number below `too_many` that fits, found by halving."""
    most = 0
    while too_many - most > 1:
        middle = (most + too_many) // 2
        most, too_many = (middle, too_many) if fits(middle) else (most, middle)
    return most
