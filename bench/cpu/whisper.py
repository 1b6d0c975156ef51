"""Whisper on the CPU: Tritone, faster-whisper and transformers on the same weights and the same speech."""

import argparse
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from os import environ
from pathlib import Path
from typing import Any

import torch

from tritone.models.whisper.normalizers import EnglishTextNormalizer

from ..common.machine import about_machine
from ..common.output import write_json
from .whisper_audio import ROOT, Spoken, excerpts, long_recording, short_recordings
from .whisper_checkpoints import english, random_tiny
from .whisper_contestants import ALONE, BATCH, FILES, RATE, SEQUENTIAL, TOGETHER, WINDOWS

# Engine and type of each row. Tritone's other types are rows too where --dtype names them.
PEERS = (("transformers", "float32"), ("faster-whisper", "float32"), ("faster-whisper", "int8"))
TASKS = {
    FILES: "many recordings",
    SEQUENTIAL: "one long recording, window after window",
    WINDOWS: "one long recording, independent windows",
    BATCH: "texts that change where recordings share a batch",
}
TIMED = (FILES, SEQUENTIAL, WINDOWS)
MESSAGE = 160  # characters of an error
WARM_UP = 40  # seconds of a recording, more than a window
SETTLE = 0.3  # seconds in which idle OpenMP threads of the process before may still spin


@dataclass(frozen=True, slots=True)
class Extent:
    """Extent of a run."""

    shortest: float  # seconds of a recording
    longest: float
    count: int  # recordings
    long: float | None  # seconds of the long recording; None: all of it
    batch: tuple[float, float, int]  # shortest and longest recording of BATCH in seconds, and their number
    repeats: int


FULL = Extent(1, 30, 32, None, (1, 90, 40), 3)
QUICK = Extent(1, 30, 12, None, (1, 90, 10), 1)
SMOKE = Extent(1, 6, 3, 35, (1, 35, 3), 1)


class Contestant:
    """A process that runs one engine, from its start to the end of a `with` block."""

    def __init__(self, engine: str, dtype: str, folder: Path, threads: int) -> None:
        self.name = f"{engine}, {dtype}"
        counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        module = "bench.cpu.whisper_contestants"
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, engine, str(folder), dtype, str(threads)],
            cwd=ROOT,
            env={**environ, **counts, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if environ.get("BENCH_VERBOSE") else subprocess.DEVNULL,
        )

    def __enter__(self) -> "Contestant":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, *request: Any) -> Any:
        """The process's answer to a request of `whisper_contestants.serve`.

        Raises:
            ContestantError: the engine failed, or its process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump(request[0] if len(request) == 1 else request, self._process.stdin)
            self._process.stdin.flush()
            answer, error = pickle.load(self._process.stdout)
        except (OSError, EOFError) as lost:
            raise ContestantError("its process ended") from lost
        if error is not None:
            raise ContestantError(error)
        return answer


class ContestantError(RuntimeError):
    """Failure of an engine, which its row tells."""


@dataclass(slots=True)
class Row:
    """Measurements of one contestant in one task."""

    name: str
    setting: str = ""
    tried: dict[str, float] = field(default_factory=dict)  # RTFx by setting, on every fourth recording
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    error: str | None = None

    def result(self, audio: float, references: Sequence[str]) -> dict[str, Any]:
        """Speeds in seconds of audio a second, and the word error rate."""
        if self.error is not None:
            return {"not_run": self.error}
        return {
            "setting": self.setting,
            "rtfx": audio / statistics.median(self.seconds),
            "rtfx_of_cpu_seconds": audio / statistics.median(self.cpu_seconds),
            "wer": word_error_rate(references, self.texts),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "tried": self.tried,
            "texts": self.texts,
        }


def run(arguments: argparse.Namespace) -> None:
    """Time all engines in all tasks and print a table of each; implements `--model whisper`."""
    extent = SMOKE if arguments.smoke else QUICK if arguments.quick else FULL
    repeats = arguments.repeats or extent.repeats
    recordings = short_recordings(extent.shortest, extent.longest, extent.count)
    long = [long_recording(extent.long)]
    about = about_machine(torch.device("cpu")) | {
        name: _version(name) for name in ("faster-whisper", "jiwer")
    }
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        checkpoints = (random_tiny if arguments.smoke else english)(folder)
        print(
            f"{checkpoints.title}; {len(recordings)} recordings, {_seconds(recordings):.0f} s of speech, ",
            end="",
        )
        print(f"and one of {_seconds(long):.0f} s")
        libraries = ("torch", "transformers", "faster-whisper")
        print(
            ", ".join([about["processor"], about["device"], *(f"{name} {about[name]}" for name in libraries)])
        )
        contestants: dict[str, Contestant | None] = {}
        for engine, dtype in [*(("tritone", dtype) for dtype in arguments.dtype or ["float32"]), *PEERS]:
            source = checkpoints.of(engine)
            contestants[f"{engine}, {dtype}"] = source and stack.enter_context(
                Contestant(engine, dtype, source, arguments.threads)
            )
        for beams in arguments.beams:
            for task in arguments.tasks:
                if task == BATCH:
                    items = excerpts(*extent.batch)
                    changed = changed_by_a_batch(contestants, beams, [one.waveform for one in items])
                    report_changes(f"{TASKS[task]}, {_search(beams)}", changed, items)
                    results[f"{task}, {beams} beams"] = changed
                    continue
                items = recordings if task == FILES else long
                rows = compete(contestants, task, beams, items, repeats)
                found = {row.name: row.result(_seconds(items), [one.text for one in items]) for row in rows}
                report(f"{TASKS[task]}, {_search(beams)}, median of {repeats}", found)
                results[f"{task}, {beams} beams"] = found
    if arguments.json:
        about["units"] = "seconds of audio a second"
        found = {"about": about, "model": checkpoints.title, "extent": asdict(extent), "results": results}
        write_json(arguments.json, found, indent=2)


def compete(
    contestants: dict[str, Contestant | None], task: str, beams: int, items: Sequence[Spoken], repeats: int
) -> list[Row]:
    """Let all contestants run in turn: its settings first, then the fastest of them `repeats` times."""
    waveforms = [one.waveform for one in items]
    rows = [Row(name) for name in contestants]
    for row in rows:
        contestant = contestants[row.name]
        if contestant is None:
            row.error = "no checkpoint in its format"
            continue
        with _telling(row):
            _choose(row, contestant, task, beams, items)
    for _ in range(repeats):
        for row in rows:
            contestant = contestants[row.name]
            if contestant is None or row.error is not None:
                continue
            time.sleep(SETTLE)
            with _telling(row):
                row.texts, seconds, cpu_seconds = contestant.ask(task, row.setting, beams, waveforms)
                row.seconds.append(seconds)
                row.cpu_seconds.append(cpu_seconds)
                _note(row, row.setting, seconds, cpu_seconds)
    return rows


def changed_by_a_batch(
    contestants: dict[str, Contestant | None], beams: int, waveforms: Sequence[Any]
) -> dict[str, dict[str, Any]]:
    """Texts of each contestant for recordings alone and together, and which of them differ."""
    found: dict[str, dict[str, Any]] = {}
    for name, contestant in contestants.items():
        row = Row(name)
        texts = {}
        if contestant is None:
            row.error = "no checkpoint in its format"
        else:
            with _telling(row):
                for setting in (ALONE, TOGETHER):
                    texts[setting], seconds, _ = contestant.ask(BATCH, setting, beams, waveforms)
                    _note(row, setting, seconds)
        if row.error is not None:
            found[name] = {"not_run": row.error}
            continue
        pairs = zip(texts[ALONE], texts[TOGETHER], strict=True)
        changed = [index for index, (alone, together) in enumerate(pairs) if alone != together]
        found[name] = {"changed": changed, **texts}
    return found


def report_changes(title: str, found: dict[str, dict[str, Any]], items: Sequence[Spoken]) -> None:
    """Print a table of how many texts change, and of how long their recordings are."""
    print(f"\n{title:<60}{'changed':>9}")
    for name, row in found.items():
        if error := row.get("not_run"):
            print(f"  {name:<58}not run: {error}")
            continue
        lengths = ", ".join(
            f"{seconds:.0f}" for seconds in sorted(items[one].seconds for one in row["changed"])
        )
        print(
            f"  {name:<58}{len(row['changed']):>4} of {len(items):<3}{f' ({lengths} s)' if lengths else ''}"
        )


def _search(beams: int) -> str:
    return "greedy" if beams == 1 else f"{beams} beams"


def _choose(row: Row, contestant: Contestant, task: str, beams: int, items: Sequence[Spoken]) -> None:
    """Warm up, and let the fastest setting count, by every fourth item; one setting needs no choice."""
    settings = contestant.ask(task)
    some = items[::4]
    waveforms = [one.waveform for one in some]
    for setting in settings:
        contestant.ask(task, setting, beams, [waveforms[0][: WARM_UP * RATE]])
        if len(settings) > 1:
            _, seconds, _ = contestant.ask(task, setting, beams, waveforms)
            row.tried[setting] = _seconds(some) / seconds
            _note(row, setting, seconds)
    row.setting = max(row.tried, key=row.tried.__getitem__, default=settings[0])


def _note(row: Row, setting: str, *seconds: float) -> None:
    """Print the progress of a run to standard error: its seconds, and CPU seconds."""
    taken = ", ".join(f"{one:.1f} s" for one in seconds)
    print(f"  ... {row.name} {f'({setting})' if setting else ''}: {taken}", file=sys.stderr, flush=True)


@contextmanager
def _telling(row: Row) -> Iterator[None]:
    """Context that keeps a contestant's failure in its row."""
    try:
        yield
    except ContestantError as error:
        missing = "No module named 'faster_whisper'" in str(error)
        row.error = "not installed: pip install 'tritone[peers]'" if missing else str(error)[:MESSAGE]


def report(title: str, found: dict[str, dict[str, Any]]) -> None:
    """Print a table of speeds and error rates, and Tritone's speed beside each peer's.

    "-" is an error rate without jiwer, or of speech whose text is not known.
    """
    print(f"\n{title:<60}{'RTFx':>8}{'of CPU s':>10}{'WER':>8}")
    for name, row in found.items():
        if error := row.get("not_run"):
            print(f"  {name:<58}not run: {error}")
            continue
        label = f"{name} ({row['setting']})" if row["setting"] else name
        wer = "-" if row["wer"] is None else f"{100 * row['wer']:.1f} %"
        print(f"  {label:<58}{row['rtfx']:>8.1f}{row['rtfx_of_cpu_seconds']:>10.1f}{wer:>8}")
    ran = {name: row["rtfx"] for name, row in found.items() if "rtfx" in row}
    for name in (name for name in ran if name.startswith("tritone")):
        ratios = [
            f"{ran[name] / rtfx:.2f} times {peer}"
            for peer, rtfx in ran.items()
            if not peer.startswith("tritone")
        ]
        print(f"  {name} is {'; '.join(ratios) or 'alone'}")


def word_error_rate(references: Sequence[str], texts: Sequence[str]) -> float | None:
    """Errors for each word, after Whisper's normalization; None without jiwer, or where no text is known."""
    try:
        import jiwer
    except ImportError:
        return None
    normalize = EnglishTextNormalizer({})
    wanted = [normalize(text) for text in references]
    return float(jiwer.wer(wanted, [normalize(text) for text in texts])) if all(wanted) else None


def _seconds(items: Sequence[Spoken]) -> float:
    return sum(one.seconds for one in items)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
