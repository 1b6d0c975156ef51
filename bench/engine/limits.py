"""Upper bound of a device's throughput: arithmetic, and the bytes that decoding has to read."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

import tritone

from ..common.machine import cpu_threads
from ..common.roofline import Peaks, find_peaks
from ..common.workload import Recording


@dataclass(frozen=True, slots=True)
class Demand:
    """The least work of recordings. Encoding is arithmetic; decoding also reads the encoder's keys and values
    again for every token. The two add: on a GPU they do not reliably overlap."""

    operations: float  # multiplications and additions
    bytes: float  # of cross-attention's keys and values, read once a token for all beams of a request

    def seconds(self, peaks: Peaks) -> float:
        """Lower bound of the time."""
        return self.operations / peaks.operations + self.bytes / peaks.bytes


def demand(
    config: tritone.Speech2TextConfig, recordings: Sequence[Recording], beams: int, itemsize: int
) -> Demand:
    """Count work from the shapes, convolution to vocabulary; without a few per cent: the filter bank, norms,
    self-attention, and the weights, which many sequences share."""
    width, layers = config.d_model, config.decoder_layers
    inside = config.encoder_ffn_dim
    operations = traffic = 0.0
    for recording in recordings:
        frames = len(recording.features)
        half, channels = -(-frames // 2), config.conv_channels
        length = -(-half // 2)
        first, second = config.conv_kernel_sizes
        features = config.input_feat_per_channel * config.input_channels
        operations += 2 * half * first * features * channels
        operations += 2 * length * second * (channels // 2) * 2 * width
        operations += 2 * length * config.encoder_layers * (4 * width**2 + 2 * width * inside)
        operations += 4 * length**2 * width * config.encoder_layers
        operations += 2 * length * layers * 2 * width**2  # cross-attention's keys and values
        rows = recording.tokens * beams
        operations += 2 * rows * layers * (6 * width**2 + 2 * width * config.decoder_ffn_dim)
        operations += 4 * rows * length * width * layers + 2 * rows * width * config.vocab_size
        traffic += recording.tokens * 2 * length * width * layers * itemsize
    return Demand(operations, traffic)


def peaks_of(device: torch.device) -> Peaks:
    """A device's ceilings, known or measured now."""
    return find_peaks(device) if device.type == "cuda" else _cpu_peaks()


def _cpu_peaks() -> Peaks:
    """The best of a few float32 products and copies; other programs on the machine lower it."""
    size = 1536
    left, right = torch.randn(size, size), torch.randn(size, size)
    source = torch.ones(1 << 25)
    target = torch.empty_like(source)
    product = min(_seconds_of(lambda: left @ right) for _ in range(5))
    copy = min(_seconds_of(lambda: target.copy_(source)) for _ in range(5))
    return Peaks(
        cpu_threads(),
        operations=2 * size**3 / product,
        bytes=2 * 4 * len(source) / copy,
        source="measured at the start, float32",
    )


def _seconds_of(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
