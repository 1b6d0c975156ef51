"""Where the time of a run went: encoding, decoding, and the host alone."""

import json
import shutil
import subprocess
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch.profiler import ProfilerActivity, profile, record_function

ENCODE = "tritone encode"


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of a run.

    Args:
        wall: from its first submission to its last result.
        encode: on a GPU, of its work for filter bank, encoder and keys and values; on the CPU, of the calls.
        decode: on a GPU, of all its other work; on the CPU, of the calls of the decoder.
        host: on a GPU, while it had nothing to do; on the CPU, the rest: planning, choosing tokens, text.
        busy: fraction of the wall time during which a GPU did anything; None on the CPU.

    Where a GPU encodes and decodes side by side, the parts are more than the whole.
    """

    wall: float
    encode: float
    decode: float
    host: float
    busy: float | None = None


def spent_on(run: Callable[[], Any], model: Any, front_end: Any) -> Spent | None:
    """Carry out a run and say where its time went; None where the model was not called through its contract
    (`encode`, `cross_key_values`, `decode`), so that nothing was seen.

    `front_end` is None where the run begins with features. On a GPU this is by the profiler, which slows the
    host down: take throughput from another run.
    """
    if model.device.type == "cuda":
        return _profiled(run, model, front_end)
    clocks = {"encode": 0.0, "decode": 0.0}

    def timing(kind: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
            def timed(*arguments: Any, **named: Any) -> Any:
                begin = time.perf_counter()
                try:
                    return function(*arguments, **named)
                finally:
                    clocks[kind] += time.perf_counter() - begin

            return timed

        return wrap

    with (
        _wrapped(_encoding(model, front_end), timing("encode")),
        _wrapped([(model, "decode")], timing("decode")),
    ):
        begin = time.perf_counter()
        run()
        wall = time.perf_counter() - begin
    if not clocks["encode"]:
        return None
    return Spent(wall, **clocks, host=wall - sum(clocks.values()))


def _profiled(run: Callable[[], Any], model: Any, front_end: Any) -> Spent | None:
    def marking(function: Callable[..., Any]) -> Callable[..., Any]:
        def marked(*arguments: Any, **named: Any) -> Any:
            with record_function(ENCODE):
                return function(*arguments, **named)

        return marked

    # Without this the profiler sees the marks of its own thread only, and the engine's loop has another.
    everywhere = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    with _wrapped(_encoding(model, front_end), marking):
        torch.cuda.synchronize()
        with profile(
            activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], experimental_config=everywhere
        ) as profiler:
            begin = time.perf_counter()
            run()
            torch.cuda.synchronize()
            wall = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        return spent_in_trace(json.loads(file.read_text())["traceEvents"], wall)


def spent_in_trace(events: list[dict[str, Any]], wall: float) -> Spent | None:
    """Read a profiler's trace, times in microseconds: work on the GPU belongs to encoding where the call that
    launched it lies inside a mark of the same thread. None where the trace has no work on a GPU, or no mark.
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
        own.sort()  # one after another: those of a thread do not lie in each other
    encoding, other = [], []
    for begin, end, correlation in work:
        thread, moment = launched_in.get(correlation, (None, 0.0))
        own = marks.get(thread, [])
        before = bisect_right(own, (moment, float("inf")))  # marks that had begun
        inside = before > 0 and moment <= own[before - 1][1]
        (encoding if inside else other).append((begin, end))
    busy = covered(encoding + other) * 1e-6
    return Spent(wall, covered(encoding) * 1e-6, covered(other) * 1e-6, host=wall - busy, busy=busy / wall)


def covered(intervals: list[tuple[float, float]]) -> float:
    """How much time lies in at least one of these intervals."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(end - max(begin, reached), 0.0)
        reached = max(reached, end)
    return total


@contextmanager
def _wrapped(
    places: list[tuple[Any, str]], wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """These methods, wrapped on their own objects and on no others of the class."""
    for owner, name in places:
        vars(owner)[name] = wrap(getattr(owner, name))
    try:
        yield
    finally:
        for owner, name in places:
            del vars(owner)[name]


def _encoding(model: Any, front_end: Any) -> list[tuple[Any, str]]:
    own = [(model, "encode"), (model, "cross_key_values")]
    return [*own, (front_end, "extract_packed")] if front_end is not None else own


class Utilization:
    """Samples what nvidia-smi calls utilization, the fraction of its last period in which a kernel ran, while
    a `with` block runs. It costs the run nothing, and says nothing of runs shorter than a second or two."""

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
    """Of nvidia-smi's samples in per cent, one a line; without the first two, which are of before. None
    where fewer than three others are left."""
    samples = [float(line) for line in lines.split() if line.replace(".", "").isdigit()][2:]
    return sum(samples) / len(samples) / 100 if len(samples) > 2 else None
