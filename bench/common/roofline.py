"""Roofline: a device's ceilings, and the work that they bound."""

from dataclasses import dataclass

import torch
from triton.testing import do_bench

# Measured on the devices named: bf16 operations and copied bytes (read and written) a second.
KNOWN = {"H200": (790e12, 4.3e12)}


@dataclass(frozen=True, slots=True)
class Peaks:
    """Ceilings of a device."""

    device: str  # its name
    operations: float  # a second, in bf16 matrix products
    bytes: float  # a second, read and written
    source: str  # of the two
    measured_operations: float | None = None  # at the start of this run
    measured_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """The least work of a call, counted from its shapes.

    Args:
        operations: multiplications and additions.
        bytes: inputs read once and outputs written once.
        dense: operations with every linear step as a product with a full matrix, for matrix units; None if
            the same.
    """

    operations: float
    bytes: float
    dense: float | None = None

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.operations / self.bytes

    def floor(self, peaks: Peaks) -> float:
        """Lower bound of the seconds on a device: the longer of arithmetic and traffic."""
        return max(self.operations / peaks.operations, self.bytes / peaks.bytes)

    def dense_floor(self, peaks: Peaks) -> float:
        """`floor` of full matrix products."""
        dense = self.operations if self.dense is None else self.dense
        return max(dense / peaks.operations, self.bytes / peaks.bytes)


def find_peaks(device: torch.device) -> Peaks:
    """Measure both ceilings; a device of `KNOWN` keeps its known numbers as the ceilings."""
    name = torch.cuda.get_device_name(device)
    operations, bandwidth = measure_products(device), measure_copy(device)
    for known, (known_operations, known_bytes) in KNOWN.items():
        if known in name:
            return Peaks(name, known_operations, known_bytes, f"known of {known}", operations, bandwidth)
    return Peaks(name, operations, bandwidth, "measured at the start", operations, bandwidth)


def measure_copy(device: torch.device) -> float:
    """Bytes a second of a copy far larger than any cache."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    milliseconds = do_bench(lambda: target.copy_(source), warmup=20, rep=100, return_mode="median")
    return 2 * source.numel() / (milliseconds * 1e-3)


def measure_products(device: torch.device) -> float:
    """bf16 operations a second of a large square product of random numbers."""
    size = 8192
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    milliseconds = do_bench(lambda: left @ right, warmup=50, rep=200, return_mode="median")
    return 2 * size**3 / (milliseconds * 1e-3)
