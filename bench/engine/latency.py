"""How long one recording takes among others: time to its first and to its last token.

    python -m bench.engine.latency [--device cuda|cpu] [--seconds 120] [--output bench/results/latency]

Speech2Text small with random weights, recordings of LibriSpeech's lengths as waveforms in memory, greedy,
through `Engine.submit` with streaming; 3.4 new tokens a second of audio, fixed. First with 1, 16, 64 and 256
requests in flight, each that ends replaced at once: what is counted began while all places were taken. Then
with Poisson arrivals, at 50 and 80 % of the recordings a second that 256 in flight, or as many as there was
time for, came to; there the clock starts when a recording was to arrive.

A token counts as there when whoever iterates over the handle is woken. Prints p50, p90 and p99; into the
output folder goes latency.json. Levels that the given seconds do not suffice for are left out, and named.

    python -m bench.engine.latency --quick     tiny model, few recordings: does it run?
"""

import argparse
import json
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

import tritone
from tritone.engine.handle import Handle

from ..common.contestants import Tritone
from ..common.machine import about_machine
from ..common.workload import Recording, Recordings, build_model, write_processor

PERCENTILES = (50, 90, 99)
LOADS = (0.5, 0.8)  # of what the engine can do


@dataclass(slots=True)
class Sent:
    """A request: its handle, when it was submitted or was to arrive, by time.perf_counter, and whether it
    counts."""

    handle: Handle
    begin: float
    counted: bool


@dataclass(frozen=True, slots=True)
class Level:
    """One line of the table.

    Args:
        load: what was asked for: requests in flight, or arrivals.
        requests: that are counted.
        rate: recordings a second that ended.
        rtfx: seconds of audio a second.
        first, last: seconds to the first and last token, by percentile.
    """

    load: str
    requests: int
    rate: float
    rtfx: float
    first: dict[int, float]
    last: dict[int, float]


class Observer:
    """Notes when tokens reach handles. It stands between the engine and the handle, on the loop's thread,
    because a thread for each of 256 handles would slow down what is measured. It takes no lock: it is called
    under the engine's.
    """

    def __init__(self) -> None:
        self.first: dict[Handle, float] = {}
        self.last: dict[Handle, float] = {}
        self.ended: queue.Queue[Handle] = queue.Queue()

    @contextmanager
    def watching(self) -> Iterator["Observer"]:
        add_tokens, finish = Handle.add_tokens, Handle.finish

        def note_tokens(handle: Handle, token_ids: tuple[int, ...]) -> None:
            began = bool(handle._token_ids)  # the start token comes before any other, and is no result
            add_tokens(handle, token_ids)
            if began:
                self.first.setdefault(handle, time.perf_counter())

        def note_end(handle: Handle, outcome: Any) -> None:
            finish(handle, outcome)
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
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    end = time.monotonic() + arguments.seconds
    size, stretch = ("tiny", 0.1) if arguments.quick else ("small", 1.0)
    flights = (1, 2, 4) if arguments.quick else (1, 16, 64, 256)
    recordings = Recordings()
    levels: list[Level] = []
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as folder, Observer().watching() as observer:
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        model = build_model(size, device, dtype)
        write_processor(Path(folder), model.config.vocab_size)
        processor = tritone.AutoProcessor.from_pretrained(folder)
        (longest,) = recordings.lasting([35 * stretch])
        # On the CPU the others wait: more rows at once are no faster there, and their cache is gigabytes.
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
            for place, load in enumerate(LOADS):
                rate = load * capacity
                name = f"Poisson, {rate:.3g} a second ({100 * load:.0f} %)"
                share = 0.8 * (end - time.monotonic()) / (len(LOADS) - place)
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cuda", "cpu"), default=default)
    parser.add_argument("--threads", type=int, help="of torch on the CPU; its own choice by default")
    parser.add_argument("--seconds", type=float, default=120, help="in which to end, about")
    parser.add_argument("--output", type=Path, default=Path("bench/results/latency"))
    parser.add_argument("--quick", action="store_true", help="a tiny model and few recordings")
    arguments = parser.parse_args(given)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu runs on the processor")
    return arguments


def closed_loop(ours: Tritone, observer: Observer, recordings: Sequence[Recording], flight: int) -> Level:
    """So many requests in flight all the time. Counted are those that took the place of another."""
    begin = time.perf_counter()
    sent: list[Sent] = []
    for place, recording in enumerate(recordings):
        if place >= flight:
            observer.ended.get()
        now = time.perf_counter()
        sent.append(Sent(ours.submit(recording, stream=True), now, counted=place >= flight))
    for _ in range(min(flight, len(sent))):
        observer.ended.get()
    return level(f"{flight} in flight", sent, observer, time.perf_counter() - begin)


def arrivals(
    ours: Tritone, observer: Observer, recordings: Sequence[Recording], rate: float, name: str
) -> Level:
    """Requests that come by chance, `rate` a second. Counted are all but the first tenth, which meet an
    engine with nothing to do."""
    gaps = np.random.default_rng(0).exponential(1 / rate, len(recordings))
    begin = time.perf_counter()
    due = (begin + np.cumsum(gaps)).tolist()
    sent: list[Sent] = []
    for place, (recording, moment) in enumerate(zip(recordings, due, strict=True)):
        time.sleep(max(moment - time.perf_counter(), 0))
        handle = ours.submit(recording, stream=True)
        sent.append(Sent(handle, moment, counted=place >= len(recordings) // 10))
    for _ in sent:
        observer.ended.get()
    return level(name, sent, observer, time.perf_counter() - begin)


def level(load: str, sent: Sequence[Sent], observer: Observer, seconds: float) -> Level:
    """Raises what a request failed with."""
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
    """The smallest value that so many per cent of all do not exceed."""
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
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "about": about_machine(device),
        "levels": [asdict(found) for found in levels],
        "left_out": list(left_out),
    }
    (folder / "latency.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
