"""Profile of a decode step by operation, from torch's profiler.

    python -m bench.engine.decode_profile [--device cuda|cpu] [--sequences 1024] [--beams 1] [--steps 5]

Speech2Text small with random weights, recordings of LibriSpeech's lengths, all admitted and decoded for some
steps before. Prints a table of the slowest operations; with --output FOLDER also writes decode.md there, and
decode_trace.json for a trace viewer (ui.perfetto.dev). An operation's time excludes the operations that it
calls: on a GPU it is its kernels', on the CPU the call's.

    python -m bench.engine.decode_profile --quick     a smoke run: tiny model, 4 sequences
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from tritone.scheduler.request import Request

from ..common.command import engine_parser, parse_engine
from ..common.machine import about_machine, synchronize
from ..common.output import markdown
from ..common.recognizers import fitting_pages, pages_of
from ..common.workload import Recordings, build_model

ROWS = 20  # of the table
WARM_UP = 5  # steps between the last admission and the profile


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table: an operation or a kernel, with its microseconds in all steps together."""

    name: str
    calls: int
    host: float
    device: float


def main(given: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parse_arguments(given)
    device = torch.device(arguments.device)
    loop, requests = running_loop(
        "tiny" if arguments.quick else "small", device, arguments.sequences, arguments.beams
    )
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu

    def run_steps() -> float:
        begin = time.perf_counter()
        for _ in range(arguments.steps):
            loop.step()
        synchronize(device)
        return time.perf_counter() - begin

    plain = run_steps()
    with profile(activities=activities) as profiler:
        profiled = run_steps()
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
    parser = engine_parser(__doc__, None, "a tiny model and 4 sequences")
    parser.add_argument("--sequences", type=int, help="requests; by default 1,024 on a GPU, 32 on the CPU")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    arguments = parse_engine(parser, given)
    usual = 4 if arguments.quick else 1024 if arguments.device == "cuda" else 32
    arguments.sequences = arguments.sequences or usual
    return arguments


def running_loop(size: str, device: torch.device, sequences: int, beams: int) -> tuple[Any, int]:
    """A loop that decodes up to `sequences` requests, as many as memory has room for and none of which ends
    soon; and their number."""
    model = build_model(size, device, torch.float16 if device.type == "cuda" else torch.float32)
    recordings = Recordings().like_librispeech(max(sequences, 2))[:sequences]
    tokens = 200  # more than a recording of 35 s has, so that no request ends during the profile
    pages = [pages_of(model, recording, 0) + beams * -(-(tokens + 1) // 16) for recording in recordings]
    if device.type == "cuda":
        room = fitting_pages(model)
        while sum(pages) > room:
            pages.pop()
    requests = len(pages)
    # Without graphs, whose operations have no names.
    loop = model.generation_loop(num_pages=sum(pages), num_rows=requests * beams, graphs=False)
    options = model.resolve_options(num_beams=beams, max_new_tokens=tokens, min_new_tokens=tokens)
    for number, recording in enumerate(recordings[:requests]):
        loop.submit(Request(number, recording.features, options))
    while loop.stats().running < requests:
        loop.step()
    for _ in range(WARM_UP):
        loop.step()
    synchronize(device)
    return loop, requests


def operations(profiler: Any, on_gpu: bool) -> list[Operation]:
    """All operations, the slowest first."""
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
    """A Markdown table: the slowest operations, and the sum of the others."""
    total = sum(one.device if on_gpu else one.host for one in found) or 1.0
    first, rest = list(found[:ROWS]), found[ROWS:]
    if rest:
        sums = (sum(getattr(one, name) for one in rest) for name in ("calls", "host", "device"))
        first.append(Operation(f"{len(rest)} others", *sums))
    rows = [
        (
            (one.name if len(one.name) <= 60 else one.name[:57] + "...").replace("|", "/"),
            f"{one.calls / steps:,.1f}",
            f"{one.host / steps:,.1f}",
            f"{one.device / steps:,.1f}" if on_gpu else "not measured",
            f"{100 * (one.device if on_gpu else one.host) / total:.1f} %",
        )
        for one in first
    ]
    return markdown(("operation", "calls a step", "host, µs", "device, µs", "share"), rows)


if __name__ == "__main__":
    sys.exit(main())
