"""What a decode step spends its time on, operation by operation, by torch's profiler.

    python -m bench.engine.decode_profile [--device cuda|cpu] [--sequences 1024] [--beams 1] [--steps 5]

Speech2Text small with random weights, recordings of LibriSpeech's lengths, all admitted and decoded for some
steps before. Prints a table of the operations that take longest; with --output FOLDER also decode.md there,
and decode_trace.json for a trace viewer (ui.perfetto.dev). Times are of the operation itself, without those
that it calls: on a GPU, of its kernels; on the CPU, of the call.

    python -m bench.engine.decode_profile --quick     tiny model, 4 sequences: does it run?
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from tritone.scheduler.request import Request

from ..common.contestants import fitting_pages, pages_of
from ..common.machine import about_machine
from ..common.workload import Recordings, build_model

ROWS = 20  # of the table
WARM = 5  # steps after the last admission, before those that are looked at


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of the table: an operation or a kernel, with microseconds in all steps together."""

    name: str
    calls: int
    host: float
    device: float


def main(given: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parse_arguments(given)
    device = torch.device(arguments.device)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    loop, requests = running_loop(
        "tiny" if arguments.quick else "small", device, arguments.sequences, arguments.beams
    )
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    begin = time.perf_counter()
    for _ in range(arguments.steps):
        loop.step()
    wait(device)
    plain = time.perf_counter() - begin
    with profile(activities=activities) as profiler:
        begin = time.perf_counter()
        for _ in range(arguments.steps):
            loop.step()
        wait(device)
        profiled = time.perf_counter() - begin
    running = loop.stats().running
    if running < requests:
        raise RuntimeError(
            f"only {running} of {requests} requests are still being decoded; ask for fewer steps"
        )
    about = about_machine(device)
    head = (
        f"{about['device']} ({about['processor']}), torch {about['torch']}: a decode step of {requests} "
        f"requests with {arguments.beams} hypotheses each takes {1e3 * plain / arguments.steps:.2f} ms, "
        f"with the profiler {1e3 * profiled / arguments.steps:.2f} ms"
    )
    text = f"{head}\n\n{table(operations(profiler, on_gpu), arguments.steps, on_gpu)}\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "decode.md").write_text(f"# A decode step\n\n`{about['command']}`\n\n{text}")
        profiler.export_chrome_trace(str(arguments.output / "decode_trace.json"))
    return 0


def parse_arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cuda", "cpu"), default=default)
    parser.add_argument("--threads", type=int, help="of torch on the CPU; its own choice by default")
    parser.add_argument("--sequences", type=int, help="requests; by default 1,024 on a GPU, 32 on the CPU")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--quick", action="store_true", help="a tiny model and 4 sequences")
    arguments = parser.parse_args(given)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu runs on the processor")
    usual = 4 if arguments.quick else 1024 if arguments.device == "cuda" else 32
    arguments.sequences = arguments.sequences or usual
    return arguments


def running_loop(size: str, device: torch.device, sequences: int, beams: int) -> tuple[Any, int]:
    """A loop in which so many requests are being decoded, none of which ends soon; and how many there are,
    fewer where the memory is too small."""
    model = build_model(size, device, torch.float16 if device.type == "cuda" else torch.float32)
    recordings = Recordings().like_librispeech(max(sequences, 2))[:sequences]
    tokens = 200  # more than a recording of 35 s would have, so that all are decoded throughout
    pages = [pages_of(model, recording, 0) + beams * -(-(tokens + 1) // 16) for recording in recordings]
    if device.type == "cuda":
        room = fitting_pages(model)
        while sum(pages) > room:
            pages.pop()
    requests = len(pages)
    # Without graphs, in which no operation has a name of its own.
    loop = model.generation_loop(num_pages=sum(pages), num_rows=requests * beams, graphs=False)
    options = model.resolve_options(num_beams=beams, max_new_tokens=tokens, min_new_tokens=tokens)
    for number, recording in enumerate(recordings[:requests]):
        loop.submit(Request(number, recording.features, options))
    while loop.stats().running < requests:
        loop.step()
    for _ in range(WARM):
        loop.step()
    wait(device)
    return loop, requests


def operations(profiler: Any, on_gpu: bool) -> list[Operation]:
    """All of them, the longest first."""
    found = [
        Operation(
            event.key,
            event.count,
            event.self_cpu_time_total,
            event.self_device_time_total if on_gpu else 0.0,
        )
        for event in profiler.key_averages()
    ]
    return sorted(found, key=lambda one: one.device if on_gpu else one.host, reverse=True)


def table(found: Sequence[Operation], steps: int, on_gpu: bool) -> str:
    """Markdown: the first rows, and the rest as one."""
    total = sum(one.device if on_gpu else one.host for one in found) or 1.0
    lines = [
        "| operation | calls a step | host, µs | device, µs | share |",
        "| --- | --- | --- | --- | --- |",
    ]
    rest = found[ROWS:]
    others = Operation(
        f"{len(rest)} others",
        sum(one.calls for one in rest),
        sum(one.host for one in rest),
        sum(one.device for one in rest),
    )
    for one in [*found[:ROWS], *([others] if rest else [])]:
        share = 100 * (one.device if on_gpu else one.host) / total
        device = f"{one.device / steps:,.1f}" if on_gpu else "not measured"
        name = one.name if len(one.name) <= 60 else one.name[:57] + "..."
        name = name.replace("|", "/")
        lines.append(
            f"| {name} | {one.calls / steps:,.1f} | {one.host / steps:,.1f} | {device} | {share:.1f} % |"
        )
    return "\n".join(lines)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
