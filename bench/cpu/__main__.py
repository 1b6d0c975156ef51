"""Benchmark on the CPU: Tritone beside transformers at its best batch size, from waveforms to text, and from
recordings or texts to labels, in one run.

    python -m bench.cpu [--model speech2text | wav2vec2-ctc | speech-encoder-decoder | audio-classification |
        text-classification | whisper] [--quick] [--threads 2] [--beams 1 5] [--dtype float32 bfloat16]
        [--repeats 3] [--as-they-come] [--peer-dtype float32 bfloat16] [--cost-of-invariance] [--json FILE]

Published sizes with random weights. 32 recordings of 1.5 to 30 s, or 96 texts of 8 to 384 tokens; --quick
takes 12 of 2 to 15 s, or 48 of 8 to 256, float32 alone, and begins no further round that would not end within
200 s: about 4 minutes on two cores. One round before them does not count. Models that decode give 3.4 new
tokens a second of audio, fixed: the end token is suppressed. All engines get float32 waveforms in memory, or
strings, and give text or labels with scores; feature extraction, tokenization and detokenization count.
Tritone takes the items in the order given; transformers, in float32, gets them sorted by length, alone and in
static padded batches, each of which runs until its longest member is done. A stream cannot be sorted:
--as-they-come gives transformers batches in the order given too. --peer-dtype times it in other types.
Engines alternate, and the median of the repeats counts. Beside the speed stands the number of answers equal
to those of transformers for each recording or text alone, in float32: texts to the letter, scores within
1e-4, in bfloat16 0.01.

Beside it are CPU seconds, which other processes leave alone, and of Tritone's runs the phases: their share of
the CPU time, and what they reach of the rates of matrix products and of reading memory, which are measured at
the start for each dtype, in as many threads.

--model whisper has peers, speech and real weights of its own (the extra `english`): 32 recordings of 1 to
30 s, 496 s, joined from `samples/`, and one of four minutes, window after window and in independent windows.
Each engine is in a process of its own, all with --threads (all cores by default), and they run in turn:
Tritone, transformers, and faster-whisper in float32 and int8 (the extra `peers`), file by file and by its
`BatchedInferencePipeline`. Each tries its settings on every fourth recording, and the fastest counts. RTFx is
by wall clock and by CPU seconds of all threads; word error rates are jiwer's, of texts normalized as
Whisper's are. `--tasks batch` is another run: 40 excerpts of 1 to 90 s, alone and all together (transformers
and the pipeline in batches of 8), and the number of texts that change. Options: --tasks, --beams, --threads,
--repeats, --dtype, --quick (12 recordings, one round), --json.

--cost-of-invariance adds lines without Tritone's invariance: products without padded rows, and torch's
sigmoid. Needs the `dev` extra.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers

import tritone
from tritone.engine.bench.phases import CacheShape
from tritone.engine.bench.rates import measure_rates
from tritone.kernels.linear import cpu as linear_cpu
from tritone.kernels.linear import gemm
from tritone.scheduler.device.phases import observed

from ..common.command import make_parser
from ..common.machine import about_machine
from ..common.output import write_json
from ..common.recognizers import length_of
from . import whisper
from .classifiers import AudioClassification, TextClassification
from .models import BenchModel, Scale, Speech2Text, SpeechEncoderDecoder, Wav2Vec2CTC
from .phases import Phases, phase_lines

Run = Callable[[Sequence[Any]], list[Any]]  # from items to answers

PEER = "transformers"
SINGLE = "tritone, float32"
WHISPER = "whisper"
VARIANT = ", without invariance"
UNSORTED = ", as they come"

FULL = Scale(1.5, 30, 32, (8, 384), 96, ("float32", "bfloat16"), 3, 96, float("inf"))
QUICK = Scale(2, 15, 12, (8, 256), 48, ("float32",), 3, 48, 200)
SMOKE = Scale(0.5, 2, 4, (4, 40), 4, ("float32",), 1, 1, float("inf"))
MODELS: dict[str, type[BenchModel]] = {
    "speech2text": Speech2Text,
    "wav2vec2-ctc": Wav2Vec2CTC,
    "speech-encoder-decoder": SpeechEncoderDecoder,
    "audio-classification": AudioClassification,
    "text-classification": TextClassification,
}


@dataclass(slots=True)
class Timed:
    """Seconds of each round of a run, by wall clock and of CPU time, its answers, and its phases."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    phases: Phases = field(default_factory=Phases)


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    if arguments.model == WHISPER:
        return whisper.run(arguments)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    scale = SMOKE if arguments.smoke else QUICK if arguments.quick else FULL
    arguments.dtype = arguments.dtype or scale.dtypes
    model = MODELS[arguments.model](tiny=arguments.smoke)
    items = model.items(scale)
    about = about_machine(torch.device("cpu"))
    print(f"{model.title}; {model.described(items)}")
    print(", ".join([about["processor"], about["device"], *(f"{n} {about[n]}" for n in ("torch", PEER))]))
    results: dict[str, Any] = {}
    cpu_seconds: dict[str, Any] = {}
    phases: dict[str, Any] = {}
    rates = {dtype: measure_rates(getattr(torch, dtype)) for dtype in arguments.dtype}
    with tempfile.TemporaryDirectory() as folder:
        model.write(Path(folder))
        for beams in arguments.beams:
            engines = {dtype: model.engine(Path(folder), dtype, items, beams) for dtype in arguments.dtype}
            caches = {dtype: CacheShape.of(engine.model) for dtype, engine in engines.items()}
            runs = tritone_runs(model, engines, beams, arguments.cost_of_invariance)
            runs |= peer_runs(model, Path(folder), len(items), beams, arguments)
            timed = alternate(runs, items, scale, arguments.repeats or scale.repeats)
            search = f"{beams} beams"
            results[search] = report(timed, model, model.amount(items), beams)
            cpu_seconds[search] = {name: statistics.median(one.cpu_seconds) for name, one in timed.items()}
            phases[search] = {}
            for dtype, rate in rates.items():
                one, cache = timed[name := f"tritone, {dtype}"], caches[dtype]
                reached = one.phases.shares(cache, rate, sum(one.cpu_seconds))
                phases[search][name] = {phase: asdict(share) for phase, share in reached.items()}
                print(*phase_lines(name, reached, rate), sep="\n")
    if arguments.json:
        about["units"] = "seconds of audio a second" if model.unit == "RTFx" else model.unit
        found = {"about": about, "model": model.title, "scale": asdict(scale), "results": results}
        found |= {"cpu_seconds": cpu_seconds, "phases": phases}
        found["rates"] = {dtype: asdict(one) for dtype, one in rates.items()}
        write_json(arguments.json, found, indent=2)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=[*MODELS, WHISPER], default="speech2text")
    parser.add_argument("--threads", type=int, help="2 by default; for whisper all cores")
    parser.add_argument("--beams", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--dtype", nargs="+", help="of Tritone's models; float32 and, unless --quick, bfloat16"
    )
    parser.add_argument("--peer-dtype", nargs="+", default=["float32"], help=f"of {PEER}' models; float32")
    parser.add_argument(
        "--as-they-come", action="store_true", help=f"also give {PEER} batches that are not sorted by length"
    )
    parser.add_argument("--repeats", type=int, help="rounds that count; 3 by default")
    parser.add_argument("--cost-of-invariance", action="store_true", help="also time Tritone without it")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter, in under 4 minutes")
    parser.add_argument("--smoke", action="store_true", help="a tiny model and 4 items, for tests")
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=whisper.TASKS,
        default=[*whisper.TIMED],
        help="of whisper; all but batch by default",
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if "float32" not in arguments.peer_dtype:
        parser.error("--peer-dtype needs float32, with which answers are compared; add it")
    if arguments.threads is None:
        arguments.threads = len(os.sched_getaffinity(0)) if arguments.model == WHISPER else 2
    if arguments.model != WHISPER and not MODELS[arguments.model].searches and arguments.beams != [1]:
        parser.error(f"{arguments.model} has no beams; leave --beams out")
    return arguments


def tritone_runs(
    model: BenchModel, engines: dict[str, tritone.Engine], beams: int, without: bool
) -> dict[str, Run]:
    """Tritone's runs by name, of engines by dtype; `without` adds those without invariance."""
    runs: dict[str, Run] = {}
    for dtype, engine in engines.items():
        run = partial(model.answers, engine, beams=beams)
        runs[f"tritone, {dtype}"] = run
        if without:
            runs[f"tritone, {dtype}{VARIANT}"] = partial(without_invariance, run)
    return runs


def peer_runs(
    model: BenchModel, folder: Path, count: int, beams: int, arguments: argparse.Namespace
) -> dict[str, Run]:
    """transformers' runs by name, in batches of all sizes up to `count`."""
    runs: dict[str, Run] = {}
    for dtype in arguments.peer_dtype:
        theirs = model.peer(folder, dtype)
        for size in (size for size in model.batch_sizes if size <= count):
            run = partial(model.peer_answers, *theirs, beams=beams, size=size)
            runs[peer_name(size, dtype)] = run
            if arguments.as_they_come and size > 1:
                runs[peer_name(size, dtype) + UNSORTED] = partial(run, by_length=False)
    return runs


def peer_name(size: int, dtype: str = "float32") -> str:
    kind = "" if dtype == "float32" else f", {dtype}"
    return f"{PEER}{kind}, batch {size}{', unpadded' if size == 1 else ''}"


def without_invariance(run: Run, items: Sequence[Any]) -> list[Any]:
    """A run with cheaper operations, whose bits depend on the batch."""
    with (
        mock.patch.object(linear_cpu, "padded_rows", lambda rows: rows),
        mock.patch.object(linear_cpu, "in_tiles", return_value=False),
        mock.patch.object(gemm, "gated", lambda values, gate: values * gate.sigmoid()),
    ):
        return run(items)


def alternate(runs: dict[str, Run], items: Sequence[Any], scale: Scale, repeats: int) -> dict[str, Timed]:
    """Time all runs in every round, after one that does not count."""
    begin = time.perf_counter()
    timed = {name: Timed() for name in runs}
    for name, run in runs.items():
        with observed(timed[name].phases.counter):
            run(sorted(items, key=length_of)[: scale.warm_up])
    for round_ in range(repeats):
        start = time.perf_counter()
        for name, run in runs.items():
            one = timed[name]
            before, cpu_before = time.perf_counter(), time.process_time()
            with observed(one.phases.clock):
                one.answers = run(items)
            one.seconds.append(time.perf_counter() - before)
            one.cpu_seconds.append(time.process_time() - cpu_before)
        now = time.perf_counter()
        if round_ + 1 < repeats and (now - begin) + (now - start) > scale.seconds:
            print(f"{round_ + 1} of {repeats} rounds: another would not end within {scale.seconds:.0f} s")
            break
    return timed


def report(timed: dict[str, Timed], model: BenchModel, amount: float, beams: int) -> dict[str, float]:
    """Print a table of speeds, and the best beside transformers' best."""
    speeds = {name: amount / statistics.median(one.seconds) for name, one in timed.items()}
    alone = timed[peer_name(1)].answers
    rounds = len(timed[peer_name(1)].seconds)
    search = f"{beams} beams, " if beams > 1 else "greedy, " if model.searches else ""
    title = f"{search}median of {rounds}"
    print(f"\n{title:<50}{model.unit:>8}{'CPU s':>8}    as {PEER} gives each alone")
    for name, value in speeds.items():
        same = sum(
            model.same(one, other, "bfloat16" in name)
            for one, other in zip(timed[name].answers, alone, strict=True)
        )
        cpu = statistics.median(timed[name].cpu_seconds)
        print(f"  {name:<48}{value:8.1f}{cpu:8.1f}    {same} of {len(alone)}")
    peers = {name: value for name, value in speeds.items() if name.startswith(PEER)}
    unsorted = {name: value for name, value in peers.items() if "batch 1," in name or UNSORTED in name}
    for name, value in speeds.items():
        if name in peers or name.endswith(VARIANT):
            continue
        also = f"; {value / speeds[SINGLE]:.2f} times {SINGLE}" if name != SINGLE and SINGLE in speeds else ""
        if f"{name}{VARIANT}" in speeds:
            also += f"; invariance costs {100 * (1 - value / speeds[f'{name}{VARIANT}']):.1f} % of its time"
        print(f"  {name} is {compared(value, peers)}{also}")
        if any(UNSORTED in other for other in unsorted):
            print(f"  {name} is {compared(value, unsorted)} where nothing is sorted")
    return speeds


def compared(value: float, peers: dict[str, float]) -> str:
    """A speed beside the peers' best of each type."""
    by_dtype: dict[str, list[tuple[float, str]]] = {}
    for name, other in peers.items():
        kind, _, batch = name.removeprefix(f"{PEER}, ").rpartition("batch ")
        by_dtype.setdefault(kind.removesuffix(", "), []).append((other, f"batch {batch}"))
    ratios = []
    for kind, found in by_dtype.items():
        best, batch = max(found)
        ratios.append(f"{value / best:.2f} times {PEER}' best{f' in {kind}' if kind else ''} ({batch})")
    return ", ".join(ratios)


if __name__ == "__main__":
    main()
