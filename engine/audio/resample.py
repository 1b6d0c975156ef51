"""Resampling of a stream, block by block."""

from collections.abc import Iterator

import numpy as np

from .packages import package


def resample(chunks: Iterator[tuple[np.ndarray, int]], sampling_rate: int) -> Iterator[np.ndarray]:
    """Convert float32 [samples] with their rates in Hz to one rate, by soxr at its high quality.

    The result is to the bit that of resampling at once, whatever the size of the blocks.
    """
    current, stream = sampling_rate, None
    for samples, rate in chunks:
        if rate != current:
            if stream is not None:
                yield stream.resample_chunk(np.empty(0, np.float32), last=True)
            stream = None
            if rate != sampling_rate:
                soxr = package("soxr", f"resampling {rate} Hz to {sampling_rate} Hz")
                stream = soxr.ResampleStream(rate, sampling_rate, 1, dtype="float32", quality="HQ")
            current = rate
        yield samples if stream is None else stream.resample_chunk(np.ascontiguousarray(samples))
    if stream is not None:
        yield stream.resample_chunk(np.empty(0, np.float32), last=True)
