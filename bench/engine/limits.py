"""How fast a device could transcribe at most: arithmetic, and the bytes that decoding cannot do without."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

import tritone

from ..common.roofline import Peaks, find_peaks
from ..common.workload import Recording


@dataclass(frozen=True, slots=True)
class Demand:
    """What recordings cost. Encoding is arithmetic; decoding also reads the keys and values of the encoder
    again for every token, and on a GPU the two do not overlap well enough to count on: they add.

    Args:
        operations: multiplications and additions.
        bytes: of cross-attention's keys and values, read once a token for all beams of a request.
    """

    operations: float
    bytes: float

    def seconds(self, peaks: Peaks) -> float:
        """The least that they take."""
        return self.operations / peaks.operations + self.bytes / peaks.bytes


def demand(
    config: tritone.Speech2TextConfig, recordings: Sequence[Recording], beams: int, itemsize: int
) -> Demand:
    """Counted from the shapes, convolution to vocabulary. Left out, as a few per cent: the filter bank,
    norms, self-attention, and the weights, which many sequences share."""
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
    """A device's ceilings: known, or measured here and now."""
    return find_peaks(device) if device.type == "cuda" else _cpu_peaks()


def _cpu_peaks() -> Peaks:
    """The best of a few float32 products and copies. Other programs on the machine make it less."""
    side = 1536
    left, right = torch.randn(side, side), torch.randn(side, side)
    source = torch.ones(1 << 25)
    target = torch.empty_like(source)
    product = min(_seconds_of(lambda: left @ right) for _ in range(5))
    copy = min(_seconds_of(lambda: target.copy_(source)) for _ in range(5))
    threads = torch.get_num_threads()
    return Peaks(
        f"CPU, {threads} thread{'s' if threads > 1 else ''}",
        operations=2 * side**3 / product,
        bytes=2 * 4 * len(source) / copy,
        source="measured at the start, float32",
    )


def _seconds_of(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
