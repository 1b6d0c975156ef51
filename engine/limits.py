"""How long a recording may be: as far as the model has positions, and encoding it memory."""

import os
from typing import Any

import torch

LONGEST_EVER = 24 * 3600.0  # seconds
# Of the memory that there is; the rest is for the weights, the cache and everybody else.
_SHARE = 0.25


def longest_seconds(model: Any, feature_extractor: Any) -> float:
    """Seconds of the longest recording that is taken at once."""

    def fits(samples: int) -> bool:
        try:
            model.encoder_length(max(feature_extractor.frame_count(samples), 1))
        except ValueError:
            return False
        return True

    rate = feature_extractor.sampling_rate
    most, too_many = 0, int(min(LONGEST_EVER * rate, _samples_in_memory(model)))
    while too_many - most > 1:
        middle = (most + too_many) // 2
        most, too_many = (middle, too_many) if fits(middle) else (most, middle)
    return most / rate


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
