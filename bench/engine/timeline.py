"""Time of a run by encoding, decoding, and the host alone."""

import json
import shutil
import subprocess
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch.profiler import ProfilerActivity, profile, record_function

ENCODE = "tritone encode"


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of a run. Where a GPU encodes and decodes side by side, the parts exceed the whole.

    Args:
        wall: from its first submission to its last result.
        encode: on a GPU, its work for filter bank, encoder, keys and values; on the CPU, the calls.
        decode: on a GPU, all its other work; on the CPU, the calls of the decoder.
        host: on a GPU, its idle time; on the CPU, the rest: planning, choosing tokens, text.
        busy: fraction of the wall time in which a GPU did anything; None on the CPU.
    """

    wall: float
    encode: float
    decode: float
    host: float
    busy: float | None = None


def spent_on(run: Callable[[], Any], model: Any, front_end: Any) -> Spent | None:
    """Carry out a run and measure its parts; None if it called none of the model's `encode`,
    `cross_key_values` and `decode`.

    `front_end` is None if the run begins with features. On a GPU the profiler measures, which slows the host
    down: take throughput from another run.
    """
    if model.device.type == "cuda":
        return _profiled(run, model, front_end)
    clocks = {"encode": 0.0, "decode": 0.0}

    @contextmanager
    def timing(name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            clocks["decode" if name == "decode" else "encode"] += time.perf_counter() - begin

    with _inside(timing, [*_encoding(model, front_end), (model, "decode")]):
        begin = time.perf_counter()
        run()
        wall = time.perf_counter() - begin
    if not clocks["encode"]:
        return None
    return Spent(wall, **clocks, host=wall - sum(clocks.values()))


def _profiled(run: Callable[[], Any], model: Any, front_end: Any) -> Spent | None:
    # Otherwise the profiler records marks of its own thread only, and the engine's loop has another.
    all_threads = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with _inside(lambda name: record_function(ENCODE), _encoding(model, front_end)):
        torch.cuda.synchronize()
        with profile(activities=activities, experimental_config=all_threads) as profiler:
            begin = time.perf_counter()
            run()
            torch.cuda.synchronize()
            wall = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        return spent_in_trace(json.loads(file.read_text())["traceEvents"], wall)


def spent_in_trace(events: list[dict[str, Any]], wall: float) -> Spent | None:
    """Read a profiler's trace, in microseconds: work on the GPU is encoding if the call that launched it lies
    inside a mark of the same thread. None if the trace has no work on a GPU, or no mark.
    """
    marks: dict[Any, list[tuple[float, float]]] = {}
    launched_in: dict[int | None, tuple[Any, float]] = {}  # by correlation: thread and time of the launch
    work = []
    for event in events:
        kind = event.get("cat")
        if kind == "user_annotation" and event["name"] == ENCODE:
            marks.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"]))
        elif kind in ("cuda_runtime", "cuda_driver"):
            launched_in[event.get("args", {}).get("correlation")] = event["tid"], event["ts"]
        elif kind in ("kernel", "gpu_memcpy", "gpu_memset"):
            correlation = event.get("args", {}).get("correlation")
            work.append((event["ts"], event["ts"] + event["dur"], correlation))
    if not work or not marks:
        return None
    for own in marks.values():
        own.sort()  # marks of a thread do not nest
    encoding, other = [], []
    for begin, end, correlation in work:
        thread, moment = launched_in.get(correlation, (None, 0.0))
        own = marks.get(thread, [])
        before = bisect_right(own, (moment, float("inf")))  # marks that have begun
        inside = before > 0 and moment <= own[before - 1][1]
        (encoding if inside else other).append((begin, end))
    busy = covered(encoding + other) * 1e-6
    return Spent(wall, covered(encoding) * 1e-6, covered(other) * 1e-6, host=wall - busy, busy=busy / wall)


def covered(intervals: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(end - max(begin, reached), 0.0)
        reached = max(reached, end)
    return total


@contextmanager
def _inside(
    context: Callable[[str], AbstractContextManager[Any]], methods: list[tuple[Any, str]]
) -> Iterator[None]:
    """Enter `context(name)` around every call of these methods, set on their objects and not on the class."""

    def wrapped(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with context(name):
                return function(*arguments, **named)

        return call

    for owner, name in methods:
        vars(owner)[name] = wrapped(getattr(owner, name), name)
    try:
        yield
    finally:
        for owner, name in methods:
            del vars(owner)[name]


def _encoding(model: Any, front_end: Any) -> list[tuple[Any, str]]:
    own = [(model, "encode"), (model, "cross_key_values")]
    return [*own, (front_end, "extract_packed")] if front_end is not None else own


class Utilization:
    """Mean of nvidia-smi's utilization, the fraction of its last period in which a kernel ran, over a `with`
    block. Free for the run, and unknown for runs shorter than a second or two."""

    def __init__(self, device: torch.device) -> None:
        self.busy: float | None = None
        self._device = device

    def __enter__(self) -> Self:
        self._process = None
        if self._device.type == "cuda" and shutil.which("nvidia-smi"):
            uuid = torch.cuda.get_device_properties(self._device).uuid
            query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
            self._process = subprocess.Popen(
                ["nvidia-smi", "-i", f"GPU-{uuid}", *query], stdout=subprocess.PIPE, text=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            lines, _errors = self._process.communicate()
            self.busy = mean_utilization(lines)


def mean_utilization(lines: str) -> float | None:
    """Mean of nvidia-smi's samples in per cent, one a line, without the first two, from before the run; None
    if fewer than three are left."""
    samples = [float(line) for line in lines.split() if line.replace(".", "").isdigit()][2:]
    return sum(samples) / len(samples) / 100 if len(samples) > 2 else None
