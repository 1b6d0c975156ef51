"""Waveforms to text on the CPU: Tritone beside transformers at its best batch size, in one run.

    python bench/cpu.py [--model speech2text | wav2vec2-ctc | speech-encoder-decoder] [--quick] [--threads 2]
        [--beams 1 5] [--dtype float32 bfloat16] [--repeats 3] [--cost-of-invariance] [--json FILE]

Published sizes with random weights. 32 recordings of 1.5 to 30 s; --quick takes 12 of 2 to 15 s, float32
alone, warms up on the four shortest, and begins no further round that would not end within 200 s, so that it
is done in under 4 minutes on two cores. Models that decode give 3.4 new tokens a second of audio, fixed: the
end token is suppressed. All engines get float32 waveforms in memory and give text; feature extraction and
detokenisation count. Tritone takes the recordings in the order given; transformers, in float32, gets them
sorted by length, alone and in padded batches, each of which runs until its longest member is done, as static
batches do. Engines take turns, the median of the repeats counts. How many texts are those that transformers
gives each recording alone stands beside the speed.

What Tritone's invariance costs is seen with --cost-of-invariance, in rows that do without: products of as
many rows as there are, and torch's sigmoid. It needs the `dev` extra.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from unittest import mock

import torch
import transformers
from cpu_models import MODELS, BenchModel
from machine import about_machine
from tritone.kernels import linear, prepacked
from workload import Recording, Recordings, audio_seconds

Contestant = Callable[[Sequence[Recording]], list[str]]

PEER = "transformers"
SINGLE = "tritone, float32"
VARIANT = ", without invariance"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is run.

    Args:
        shortest, longest: seconds of the recordings, between which there are `count`.
        dtypes: of Tritone's models.
        repeats: rounds that count, at most.
        warm_up: recordings of the round that does not count, the shortest; all if there are fewer.
        seconds: in which another round has to end.
    """

    shortest: float
    longest: float
    count: int
    dtypes: tuple[str, ...]
    repeats: int
    warm_up: int
    seconds: float


FULL = Scale(1.5, 30, 32, ("float32", "bfloat16"), 3, 32, float("inf"))
QUICK = Scale(2, 15, 12, ("float32",), 3, 4, 200)
SMOKE = Scale(0.5, 2, 4, ("float32",), 1, 1, float("inf"))


@dataclass(slots=True)
class Timed:
    """What one contestant took, and its texts."""

    seconds: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    scale = SMOKE if arguments.smoke else QUICK if arguments.quick else FULL
    recordings = Recordings().evenly(scale.shortest, scale.longest, scale.count)
    model = MODELS[arguments.model](tiny=arguments.smoke)
    about = about_machine(torch.device("cpu"))
    print(f"{model.title}; {len(recordings)} recordings, {audio_seconds(recordings):.0f} s of audio")
    print(", ".join([about["processor"], about["device"], *(f"{n} {about[n]}" for n in ("torch", PEER))]))
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        model.write(Path(folder))
        for beams in arguments.beams:
            runs = contestants(
                model,
                Path(folder),
                recordings,
                beams,
                arguments.dtype or scale.dtypes,
                arguments.cost_of_invariance,
            )
            timed = take_turns(runs, recordings, scale, arguments.repeats or scale.repeats)
            results[f"{beams} beams"] = report(timed, audio_seconds(recordings), beams)
    if arguments.json:
        told = {"about": about, "model": model.title, "scale": asdict(scale), "results": results}
        arguments.json.write_text(json.dumps(told, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="speech2text")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--beams", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--dtype", nargs="+", help="of Tritone's models; float32 and, unless --quick, bfloat16"
    )
    parser.add_argument("--repeats", type=int, help="rounds that count; 3 by default")
    parser.add_argument("--cost-of-invariance", action="store_true", help="also time Tritone without it")
    parser.add_argument("--quick", action="store_true", help="12 recordings, in under 4 minutes")
    parser.add_argument("--smoke", action="store_true", help="a tiny model and 4 recordings: does it run?")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not MODELS[arguments.model].searches and arguments.beams != [1]:
        parser.error(f"{arguments.model} takes its best path and has no beams; leave --beams out")
    return arguments


def contestants(
    model: BenchModel,
    folder: Path,
    recordings: Sequence[Recording],
    beams: int,
    dtypes: Sequence[str],
    cost_of_invariance: bool,
) -> dict[str, Contestant]:
    """Each engine as a function from recordings to their texts; models are loaded here, outside the clock."""
    runs: dict[str, Contestant] = {}
    for dtype in dtypes:
        engine = model.engine(folder, dtype, recordings, beams)
        run = partial(model.transcribe, engine, beams=beams)
        runs[f"tritone, {dtype}"] = run
        if cost_of_invariance:
            runs[f"tritone, {dtype}{VARIANT}"] = partial(without_invariance, run)
    theirs = model.peer(folder)
    for size in model.batch_sizes:
        if size <= len(recordings):
            runs[peer_name(size)] = partial(model.peer_texts, *theirs, beams=beams, size=size)
    return runs


def peer_name(size: int) -> str:
    return f"{PEER}, batch {size}{', unpadded' if size == 1 else ''}"


def without_invariance(run: Contestant, recordings: Sequence[Recording]) -> list[str]:
    """A run with operations whose bits depend on the batch in place of those that cost more."""
    with (
        mock.patch.object(prepacked, "padded_rows", lambda rows: rows),
        mock.patch.object(linear, "gated", lambda values, gate: values * gate.sigmoid()),
    ):
        return run(recordings)


def take_turns(
    runs: dict[str, Contestant], recordings: Sequence[Recording], scale: Scale, repeats: int
) -> dict[str, Timed]:
    """What each took in every round, after one that does not count."""
    begin = time.perf_counter()
    for run in runs.values():
        run(sorted(recordings, key=lambda recording: recording.seconds)[: scale.warm_up])
    timed = {name: Timed() for name in runs}
    for turn in range(repeats):
        start = time.perf_counter()
        for name, run in runs.items():
            before = time.perf_counter()
            timed[name].texts = run(recordings)
            timed[name].seconds.append(time.perf_counter() - before)
        now = time.perf_counter()
        if turn + 1 < repeats and (now - begin) + (now - start) > scale.seconds:
            print(f"{turn + 1} of {repeats} rounds: another would not end within {scale.seconds:.0f} s")
            break
    return timed


def report(timed: dict[str, Timed], seconds: float, beams: int) -> dict[str, float]:
    """Prints a table of seconds of audio a second, and what is best beside transformers' best."""
    rtfx = {name: seconds / statistics.median(one.seconds) for name, one in timed.items()}
    alone = timed[peer_name(1)].texts
    rounds = len(timed[peer_name(1)].seconds)
    title = f"{'greedy' if beams == 1 else f'{beams} beams'}, median of {rounds}"
    print(f"\n{title:<42}{'RTFx':>8}    texts as {PEER} gives each alone")
    for name, value in rtfx.items():
        same = sum(text == other for text, other in zip(timed[name].texts, alone, strict=True))
        print(f"  {name:<40}{value:8.1f}    {same} of {len(alone)}")
    best = max((value, name) for name, value in rtfx.items() if name.startswith(PEER))
    batch = best[1].removeprefix(f"{PEER}, ")
    for name, value in rtfx.items():
        if name.startswith(PEER) or name.endswith(VARIANT):
            continue
        also = f"; {value / rtfx[SINGLE]:.2f} times {SINGLE}" if name != SINGLE and SINGLE in rtfx else ""
        if f"{name}{VARIANT}" in rtfx:
            also += f"; invariance costs {100 * (1 - value / rtfx[f'{name}{VARIANT}']):.1f} % of its time"
        print(f"  {name} is {value / best[0]:.2f} times {PEER}' best ({batch}){also}")
    return rtfx


if __name__ == "__main__":
    main()
