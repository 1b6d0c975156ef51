"""Machine of a measurement: processor, memory, and the load of other processes."""

import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ..config import _cores

_STAT = Path("/proc/stat")  # of Linux
_IDLE = (3, 4)  # columns behind the name: idle, iowait


def describe(device: torch.device) -> dict[str, Any]:
    """Processor, cores, threads and versions."""
    from ... import __version__

    found = {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "tritone": __version__,
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def processor() -> str:
    """Name of the processor, as Linux or else the platform has it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory() -> int | None:
    """Most bytes of memory that this process has had; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class OtherLoad:
    """Share of this process' cores that others take, from its construction on: processes and hypervisor."""

    def __init__(self) -> None:
        self._busy, self._own, self._start = _busy(), time.process_time(), time.perf_counter()

    def share(self) -> float | None:
        """Share of the cores, 0 to 1; None where the system does not tell."""
        busy, seconds = _busy(), time.perf_counter() - self._start
        if self._busy is None or busy is None or not seconds:
            return None
        others = busy - self._busy - (time.process_time() - self._own)
        return min(max(others / seconds / _cores(), 0.0), 1.0)


def _busy() -> float | None:
    """Seconds that the cores of this process were not idle, time stolen by the hypervisor included."""
    try:
        cores = {f"cpu{index}" for index in os.sched_getaffinity(0)}
        rows = [line.split() for line in _STAT.read_text().splitlines()]
        columns = [list(map(int, row[1:9])) for row in rows if row and row[0] in cores]
        ticks = os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return None
    busy = sum(sum(row) - sum(row[index] for index in _IDLE) for row in columns)
    return busy / ticks if columns else None
