"""Rates of a processor: matrix products and reading of memory, of each thread while all are at work."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...kernels.linear.cpu import multiply
from ...scheduler.device.cpu_pool import CpuWorkerPool, map_parts

_SIZE = 1024  # rows, inputs and outputs of a product: a weight of 4 MB, as those of a large model
_READ_BYTES = 1 << 28  # of each thread, far more than its share of any cache
_CACHE_SHARE = 8  # at most one byte in so many of the memory that is free is read


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates of one thread, by its CPU time, while all threads do the same.

    Args:
        operations: multiplications and additions a second, in products of the model's dtype.
        bytes: bytes a second that are read from memory.
        threads: number of threads.
        dtype: name of the dtype.
    """

    operations: float
    bytes: float
    threads: int
    dtype: str


def measure_rates(dtype: torch.dtype, seconds: float = 1.0) -> Rates:
    """Rates of this process' threads, each measured for about `seconds`."""
    threads = torch.get_num_threads()
    operations = measure_products(dtype, seconds)
    return Rates(operations, _measure_reads(threads, seconds), threads, str(dtype).removeprefix("torch."))


def measure_products(dtype: torch.dtype, seconds: float) -> float:
    """Multiplications and additions a second of a thread, in products as the model's own."""
    weight = torch.randn(_SIZE, _SIZE).to(dtype)
    hidden = torch.randn(_SIZE, _SIZE).to(dtype)
    with torch.inference_mode():
        multiply(hidden, weight, None)  # packs the weight
        return 2 * _SIZE**3 / _on_all_threads(lambda _: multiply(hidden, weight, None), seconds)


def _measure_reads(threads: int, seconds: float) -> float:
    """Bytes a second of a sum over numbers that no cache holds."""
    size = max(min(_READ_BYTES, _free_bytes() // _CACHE_SHARE // threads), 1 << 20) // 4
    numbers = torch.ones(threads, size)
    return 4 * size / _on_all_threads(lambda index: numbers[index].sum(), seconds)


def _on_all_threads(call: Callable[[int], object], seconds: float) -> float:
    """Median CPU time of a call, in as many threads at the same time as torch has."""
    pool = CpuWorkerPool.for_device(torch.device("cpu"))
    end = time.perf_counter() + seconds

    def repeat(index: int) -> list[float]:
        call(index)
        times: list[float] = []
        while not times or time.perf_counter() < end:
            start = time.thread_time()
            call(index)
            times.append(time.thread_time() - start)
        return times

    if pool is None:
        return statistics.median(repeat(0))
    found = pool.run(map_parts, pool, repeat, list(range(pool.size)))
    return statistics.median(one for times in found for one in times)


def _free_bytes() -> int:
    """Bytes of memory that are available; 1 GiB where that is not known."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            sizes = dict(line.split(":") for line in file)
        return int(sizes["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 1 << 30
