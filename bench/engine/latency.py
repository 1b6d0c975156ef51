"""Latency of a recording among others: time to its first and to its last token.

    python -m bench.engine.latency [--device cuda|cpu] [--seconds 120] [--output bench/results/latency]

Speech2Text small with random weights, recordings of LibriSpeech's lengths as waveforms in memory, greedy,
through `Engine.submit` with streaming; 3.4 new tokens a second of audio, fixed. First with 1, 16, 64 and 256
requests in flight, each replaced as soon as it ends; the replacements are counted. Then with Poisson
arrivals, at 50 and 80 % of the throughput of the highest level before; there the clock starts at the time
when a recording was due.

A token counts when the thread that iterates over the handle is woken. Prints p50, p90 and p99, and writes
latency.json. Levels that do not fit into the given seconds are left out, and named.

    python -m bench.engine.latency --quick     a smoke run: tiny model, few recordings
"""

import argparse
import math
import queue
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tritone.engine.handle import Handle

from ..common.command import engine_parser, parse_engine
from ..common.machine import about_machine
from ..common.output import write_json
from ..common.recognizers import Tritone
from ..common.workload import Recording, Recordings, build_model, make_processor

PERCENTILES = (50, 90, 99)
LOADS = (0.5, 0.8)  # of the engine's throughput


@dataclass(slots=True)
class Sent:
    """A request."""

    handle: Handle
    begin: float  # time.perf_counter() when it was submitted, or due
    counted: bool


@dataclass(frozen=True, slots=True)
class Level:
    """Latencies at one load."""

    load: str  # requests in flight, or arrivals
    requests: int  # counted
    rate: float  # recordings a second that ended
    rtfx: float  # seconds of audio a second
    first: dict[int, float]  # seconds to the first token, by percentile
    last: dict[int, float]  # to the last


class Observer:
    """Times at which tokens reach handles, taken on the loop's thread: a thread for each of 256 handles would
    slow the engine down. It needs no lock: it is called under the engine's.
    """

    def __init__(self) -> None:
        self.first: dict[Handle, float] = {}
        self.last: dict[Handle, float] = {}
        self.ended: queue.Queue[Handle] = queue.Queue()

    @contextmanager
    def watching(self) -> Iterator["Observer"]:
        add_tokens, finish = Handle.add_tokens, Handle.finish

        def note_tokens(handle: Handle, token_ids: tuple[int, ...]) -> None:
            began = bool(handle._token_ids)  # the start token comes first, and is no result
            add_tokens(handle, token_ids)
            if began:
                self.first.setdefault(handle, time.perf_counter())

        def note_end(handle: Handle, *arguments: Any) -> None:
            finish(handle, *arguments)
            now = time.perf_counter()
            self.first.setdefault(handle, now)
            self.last[handle] = now
            self.ended.put(handle)

        Handle.add_tokens, Handle.finish = note_tokens, note_end  # type: ignore[method-assign]
        try:
            yield self
        finally:
            Handle.add_tokens, Handle.finish = add_tokens, finish  # type: ignore[method-assign]


def main(given: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parse_arguments(given)
    device = torch.device(arguments.device)
    end = time.monotonic() + arguments.seconds
    size, stretch = ("tiny", 0.1) if arguments.quick else ("small", 1.0)
    flights = (1, 2, 4) if arguments.quick else (1, 16, 64, 256)
    recordings = Recordings()
    levels: list[Level] = []
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as folder, Observer().watching() as observer:
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        model = build_model(size, device, dtype)
        processor = make_processor(Path(folder), model.config.vocab_size)
        (longest,) = recordings.lasting([35 * stretch])
        # On the CPU the others wait: more rows are no faster there, and their cache takes gigabytes.
        rows = max(flights) if device.type == "cuda" else min(max(flights), 32)
        with Tritone(model, processor, "waveforms", beams=1, requests=rows, longest=longest) as ours:
            closed_loop(ours, observer, recordings.like_librispeech(8, stretch), min(flights))  # warms up
            for flight in flights:
                batch = recordings.like_librispeech(max(3 * flight, 12), stretch)
                name = f"{flight} in flight"
                if levels and len(batch) / levels[-1].rate > end - time.monotonic():
                    left_out.append(name)
                    continue
                levels.append(closed_loop(ours, observer, batch, flight))
                print(line(levels[-1]), flush=True)
            capacity = levels[-1].rate
            for index, load in enumerate(LOADS):
                rate = load * capacity
                name = f"Poisson, {rate:.3g} a second ({100 * load:.0f} %)"
                share = 0.8 * (end - time.monotonic()) / (len(LOADS) - index)
                count = min(round(rate * share), 40 if arguments.quick else 2000)
                if count < 12:
                    left_out.append(name)
                    continue
                batch = recordings.like_librispeech(count, stretch)
                levels.append(arrivals(ours, observer, batch, rate, name))
                print(line(levels[-1]), flush=True)
    for name in left_out:
        print(f"left out: {name}: there was no time")
    write(levels, left_out, device, arguments.output)
    print(arguments.output)
    return 0


def parse_arguments(given: list[str] | None) -> argparse.Namespace:
    parser = engine_parser(__doc__, Path("bench/results/latency"), "a tiny model and few recordings")
    parser.add_argument("--seconds", type=float, default=120, help="in which to end, about")
    return parse_engine(parser, given)


def closed_loop(ours: Tritone, observer: Observer, recordings: Sequence[Recording], flight: int) -> Level:
    """Keep `flight` requests in flight; counted are those that replaced another."""
    begin = time.perf_counter()
    sent: list[Sent] = []
    for index, recording in enumerate(recordings):
        if index >= flight:
            observer.ended.get()
        now = time.perf_counter()
        sent.append(Sent(ours.submit(recording, stream=True), now, counted=index >= flight))
    for _ in range(min(flight, len(sent))):
        observer.ended.get()
    return level(f"{flight} in flight", sent, observer, time.perf_counter() - begin)


def arrivals(
    ours: Tritone, observer: Observer, recordings: Sequence[Recording], rate: float, name: str
) -> Level:
    """Poisson arrivals, `rate` a second; counted are all but the first tenth, which meet an idle engine."""
    gaps = np.random.default_rng(0).exponential(1 / rate, len(recordings))
    begin = time.perf_counter()
    due = (begin + np.cumsum(gaps)).tolist()
    sent: list[Sent] = []
    for index, (recording, moment) in enumerate(zip(recordings, due, strict=True)):
        time.sleep(max(moment - time.perf_counter(), 0))
        handle = ours.submit(recording, stream=True)
        sent.append(Sent(handle, moment, counted=index >= len(recordings) // 10))
    for _ in sent:
        observer.ended.get()
    return level(name, sent, observer, time.perf_counter() - begin)


def level(load: str, sent: Sequence[Sent], observer: Observer, seconds: float) -> Level:
    """Latencies of the counted requests; raises the error of a failed one."""
    audio = sum(one.handle.result().duration for one in sent)
    counted = [one for one in sent if one.counted]
    return Level(
        load,
        len(counted),
        rate=len(sent) / seconds,
        rtfx=audio / seconds,
        first=percentiles([observer.first[one.handle] - one.begin for one in counted]),
        last=percentiles([observer.last[one.handle] - one.begin for one in counted]),
    )


def percentiles(seconds: Sequence[float]) -> dict[int, float]:
    """Nearest-rank percentiles: values that occurred."""
    ordered = sorted(seconds)
    return {percent: ordered[max(math.ceil(percent / 100 * len(ordered)) - 1, 0)] for percent in PERCENTILES}


def line(found: Level) -> str:
    def milliseconds(values: dict[int, float]) -> str:
        return " / ".join(f"{1e3 * value:,.0f}" for value in values.values())

    return (
        f"{found.load:<32} {found.requests:>5} requests, {found.rate:,.1f} a second, RTFx {found.rtfx:,.0f}; "
        f"p50 / p90 / p99 in ms: first token {milliseconds(found.first)}, last {milliseconds(found.last)}"
    )


def write(levels: Sequence[Level], left_out: Sequence[str], device: torch.device, folder: Path) -> None:
    results = {
        "about": about_machine(device),
        "levels": [asdict(found) for found in levels],
        "left_out": list(left_out),
    }
    write_json(folder / "latency.json", results)


if __name__ == "__main__":
    sys.exit(main())
