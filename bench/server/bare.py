"""The bare engine that a server is compared with, in a process of its own."""

import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of transcribing files."""

    cpu: float  # seconds of all threads of the process
    wall: float  # seconds
    peak: int  # resident bytes of the process


def in_process(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def texts_alone(model: str, paths: Sequence[str]) -> dict[str, str | None]:
    """Text of each file, transcribed with no other beside it; None where that fails."""
    import tritone

    with tritone.Engine(model, device="cpu") as engine:
        results = {path: engine.submit(path).outcome() for path in paths}
    return {path: None if one.error else one.text for path, one in results.items()}


def cost(model: str, warm_up: Sequence[str], paths: Sequence[str]) -> Cost:
    """Cost of `Engine.transcribe` over all files, without that of loading the model and of the first few."""
    import tritone

    with tritone.Engine(model, device="cpu") as engine:
        for _ in engine.transcribe(warm_up):
            pass
        before, begin = _cpu(), time.monotonic()
        failed = [result.error for result in engine.transcribe(paths) if result.error]
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        measured = Cost(_cpu() - before, time.monotonic() - begin, peak)
    if failed:
        raise failed[0]
    return measured


def _cpu() -> float:
    """CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
