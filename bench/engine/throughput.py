"""Throughput of recognition: Tritone beside transformers at its best batch size, in one run.

    python -m bench.engine [--device cuda|cpu] [--seconds N] [--output bench/results/throughput]

Speech2Text small, medium and large with random weights; recordings of LibriSpeech's lengths (1.3 to 35 s,
mean 12.3); 3.4 new tokens a second of audio, fixed: no end token comes before. Greedy and 5 beams; from
waveforms (arrays in memory to text) and from features (in memory, to token ids). float16 on a GPU, float32 on
the CPU. transformers has the same weights and padded batches sorted by length; from features, its batches are
padded and on the device before the clock starts. With little time it gets some of its batches, spread over
all lengths. Its batch sizes and its number of batches are in the JSON.

Time in encoding, decoding and on the host comes from a separate run (bench/engine/timeline.py). The limit is
arithmetic over the device's rate plus reads of the encoder's keys and values over its bandwidth
(bench/engine/limits.py). Parts that do not fit into the given seconds are left out, and named at the end.
Writes throughput.json, throughput.md, concurrency.png and length.png, anew after each part.

    python -m bench.engine --quick     a smoke run: tiny model, few recordings
    python -m bench.engine --without graphs overlap --parts 2 --output bench/results/plain
                                           the first two parts without CUDA graphs and overlap
"""

import argparse
import gc
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from tritone.kernels.runtime.launch import compiled

from ..common.command import engine_parser, parse_engine
from ..common.machine import about_machine
from ..common.recognizers import SOURCES, Transformers, Tritone
from ..common.roofline import Peaks
from ..common.workload import Recordings, audio_seconds, build_model, config_of, make_processor
from .limits import demand, peaks_of
from .throughput_report import Findings, Peer, Row, decoding, headline, progress, table, write
from .timeline import Utilization, spent_on


@dataclass(frozen=True, slots=True)
class Scale:
    """Extent of a run."""

    requests: int  # decoded at once
    pilot: int  # recordings of the warm-up, and of the run that is profiled
    most: int  # recordings of the run that counts, if there is time
    peer: int  # recordings in all of transformers' batches
    batches: tuple[int, ...]  # transformers' batch sizes, the likeliest best first
    concurrency: tuple[int, ...]  # requests in flight, of the first plot
    audio: float  # seconds for a point of the second plot,
    each: int  # of at least so many recordings, or the plot would show how batches fill up
    sizes: tuple[str, ...] = ("small", "medium", "large")  # of models, of `workload.SIZES`
    lengths: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)  # seconds, of the second plot
    stretch: float = 1.0  # of LibriSpeech's lengths


GPU = Scale(
    requests=1024,
    pilot=512,
    most=20_000,
    peer=2048,
    batches=(256, 1024, 512, 128, 64, 32, 16),
    concurrency=(1, 4, 16, 64, 256, 1024),
    audio=20_000.0,
    each=1024,
)
CPU = Scale(
    requests=32,
    pilot=8,
    most=32,
    peer=32,
    batches=(4, 8, 1, 16),
    concurrency=(1, 2, 4, 8, 16, 32),
    audio=120.0,
    each=12,
)
QUICK = Scale(
    sizes=("tiny",),
    requests=4,
    pilot=3,
    most=6,
    peer=4,
    batches=(2, 1),
    concurrency=(1, 2, 4),
    lengths=(0.5, 1.0, 2.0),
    audio=4.0,
    each=2,
    stretch=0.1,
)


class Clock:
    """Shares of the remaining time for the parts still to come."""

    def __init__(self, seconds: float, weights: Sequence[float]) -> None:
        self._end = time.monotonic() + seconds
        self._weights = list(weights)

    def next_share(self) -> float:
        """Seconds for the next part; later parts inherit unused time."""
        left, weights = self._end - time.monotonic(), sum(self._weights)
        return max(left, 0.0) * self._weights.pop(0) / weights


class Setup:
    """Models and recordings on one device; a size is built on first use."""

    def __init__(
        self,
        device: torch.device,
        scale: Scale,
        folder: Path,
        without: Sequence[str] = (),
        peers: bool = True,
    ) -> None:
        self.device, self.scale, self.without, self.peers = device, scale, without, peers
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.recordings = Recordings()
        self._folder = folder
        self._models: dict[str, Any] = {}
        self._peers: dict[str, Transformers] = {}
        if peers:
            with suppress(ImportError):
                self.peer(scale.sizes[0])  # built before the first part's clock

    @cached_property
    def processor(self) -> Any:
        return make_processor(self._folder, config_of(self.scale.sizes[0]).vocab_size)

    def model(self, size: str) -> Any:
        if size not in self._models:
            self._models[size] = build_model(size, self.device, self.dtype)
        return self._models[size]

    def peer(self, size: str) -> Transformers:
        """transformers' model; ImportError if it is not installed."""
        if size not in self._peers:
            self._peers[size] = Transformers(self.model(size), self._folder)
        return self._peers[size]

    def tritone(self, size: str, source: str, beams: int, longest: float | None = None) -> Tritone:
        """An engine or a loop for recordings of LibriSpeech's lengths or up to `longest` seconds."""
        if self.device.type == "cuda":  # the previous cache would count as used
            gc.collect()
            torch.cuda.empty_cache()
        scale = self.scale
        (one,) = self.recordings.lasting([longest or 35 * scale.stretch])
        processor = self.processor if source == "waveforms" else None
        build = partial(Tritone, self.model(size), processor, source, beams=beams, longest=one)
        return build(requests=scale.requests, without=self.without)


def main(given: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parse_arguments(given)
    device = torch.device(arguments.device)
    torch.backends.cuda.matmul.allow_tf32 = False
    scale = QUICK if arguments.quick else GPU if device.type == "cuda" else CPU
    chosen = parts(scale)[: arguments.parts]
    clock = Clock(arguments.seconds, [weight for weight, _ in chosen])
    peaks = peaks_of(device)
    findings = Findings(about(device, peaks, arguments.seconds), scale.sizes[0])
    print(headline(findings.about), flush=True)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(device, scale, Path(folder), arguments.without, not arguments.no_peers)
        for _, part in chosen:
            failed |= not carried_out(part, setup, peaks, findings, clock.next_share())
            write(findings, arguments.output)
    print("\n" + table(findings.rows))
    for name in findings.left_out:
        print(f"left out: {name}")
    print(arguments.output)
    return 1 if failed else 0


def parse_arguments(given: list[str] | None) -> argparse.Namespace:
    parser = engine_parser(__doc__, Path("bench/results/throughput"), "a tiny model and few recordings")
    parser.add_argument("--seconds", type=float, help="in which to end, about; 300, on the CPU 900")
    parser.add_argument("--parts", type=int, help="the number of parts, most important first; all by default")
    parser.add_argument(
        "--without", nargs="*", choices=("graphs", "overlap"), default=(), help="of an engine on a GPU"
    )
    parser.add_argument("--no-peers", action="store_true", help="without transformers")
    arguments = parse_engine(parser, given)
    if arguments.seconds is None:
        arguments.seconds = 300 if arguments.device == "cuda" else 900
    return arguments


def parts(scale: Scale) -> list[tuple[float, partial[None]]]:
    """Parts of a run with their weights in the time, most important first."""
    first, *others = scale.sizes
    found: list[tuple[float, partial[None]]] = []
    for beams, weights in ((1, (6, 4)), (5, (3, 3))):
        for source, weight in zip(SOURCES, weights, strict=True):
            found.append((weight, partial(compare, size=first, source=source, beams=beams)))
    found += [(2, partial(by_concurrency, size=first)), (1.5, partial(by_length, size=first))]
    for beams in (1, 5):
        for size, source in product(others, SOURCES):
            found.append((1.5, partial(compare, size=size, source=source, beams=beams)))
    return found


def carried_out(part: partial[None], setup: Setup, peaks: Peaks, findings: Findings, seconds: float) -> bool:
    """Carry out a part; returns False if it failed, which does not stop the others. A missing library is no
    failure: the part is left out."""
    name = ", ".join([part.func.__name__, *(f"{key} {value}" for key, value in part.keywords.items())])
    try:
        part(setup, peaks, findings, seconds)
    except ImportError as error:
        findings.leave_out(f"{name}: {error}")
    except Exception as error:
        traceback.print_exc()
        findings.leave_out(f"{name}: failed: {type(error).__name__}: {error}")
        return False
    return True


def compare(
    setup: Setup, peaks: Peaks, findings: Findings, seconds: float, *, size: str, source: str, beams: int
) -> None:
    """Measure a row: Tritone for a third of the time, transformers for the rest."""
    name, scale, end = f"{size}, from {source}, {decoding(beams)}", setup.scale, time.monotonic() + seconds
    pilot = setup.recordings.like_librispeech(scale.pilot, scale.stretch)
    if seconds <= 0:
        findings.leave_out(name)
        return
    with setup.tritone(size, source, beams) as ours:
        ours.run(pilot[:2])
        expected = 0.0  # on a GPU, 512 may take no longer than 2
        if setup.device.type == "cpu":
            expected = audio_seconds(pilot) / ours.run(pilot[:2]).rtfx
        if time.monotonic() + 2 * expected > end:
            findings.leave_out(f"{name}: {scale.pilot} recordings would take about {expected:.1f} s")
            return
        warm = ours.run(pilot)
        left = end - time.monotonic()
        if left < 1.5 * warm.seconds:
            findings.leave_out(
                f"{name}: {scale.pilot} recordings take {warm.seconds:.1f} s, {left:.1f} s are left"
            )
            return
        count = min(max(int(scale.pilot * (left / 3) / warm.seconds), scale.pilot), scale.most)
        recordings = setup.recordings.like_librispeech(count, scale.stretch)
        before = compiled()
        with Utilization(setup.device) as utilization:
            run = ours.run(recordings)
        new = compiled() - before
        spent = None
        # Reading a GPU's trace takes longer than the run, and transformers gets half of the time left.
        takes = 3 * warm.seconds + (4.0 if setup.device.type == "cuda" else 0.0)
        if end - time.monotonic() > 2 * takes:
            spent = spent_on(lambda: ours.run(pilot), ours.model, ours.front_end)
        else:
            findings.leave_out(f"{name}: where the time goes")
        work = demand(setup.model(size).config, recordings, beams, setup.dtype.itemsize)
    limit = run.audio / work.seconds(peaks)
    peers = time_peers(setup, findings, end, size=size, source=source, beams=beams)
    row = Row(size, source, beams, run, limit, spent, utilization.busy, new, tuple(peers))
    findings.rows.append(row)
    print(progress(row), flush=True)


def time_peers(
    setup: Setup, findings: Findings, end: float, *, size: str, source: str, beams: int
) -> list[Peer]:
    """Time transformers with as many batch sizes as fit into the time."""
    name = f"transformers, {size}, from {source}, {decoding(beams)}"
    if not setup.peers:
        return []
    try:
        peer = setup.peer(size)
    except ImportError as error:
        findings.leave_out(f"{name}: {error}")
        return []
    recordings = setup.recordings.like_librispeech(setup.scale.peer, setup.scale.stretch)
    run = partial(peer.run, source=source, beams=beams)
    run(setup.recordings.lasting([setup.scale.stretch * 1.3]), size=1, seconds=0.0)
    peers: list[Peer] = []
    takes = 0.0  # seconds of a batch of one recording, or of any batch
    sizes = [batch for batch in setup.scale.batches if batch <= len(recordings)]
    for index, batch in enumerate(sizes):
        left = end - time.monotonic()
        # On the CPU, and where NumPy makes features, twice the recordings take twice the time.
        proportional = setup.device.type == "cpu" or source == "waveforms"
        expected = takes * (batch if proportional else 1)
        if left < max(expected, 0.01):
            note = f"{max(left, 0):.1f} s are left"
            if takes:
                note = f"a batch takes about {expected:.1f} s, {note}"
            peers.append(Peer(batch, None, note=note))
            findings.leave_out(f"{name}, batch {batch}: {note}")
            continue
        try:
            done, batches, of = run(recordings, size=batch, seconds=left / (len(sizes) - index))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            peers.append(Peer(batch, None, note="out of memory"))
            continue
        takes = done.seconds / (done.recordings if proportional else batches)
        peers.append(Peer(batch, done.rtfx, batches, of))
    return peers


def by_concurrency(setup: Setup, peaks: Peaks, findings: Findings, seconds: float, *, size: str) -> None:
    """Measure RTFx with each number of requests in flight."""
    end = time.monotonic() + seconds
    with setup.tritone(size, "waveforms", 1) as ours:
        ours.run(setup.recordings.like_librispeech(setup.scale.pilot, setup.scale.stretch))
        run = None
        for flight in setup.scale.concurrency:
            recordings = setup.recordings.like_librispeech(max(2 * flight, 8), setup.scale.stretch)
            expected = audio_seconds(recordings) / run.rtfx if run else 0.0  # at least as fast as fewer
            if time.monotonic() + expected > end:
                findings.leave_out(f"{size}, {flight} requests in flight")
                continue
            run = ours.run(recordings, in_flight=flight)
            findings.concurrency.append((flight, run.rtfx))
            print(f"{size}, {flight} requests in flight: RTFx {run.rtfx:,.1f}", flush=True)


def by_length(setup: Setup, peaks: Peaks, findings: Findings, seconds: float, *, size: str) -> None:
    """Measure the cost of a second of audio in recordings of each length."""
    end, scale = time.monotonic() + seconds, setup.scale
    with setup.tritone(size, "waveforms", 1, longest=max(scale.lengths)) as ours:
        run = ours.run(setup.recordings.lasting(scale.lengths))
        for length in scale.lengths:
            recordings = setup.recordings.lasting([length] * max(round(scale.audio / length), scale.each))
            if time.monotonic() + audio_seconds(recordings) / run.rtfx > end:
                findings.leave_out(f"{size}, recordings of {length:g} s")
                continue
            run = ours.run(recordings)
            findings.lengths.append((length, 1 / run.rtfx))
            print(f"{size}, recordings of {length:g} s: {1e3 / run.rtfx:.3g} ms for a second", flush=True)


def about(device: torch.device, peaks: Peaks, seconds: float) -> dict[str, Any]:
    """The machine and the command."""
    return {
        **about_machine(device),
        "operations_per_second": peaks.operations,
        "bytes_per_second": peaks.bytes,
        "ceilings": peaks.source,
        "seconds": seconds,
    }


if __name__ == "__main__":
    sys.exit(main())
