"""Stages of the soak in processes of their own: command runs that are killed, and damaged files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from load import Counts, Watched
from oracle import SAMPLES, bad_files

import tritone

TESTS = Path(__file__).parents[1]
HANG = 120.0  # seconds for one process
COPIES = 12  # of every sample, so that a run lasts long enough to be killed


class Stage(Watched):
    """Thread that runs processes one after the other until `over` is set."""

    def __init__(self, name: str, folder: Path, seed: int, counts: Counts, over: threading.Event) -> None:
        super().__init__(name, seed, counts, over)
        self.folder = folder
        folder.mkdir()

    def finished(self, process: subprocess.Popen[bytes], what: str) -> int | None:
        """Wait for the exit code of a process; None where it was killed since the soak is over, or hangs."""
        until = time.monotonic() + HANG
        while time.monotonic() < until:
            try:
                return process.wait(0.2)
            except subprocess.TimeoutExpired:
                if self.over.is_set():
                    break
        else:
            self.counts.note(self.counts.hangs, what)
        kill(process)
        return None


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def start(command: list[str], **options: object) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own."""
    return subprocess.Popen(command, start_new_session=True, **options)  # type: ignore[call-overload, no-any-return]


class Commands(Stage):
    """`tritone transcribe --output`, killed at random times and continued until the file is whole."""

    def __init__(self, folder: Path, seed: int, counts: Counts, over: threading.Event) -> None:
        super().__init__("commands", folder, seed, counts, over)
        self.runs = self.kills = 0
        inputs = folder / "inputs"
        inputs.mkdir()
        self.bad = bad_files(inputs)
        self.good: list[tuple[Path, str]] = []
        with tritone.Engine("digits", device="cpu") as engine:
            for sample in sorted(path for path in SAMPLES.iterdir() if path.suffix in (".wav", ".flac")):
                text = engine.submit(sample).result(60).text
                for number in range(COPIES):
                    path = inputs / f"{number}-{sample.name}"
                    path.symlink_to(sample)
                    self.good.append((path, text))

    def work(self) -> None:
        number = 0
        while not self.over.is_set():
            self.draw.shuffle(self.good)
            chosen = self.good[: self.draw.randrange(10, len(self.good))]
            failing = self.draw.sample(self.bad, self.draw.randrange(3))
            wanted: dict[str, str | None] = {str(path): text for path, text in chosen}
            wanted |= {str(path): None for path in failing}
            paths = list(wanted)
            self.draw.shuffle(paths)
            self.one_file(self.folder / f"{number}.jsonl", paths, wanted)
            number += 1

    def one_file(self, output: Path, paths: list[str], wanted: dict[str, str | None]) -> None:
        """Write one results file in several runs, and check its lines."""
        command = [sys.executable, "-m", "tritone", "transcribe", *paths, "--model", "digits"]
        command += ["--output", str(output)]
        for last in (*[False] * self.draw.randrange(1, 4), True):
            with (self.folder / "stderr").open("wb") as errors:
                process = start([*command, "--device", "cpu"], stdout=subprocess.DEVNULL, stderr=errors)
            self.runs += 1
            if not last:
                before = output.stat().st_size if output.exists() else 0
                self.over.wait(self.draw.choice([0.3, 1.0, 1.5, 2.0]))
                until = time.monotonic() + 20  # a kill while lines are being written
                while process.poll() is None and time.monotonic() < until and not self.over.is_set():
                    if output.exists() and output.stat().st_size != before:
                        break
                    time.sleep(0.01)
                self.over.wait(self.draw.uniform(0, 0.3))
                kill(process)
                self.kills += 1
                continue
            code = self.finished(process, " ".join(command))
            if code is None:
                return
            errors_text = (self.folder / "stderr").read_text()
            if code != int(None in wanted.values()) or "Traceback" in errors_text:
                self.counts.note(self.counts.wrong, f"exit code {code} of {command}: {errors_text[-2000:]}")
        self.check(output, wanted)

    def check(self, output: Path, wanted: dict[str, str | None]) -> None:
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        seen = Counter(line["path"] for line in lines)
        for path, text in wanted.items():
            if seen[path] != 1:
                self.counts.note(self.counts.lost, f"{seen[path]} lines of {path} in {output}")
            for line in lines:
                if line["path"] == path and (
                    line["text"] != text or (line["error"] is None) != (text is not None)
                ):
                    self.counts.note(self.counts.wrong, f"{line} instead of {text!r}")


class Fuzzing(Stage):
    """tests/test_fuzz.py on numbers that its test does not reach, and coverage-guided fuzzing."""

    BATCH = 60
    FIRST = 1_000_000  # beyond all numbers of the test
    GUIDED_SECONDS = 8.0

    def __init__(
        self, folder: Path, seed: int, counts: Counts, over: threading.Event, seconds: float
    ) -> None:
        super().__init__("fuzzing", folder, seed, counts, over)
        self._guided_seconds = min(self.GUIDED_SECONDS, seconds / 10)
        self.files: Counter[str] = Counter()

    def work(self) -> None:
        import fuzz_cases
        from guided import TARGETS

        turns = [*fuzz_cases.KINDS, *(f"guided {name}" for name in TARGETS)]
        self.draw.shuffle(turns)
        number = 0
        while not self.over.is_set():
            what = turns[number % len(turns)]
            self.guided(what.split()[1], number) if what.startswith("guided ") else self.damaged(what, number)
            number += 1

    def damaged(self, kind: str, number: int) -> None:
        first = self.FIRST + self.draw.randrange(10**6) * self.BATCH
        which = f"{first}-{first + self.BATCH}"
        home = self.folder / f"{kind}-{number}"
        home.mkdir()
        lines = self.lines([str(TESTS / "test_fuzz.py"), kind, str(home), which], f"{kind} {which}")
        shutil.rmtree(home)
        for line in lines:
            if "outcome" in line:
                self.files[kind] += 1
                if line["wrong"]:
                    self.counts.note(self.counts.wrong, f"{line['file']}: {line['outcome']} {line['wrong']}")

    def guided(self, target: str, number: int) -> None:
        seconds = ["--seconds", str(self._guided_seconds), "--seed", str(self.draw.randrange(10**6))]
        command = [str(TESTS / "soak" / "guided.py"), target, *seconds]
        for line in self.lines(command, f"guided {target}"):
            self.files[f"guided {target}"] += line["inputs"]
            for found in line["found"]:
                self.counts.note(self.counts.wrong, f"guided {target}: {found}")

    def lines(self, command: list[str], what: str) -> list[dict]:
        """Lines of JSON that a script prints; a crash is a wrong answer, with the last file begun."""
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            process = start([sys.executable, *command], stdout=out, stderr=err)
        code = self.finished(process, what)
        content = (self.folder / "out").read_text(errors="replace").splitlines()
        if code is None:
            return []
        if code:
            errors = (self.folder / "err").read_text(errors="replace")
            self.counts.note(
                self.counts.wrong, f"{what} ended with {code} in {content[-1:]}: {errors[-3000:]}"
            )
            content = content[:-1]
        return [json.loads(line) for line in content]
