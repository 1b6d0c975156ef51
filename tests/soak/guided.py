"""Coverage-guided fuzzing of one reader: `python tests/soak/guided.py flax --seconds 60`.

By atheris where it is installed (`pip install -e '.[fuzz]'`), otherwise by a loop of the same kind: inputs
that reach a new pair of lines are kept and mutated further. Prints one JSON line: inputs, pairs of lines or
features reached, and what was found, with the input in base64.
"""

import argparse
import base64
import contextlib
import faulthandler
import importlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from damage import damaged, damaged_json
from targets import TARGETS, Read, Target, refused

ADDRESSES = 1 << 30  # bytes that the readers may map beyond what is imported
SECONDS = 5  # for one input
MAX_BYTES = 1 << 16
MAX_SHOWN = 20_000  # bytes of an input in a report


class Slow(BaseException):
    """An input took too long; no Exception, so that no reader takes it for its own."""


class Checked:
    """A target's function that records what should not be.

    Attributes:
        inputs: number of inputs read.
        found: a description for each place where something went wrong.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._allowed = refused()
        self.inputs = 0
        self.found: dict[str, str] = {}

    def __call__(self, data: bytes) -> None:
        self.inputs += 1
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            self._read(data)
        except self._allowed as error:
            if not str(error):
                self._note(error, data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._note(error, data)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _note(self, error: BaseException, data: bytes) -> None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
        shown = f"{place}: {str(error)[:200]} {base64.b64encode(data[:MAX_SHOWN]).decode()}"
        self.found.setdefault(place, shown)


def mutations(target: Target, draw: random.Random) -> Callable[[bytes, bytes], bytes]:
    """A function that mutates an input, given another one to take pieces from."""

    def mutate(data: bytes, other: bytes) -> bytes:
        if target.is_json and draw.random() < 0.7:
            with contextlib.suppress(ValueError, RecursionError):
                return damaged_json(data, draw)[:MAX_BYTES]
        return damaged(data, draw.choice([16, 64, 400]), other, draw)[:MAX_BYTES]

    return mutate


class Coverage:
    """Pairs of successive lines reached in some files, over all inputs."""

    def __init__(self, files: frozenset[str]) -> None:
        self._files = files
        self.pairs: set[tuple[str, int, int]] = set()

    @contextlib.contextmanager
    def traced(self) -> Iterator[None]:
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(None)

    def _call(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        last = 0
        name, pairs = frame.f_code.co_filename, self.pairs

        def line(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            if event == "line":
                pairs.add((name, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line


def own_loop(target: Target, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Mutate inputs for so many seconds, keeping those that reach something new."""
    modules = [importlib.import_module(name) for name in target.modules]
    coverage = Coverage(frozenset(str(module.__file__) for module in modules))
    current = os.open(folder / "current", os.O_WRONLY | os.O_CREAT)  # for the parent, after a crash
    seeds, read = target.make(folder)
    checked, draw = Checked(read), random.Random(seed)
    mutate = mutations(target, draw)
    corpus = list(seeds)
    limit_memory()
    with coverage.traced():
        for data in seeds:
            checked(data)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            data = draw.choice(corpus)
            for _ in range(draw.choice([1, 1, 2, 4])):
                data = mutate(data, draw.choice(corpus))
            before = len(coverage.pairs)
            os.pwrite(current, data, 0)
            os.ftruncate(current, len(data))
            checked(data)
            if len(coverage.pairs) > before:
                corpus.append(data)
    return {"inputs": checked.inputs, "reached": len(coverage.pairs), "found": list(checked.found.values())}


def own_loop_in_child(target: Target, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Run `own_loop` in a forked child, so that a crash is reported with its input."""
    child = os.fork()
    if not child:
        (folder / "report").write_text(json.dumps(own_loop(target, seconds, seed, folder)))
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not code:
        return dict(json.loads((folder / "report").read_text()))
    data = (folder / "current").read_bytes()
    found = f"ended with {code} {base64.b64encode(data[:MAX_SHOWN]).decode()}"
    return {"inputs": 0, "reached": 0, "found": [found]}


def by_atheris(name: str, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Fuzz in a child, since libFuzzer ends its process."""
    corpus, report = folder / "corpus", folder / "report"
    corpus.mkdir()
    seeds, _ = TARGETS[name].make(folder)
    for number, data in enumerate(seeds):
        (corpus / str(number)).write_bytes(data[:MAX_BYTES])
    child = [sys.executable, __file__, name, "--child", str(folder), "--seed", str(seed)]
    run = subprocess.run(
        [*child, "--seconds", str(seconds)], capture_output=True, text=True, errors="replace"
    )
    lines = report.read_text().splitlines() if report.exists() else []
    last = json.loads(lines[-1]) if lines else {"inputs": 0, "found": []}
    if run.returncode:
        crash = [path.read_bytes() for path in folder.glob("artifact-*")] or [b""]
        shown = base64.b64encode(crash[0][:MAX_SHOWN]).decode()
        last["found"] = [*last["found"], f"ended with {run.returncode}: {run.stderr[-1500:]} {shown}"]
    reached = re.findall(r"ft: (\d+)", run.stderr)
    return {**last, "reached": int(reached[-1]) if reached else 0}


def atheris_child(name: str, seconds: float, seed: int, folder: Path) -> None:
    import atheris

    target = TARGETS[name]
    with atheris.instrument_imports(include=list(target.modules)):
        for module in target.modules:
            importlib.import_module(module)
    seeds, read = target.make(folder)
    checked, draw = Checked(read), random.Random(seed)
    mutate = mutations(target, draw)
    report, last, found = folder / "report", time.monotonic(), 0

    def one(data: bytes) -> None:
        nonlocal last, found
        checked(data)
        if time.monotonic() - last > 0.5 or len(checked.found) > found:
            last, found = time.monotonic(), len(checked.found)
            report.write_text(json.dumps({"inputs": checked.inputs, "found": list(checked.found.values())}))

    def mutated(data: bytes, limit: int, number: int) -> bytes:
        if number % 2:
            return bytes(atheris.Mutate(data, limit))
        return mutate(data, seeds[number % len(seeds)])[:limit]

    limit_memory()
    options = [f"-max_total_time={int(seconds)}", f"-seed={seed}", f"-max_len={MAX_BYTES}"]
    options += [f"-artifact_prefix={folder}/artifact-", "-rss_limit_mb=0"]
    atheris.Setup([sys.argv[0], *options, str(folder / "corpus")], one, custom_mutator=mutated)
    atheris.Fuzz()


def limit_memory() -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESSES, mapped + ADDRESSES))


def too_long(*_: Any) -> None:
    raise Slow(f"over {SECONDS} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--own", action="store_true", help="The loop here, though atheris is installed.")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    name, seconds, seed = arguments.target, arguments.seconds, arguments.seed
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.simplefilter("ignore")
    faulthandler.enable()
    faulthandler.dump_traceback_later(seconds + 120, exit=True)
    signal.signal(signal.SIGALRM, too_long)
    if arguments.child:
        atheris_child(name, seconds, seed, arguments.child)
    with tempfile.TemporaryDirectory(prefix="tritone-guided-") as folder:
        if arguments.own or importlib.util.find_spec("atheris") is None:
            result = own_loop_in_child(TARGETS[name], seconds, seed, Path(folder))
        else:
            result = by_atheris(name, seconds, seed, Path(folder))
    print(json.dumps({"target": name, **result}))


if __name__ == "__main__":
    main()
