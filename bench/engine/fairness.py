"""Latency of a short clip beside an hour of speech, and the time that Ctrl-C takes in the hour.

    python -m bench.engine.fairness [--model english] [--minutes 60] [--clips 8]

The hour is the model's samples (`samples/`), joined with half a second between them, or the given files. A
clip of three seconds is transcribed alone, then again and again while the hour is: in independent windows,
so that it fills the batch. Prints the clip's latency alone and beside the hour, and the time of one window in
the busy engine, from its admission to its end. Then the command transcribes the hour and is interrupted.
"""

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

import tritone
from tritone.engine.audio.reader import load_audio
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.request import Event, Request, RequestOutput
from tritone.scheduler.runner import ModelRunner
from tritone.scheduler.scheduler import Step
from tritone.scheduler.step_output import StepOutput

from ..common.machine import about_machine

_ROOT = Path(__file__).resolve().parents[2]
_GAP = 0.5  # seconds between two joined recordings
_CLIP = 3.0  # seconds
_FIRST = 20.0  # seconds of the hour before the first clip, and before Ctrl-C


class Windows:
    """Times of a long recording's windows from their admission to their end."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._admitted: dict[int, float] = {}

    @contextmanager
    def watching(self) -> Iterator["Windows"]:
        """Watch all loops of this process."""
        launch, step = ModelRunner.launch, GenerationLoop.step

        def note_admission(runner: ModelRunner, plan: Step, admitted: Mapping[int, Request]) -> StepOutput:
            now = time.perf_counter()
            self._admitted |= {number: now for number, one in admitted.items() if one.owner is not None}
            return launch(runner, plan, admitted)

        def note_end(loop: GenerationLoop) -> list[Event]:
            events = step(loop)
            now = time.perf_counter()
            for event in events:
                if isinstance(event, RequestOutput) and event.request_id in self._admitted:
                    self.seconds.append(now - self._admitted.pop(event.request_id))
            return events

        ModelRunner.launch, GenerationLoop.step = note_admission, note_end  # type: ignore[method-assign]
        try:
            yield self
        finally:
            ModelRunner.launch, GenerationLoop.step = launch, step  # type: ignore[method-assign]


def main(given: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parse_arguments(given)
    print(about_machine(torch.device("cpu")))
    files = arguments.files or sorted((_ROOT / "samples" / arguments.model).glob("*"))
    with tempfile.TemporaryDirectory() as folder:
        hour = Path(folder) / "hour.flac"
        clip = join(files, 60 * arguments.minutes, hour)
        measure_clips(arguments.model, hour, clip, arguments.clips)
        measure_interrupt(arguments.model, hour)
    return 0


def parse_arguments(given: list[str] | None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="english", help="english, digits, or a checkpoint's folder")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("files", nargs="*", type=Path, help="recordings to join, in place of the samples")
    return parser.parse_args(given)


def join(files: Sequence[Path], seconds: float, path: Path, rate: int = 16_000) -> np.ndarray:
    """Write recordings again and again until there are so many seconds; returns the first three."""
    gap = np.zeros(int(_GAP * rate), np.float32)
    parts = [part for file in files for part in (load_audio(file, rate).samples, gap)]
    once = np.concatenate(parts)
    with soundfile.SoundFile(path, "w", rate, 1) as file:
        left = int(seconds * rate)
        while left > 0:
            file.write(once[:left])
            left -= len(once)
    return once[: int(_CLIP * rate)]


def measure_clips(model: str, hour: Path, clip: np.ndarray, count: int) -> None:
    """Transcribe a clip alone and beside the hour, and print latencies."""
    with Windows().watching() as windows, tritone.Engine(model, device="cpu") as engine:
        options: dict[str, Any] = {}
        if hasattr(engine.model, "has_alignment_heads"):  # Whisper's other way has one window at a time
            options["windows"] = "pauses"
        alone = [latency(engine, clip, options) for _ in range(count + 1)][1:]
        handle = engine.submit(hour, **options)
        time.sleep(_FIRST)
        windows.seconds.clear()
        beside, begin = [], time.perf_counter()
        for _ in range(count):
            if handle.done():
                break
            beside.append(latency(engine, clip, options))
            time.sleep(0.3)
        rate = len(windows.seconds) / (time.perf_counter() - begin)
        handle.cancel()
        begin = time.perf_counter()
        handle.outcome()
        ended = time.perf_counter() - begin
    print(f"a clip of {_CLIP:.0f} s alone: {statistics.median(alone):.2f} s (median of {len(alone)})")
    if not beside or not windows.seconds:
        print("the hour had ended before the first clip: give more --minutes")
        return
    typical = statistics.median(windows.seconds)
    count = len(windows.seconds)
    print(f"one window in the busy engine: {typical:.2f} s (median of {count}; {rate:.1f} end a second)")
    print(
        f"the clip beside the hour: {statistics.median(beside):.2f} s, at most {max(beside):.2f} s "
        f"({max(beside) / typical:.2f} windows) of {len(beside)}"
    )
    print(f"cancelling the hour: {ended:.2f} s")


def latency(engine: tritone.Engine, clip: np.ndarray, options: Mapping[str, Any]) -> float:
    """Seconds from the submission of a clip to its result."""
    begin = time.perf_counter()
    engine.submit(clip, **options).result()
    return time.perf_counter() - begin


def measure_interrupt(model: str, hour: Path) -> None:
    """Interrupt the command in the midst of the hour, and print the seconds until it has ended."""
    command = [sys.executable, "-m", "tritone", "transcribe", str(hour), "--model", model, "--device", "cpu"]
    command += ["--output", str(hour.with_suffix(".jsonl"))]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    time.sleep(_FIRST)
    begin = time.perf_counter()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    seconds = time.perf_counter() - begin
    print(f"Ctrl-C: ended after {seconds:.2f} s with exit code {process.returncode}")
    print(errors.decode(errors="replace").strip().splitlines()[-1:] or "")


if __name__ == "__main__":
    sys.exit(main())
