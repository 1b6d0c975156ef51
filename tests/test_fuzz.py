"""Thousands of damaged recordings, checkpoints and tokenizers: each gives a result or an error of two lines.

Child processes, this file as a script, read them under a limit of memory and a watchdog, so that a crash, a
hang or an allocation by a header fails the test and not the machine. Kind and number determine a file:
`python tests/test_fuzz.py pyav FOLDER 17` reads number 17 alone. TRITONE_FUZZ=10 reads ten times as many.
"""

import faulthandler
import json
import os
import resource
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import pytest

COUNTS = {"libsndfile": 900, "pyav": 600, "checkpoint": 600, "tokenizer": 180, "inference": 60}
ADDRESSES = 1 << 30  # bytes that a child may map beyond what it has once all is imported
MEMORY = 1 << 28  # bytes that it may touch beyond that
TIMEOUT = 60  # seconds for one file before it counts as a hang; the machine may be busy otherwise
CPU_SECONDS = 5  # that one file may take


def count(kind: str) -> int:
    return int(COUNTS[kind] * float(os.environ.get("TRITONE_FUZZ", "1")))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory and /proc")
@pytest.mark.parametrize("kind", COUNTS)
def test_damaged_files_give_a_result_or_an_error_of_two_lines_in_bounded_time_and_memory(kind, tmp_path):
    run = subprocess.run(
        [sys.executable, __file__, kind, str(tmp_path), f"0-{count(kind)}"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT * 60,
    )
    *outcomes, last = [json.loads(line) for line in run.stdout.splitlines()] or [{"begins": "the start"}]
    assert run.returncode == 0, f"ended with {run.returncode} in {last}\n{run.stderr[-4000:]}"

    files = [outcome for outcome in outcomes if "outcome" in outcome]
    wrong = [outcome for outcome in files if outcome["wrong"]]
    assert not wrong, f"{len(wrong)} of {len(files)}, such as\n" + "\n".join(map(str, wrong[:5]))
    assert last["memory"] < MEMORY, f"{last['memory']} bytes more than without"
    assert max(outcome["seconds"] for outcome in files) < CPU_SECONDS
    assert len(files) >= count(kind)
    # All results or all errors would mean that the damage is too little or too much to say anything.
    results = sum(outcome["outcome"] == "a result" for outcome in files)
    assert 0.05 < results / len(files) < 0.95, f"{results} results in {len(files)} files"
    kinds = {outcome["outcome"].split(":")[-1][:40] for outcome in files}
    assert len(kinds) > (1 if kind == "inference" else 5), kinds


# The child.


class Captured:
    """Descriptors 1 and 2 of this process, sent to a file, so that what a C library prints is seen.

    Attributes:
        report: file that reports go to, the standard output before.
    """

    def __init__(self, folder: Path) -> None:
        self.report = os.fdopen(os.dup(1), "w")
        self.errors = os.fdopen(os.dup(2), "w")
        self._file = os.open(folder / "printed", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(self._file, 1)
        os.dup2(self._file, 2)

    def take(self) -> str:
        """Return what has been printed since the last call."""
        sys.stdout.flush()
        sys.stderr.flush()
        printed = os.pread(self._file, 1000, 0)
        os.ftruncate(self._file, 0)
        return printed.decode(errors="replace")


def main(kind: str, folder: Path, which: str) -> None:
    """Read the files of a kind with these numbers, "17" or "0-900", and report each as a line of JSON."""
    import fuzz_cases
    import torch

    import tritone

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    tritone.Engine("digits", device="cpu").close()  # imports the rest
    expected = fuzz_cases.expected(kind)
    first, _, end = which.partition("-")
    numbers = range(int(first), int(end or int(first) + 1))
    captured = Captured(folder)
    faulthandler.enable(captured.errors)

    def report(**fields: Any) -> None:
        print(json.dumps(fields), file=captured.report, flush=True)

    before = 0
    for name, read in fuzz_cases.KINDS[kind](folder, numbers):
        if not before:  # the originals are made, and what makes them is imported
            before = memory()
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESSES, mapped + ADDRESSES))
        report(begins=name)
        captured.take()
        faulthandler.dump_traceback_later(TIMEOUT, exit=True, file=captured.errors)
        start, wrong = time.process_time(), None
        try:
            read()
            outcome = "a result"
        except BaseException as error:
            message = str(error)
            outcome = f"{type(error).__name__}: {message}"
            if not isinstance(error, expected) or not 0 < len(message.split("\n")) <= 2 or not message:
                wrong = traceback.format_exc()
        if printed := captured.take():
            wrong = f"{wrong or ''}\nprinted {printed!r}"
        seconds = round(time.process_time() - start, 3)
        report(file=name, outcome=outcome, seconds=seconds, wrong=wrong)
    faulthandler.cancel_dump_traceback_later()
    report(memory=memory() - before)


def memory() -> int:
    """The most bytes that this process has had in memory until now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parent / "support"))
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
