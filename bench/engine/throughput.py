"""Recordings to text, as many as go: Tritone beside transformers at its best batch size, in one run.

    python -m bench.engine [--device cuda|cpu] [--seconds N] [--output bench/results/throughput]

Speech2Text small, medium and large with random weights; recordings of LibriSpeech's lengths (1.3 to 35 s,
mean 12.3); 3.4 new tokens a second of audio, fixed: the end token is held back until then. Greedy and 5
beams; from waveforms (arrays in memory to text) and from features (in memory, to token ids). float16 on a
GPU, float32 on the CPU. transformers has the same weights and padded batches sorted by length; from
features, its batches are padded and on the device before the clock starts. Where the time is short, it gets
some of its batches, spread over all lengths. Its batch sizes and how many batches it got are in the JSON.

Time in encoding, decoding and on the host comes from a run of its own (bench/engine/timeline.py). The limit is
arithmetic over the device's rate plus reads of the encoder's keys and values over its bandwidth
(bench/engine/limits.py). What the given seconds do not suffice for is left out, and named at the end. Into the
output folder go throughput.json, throughput.md, concurrency.png and length.png, anew after each part.

    python -m bench.engine --quick     tiny model, few recordings: does it run?
    python -m bench.engine --without graphs overlap --parts 2 --output bench/results/plain
                                           the first two parts, as plain as a GPU can be driven
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
from pathlib import Path
from typing import Any

import torch

import tritone
from tritone.kernels.runtime.launch import compiled

from ..common.contestants import WAYS, Transformers, Tritone
from ..common.machine import about_machine
from ..common.roofline import Peaks
from ..common.workload import Recordings, audio_seconds, build_model, config_of, write_processor
from .limits import demand, peaks_of
from .throughput_report import Findings, Peer, Row, decoding, headline, progress, table, write
from .timeline import Utilization, spent_on


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything.

    Args:
        sizes: of models, of `workload.SIZES`.
        requests: decoded at once.
        pilot: recordings of the run that warms up, and of the one that is looked into.
        most: recordings of the run that counts, if there is time.
        peer: recordings that transformers' batches are made of.
        batches: transformers' batch sizes, the likeliest best first.
        concurrency: requests in flight, of the first plot.
        lengths: seconds, of the second.
        audio, each: seconds of audio for a point of the second, but so many recordings at least: with fewer
            of the long ones than of the short ones, it would show how batches fill up.
        stretch: of LibriSpeech's lengths.
    """

    sizes: tuple[str, ...]
    requests: int
    pilot: int
    most: int
    peer: int
    batches: tuple[int, ...]
    concurrency: tuple[int, ...]
    lengths: tuple[float, ...]
    audio: float
    each: int
    stretch: float = 1.0


LENGTHS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
GPU = Scale(
    sizes=("small", "medium", "large"),
    requests=1024,
    pilot=512,
    most=20_000,
    peer=2048,
    batches=(256, 1024, 512, 128, 64, 32, 16),
    concurrency=(1, 4, 16, 64, 256, 1024),
    lengths=LENGTHS,
    audio=20_000.0,
    each=1024,
)
CPU = Scale(
    sizes=("small", "medium", "large"),
    requests=32,
    pilot=8,
    most=32,
    peer=32,
    batches=(4, 8, 1, 16),
    concurrency=(1, 2, 4, 8, 16, 32),
    lengths=LENGTHS,
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
    """Shares out what is left of the time among the parts to come."""

    def __init__(self, seconds: float, weights: Sequence[float]) -> None:
        self._end = time.monotonic() + seconds
        self._weights = list(weights)

    def next_share(self) -> float:
        """Seconds for the next part: what earlier ones did not need goes to those after them."""
        left, weights = self._end - time.monotonic(), sum(self._weights)
        return max(left, 0.0) * self._weights.pop(0) / weights


class Stage:
    """Models and recordings on one device; a size is built when it is first asked for."""

    def __init__(self, device: torch.device, scale: Scale, folder: Path, without: Sequence[str] = ()) -> None:
        self.device, self.scale, self.without = device, scale, without
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.recordings = Recordings()
        self._folder = folder
        self._models: dict[str, Any] = {}
        self._peers: dict[str, Transformers] = {}
        with suppress(ImportError):
            self.peer(scale.sizes[0])  # or the first part would pay for all

    @cached_property
    def processor(self) -> Any:
        """Raises ImportError where what it takes is not installed."""
        write_processor(self._folder, config_of(self.scale.sizes[0]).vocab_size)
        return tritone.AutoProcessor.from_pretrained(self._folder)

    def model(self, size: str) -> Any:
        if size not in self._models:
            self._models[size] = build_model(size, self.device, self.dtype)
        return self._models[size]

    def peer(self, size: str) -> Transformers:
        """Raises ImportError where transformers is not installed."""
        if size not in self._peers:
            self._peers[size] = Transformers(self.model(size), self._folder)
        return self._peers[size]

    def tritone(self, size: str, way: str, beams: int, longest: float | None = None) -> Tritone:
        """An engine, or a loop, for recordings of LibriSpeech's lengths or up to `longest` seconds."""
        if self.device.type == "cuda":  # the cache of the one before would count as taken
            gc.collect()
            torch.cuda.empty_cache()
        scale = self.scale
        (one,) = self.recordings.lasting([longest or 35 * scale.stretch])
        processor = self.processor if way == "waveforms" else None
        return Tritone(
            self.model(size),
            processor,
            way,
            beams=beams,
            requests=scale.requests,
            longest=one,
            without=self.without,
        )


def main(given: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parse_arguments(given)
    device = torch.device(arguments.device)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    scale = QUICK if arguments.quick else GPU if device.type == "cuda" else CPU
    chosen = parts(scale)[: arguments.parts]
    clock = Clock(arguments.seconds, [weight for weight, _ in chosen])
    peaks = peaks_of(device)
    findings = Findings(about(device, peaks, arguments.seconds), scale.sizes[0])
    print(headline(findings.about), flush=True)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(device, scale, Path(folder), arguments.without)
        for _, part in chosen:
            failed |= not carried_out(part, stage, peaks, findings, clock.next_share())
            write(findings, arguments.output)
    print("\n" + table(findings.rows))
    for what in findings.left_out:
        print(f"left out: {what}")
    print(arguments.output)
    return 1 if failed else 0


def parse_arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cuda", "cpu"), default=default)
    parser.add_argument("--threads", type=int, help="of torch on the CPU; its own choice by default")
    parser.add_argument("--seconds", type=float, help="in which to end, about; 300, on the CPU 900")
    parser.add_argument("--output", type=Path, default=Path("bench/results/throughput"))
    parser.add_argument("--quick", action="store_true", help="a tiny model and few recordings")
    parser.add_argument("--parts", type=int, help="only so many parts, what matters most first")
    parser.add_argument(
        "--without", nargs="*", choices=("graphs", "overlap"), default=(), help="of an engine on a GPU"
    )
    arguments = parser.parse_args(given)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu runs on the processor")
    if arguments.seconds is None:
        arguments.seconds = 300 if arguments.device == "cuda" else 900
    return arguments


def parts(scale: Scale) -> list[tuple[float, partial[None]]]:
    """What is to be done, what matters most first, with its weight in the time."""
    first, *others = scale.sizes
    found: list[tuple[float, partial[None]]] = []
    for beams, weights in ((1, (6, 4)), (5, (3, 3))):
        for way, weight in zip(WAYS, weights, strict=True):
            found.append((weight, partial(compare, size=first, way=way, beams=beams)))
    found += [(2, partial(by_concurrency, size=first)), (1.5, partial(by_length, size=first))]
    for beams in (1, 5):
        found += [(1.5, partial(compare, size=size, way=way, beams=beams)) for size in others for way in WAYS]
    return found


def carried_out(part: partial[None], stage: Stage, peaks: Peaks, findings: Findings, seconds: float) -> bool:
    """Whether a part went without an error; one that fails does not stop the others. A library that is not
    there, such as one that reads audio, is no error: what needs it is left out."""
    name = ", ".join([part.func.__name__, *(f"{key} {value}" for key, value in part.keywords.items())])
    try:
        part(stage, peaks, findings, seconds)
    except ImportError as error:
        findings.leave_out(f"{name}: {error}")
    except Exception as error:
        traceback.print_exc()
        findings.leave_out(f"{name}: failed: {type(error).__name__}: {error}")
        return False
    return True


def compare(
    stage: Stage, peaks: Peaks, findings: Findings, seconds: float, *, size: str, way: str, beams: int
) -> None:
    """One row: Tritone for a third of the time, transformers for the rest."""
    name, scale, end = f"{size}, from {way}, {decoding(beams)}", stage.scale, time.monotonic() + seconds
    pilot = stage.recordings.like_librispeech(scale.pilot, scale.stretch)
    if seconds <= 0:
        findings.leave_out(name)
        return
    with stage.tritone(size, way, beams) as ours:
        ours.run(pilot[:2])
        expected = 0.0  # on a GPU, 512 may take no longer than 2
        if stage.device.type == "cpu":
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
        recordings = stage.recordings.like_librispeech(count, scale.stretch)
        before = compiled()
        with Utilization(stage.device) as utilization:
            run = ours.run(recordings)
        new = compiled() - before
        spent = None
        # Reading a GPU's trace takes longer than the run; and transformers shall have half of what is left.
        takes = 3 * warm.seconds + (4.0 if stage.device.type == "cuda" else 0.0)
        if end - time.monotonic() > 2 * takes:
            spent = spent_on(lambda: ours.run(pilot), ours.model, ours.front_end)
        else:
            findings.leave_out(f"{name}: where the time goes")
        limit = run.audio / demand(stage.model(size).config, recordings, beams, stage.dtype.itemsize).seconds(
            peaks
        )
    peers = time_peers(stage, findings, end, size=size, way=way, beams=beams)
    row = Row(size, way, beams, run, limit, spent, utilization.busy, new, tuple(peers))
    findings.rows.append(row)
    print(progress(row), flush=True)


def time_peers(
    stage: Stage, findings: Findings, end: float, *, size: str, way: str, beams: int
) -> list[Peer]:
    """transformers with every batch size that there is time for."""
    name = f"transformers, {size}, from {way}, {decoding(beams)}"
    try:
        peer = stage.peer(size)
    except ImportError as error:
        findings.leave_out(f"{name}: {error}")
        return []
    recordings = stage.recordings.like_librispeech(stage.scale.peer, stage.scale.stretch)
    run = partial(peer.run, way=way, beams=beams)
    run(stage.recordings.lasting([stage.scale.stretch * 1.3]), size=1, seconds=0.0)
    peers: list[Peer] = []
    takes = 0.0  # seconds of a batch of one recording, or of any batch
    sizes = [batch for batch in stage.scale.batches if batch <= len(recordings)]
    for place, batch in enumerate(sizes):
        left = end - time.monotonic()
        # On the CPU, and where NumPy makes features, twice the recordings take twice the time.
        proportional = stage.device.type == "cpu" or way == "waveforms"
        expected = takes * (batch if proportional else 1)
        if left < max(expected, 0.01):
            note = f"{max(left, 0):.1f} s are left"
            if takes:
                note = f"a batch takes about {expected:.1f} s, {note}"
            peers.append(Peer(batch, None, note=note))
            findings.leave_out(f"{name}, batch {batch}: {note}")
            continue
        try:
            done, batches, of = run(recordings, size=batch, seconds=left / (len(sizes) - place))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            peers.append(Peer(batch, None, note="out of memory"))
            continue
        takes = done.seconds / (done.recordings if proportional else batches)
        peers.append(Peer(batch, done.rtfx, batches, of))
    return peers


def by_concurrency(stage: Stage, peaks: Peaks, findings: Findings, seconds: float, *, size: str) -> None:
    """RTFx of an engine that never has more than so many requests in flight."""
    end = time.monotonic() + seconds
    with stage.tritone(size, "waveforms", 1) as ours:
        ours.run(stage.recordings.like_librispeech(stage.scale.pilot, stage.scale.stretch))
        run = None
        for flight in stage.scale.concurrency:
            recordings = stage.recordings.like_librispeech(max(2 * flight, 8), stage.scale.stretch)
            expected = audio_seconds(recordings) / run.rtfx if run else 0.0  # at least as fast as fewer
            if time.monotonic() + expected > end:
                findings.leave_out(f"{size}, {flight} requests in flight")
                continue
            run = ours.run(recordings, in_flight=flight)
            findings.concurrency.append((flight, run.rtfx))
            print(f"{size}, {flight} requests in flight: RTFx {run.rtfx:,.1f}", flush=True)


def by_length(stage: Stage, peaks: Peaks, findings: Findings, seconds: float, *, size: str) -> None:
    """What a second of audio costs in recordings all of one length."""
    end, scale = time.monotonic() + seconds, stage.scale
    with stage.tritone(size, "waveforms", 1, longest=max(scale.lengths)) as ours:
        run = ours.run(stage.recordings.lasting(scale.lengths))
        for length in scale.lengths:
            recordings = stage.recordings.lasting([length] * max(round(scale.audio / length), scale.each))
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
