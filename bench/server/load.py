"""One run of the load test against a fresh server: answers, latencies, and what is left in the server."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .client import Answer
from .process import ServerProcess
from .uploads import Upload, good, save

PERCENTILES = (50, 90, 99)
# Metrics that are zero once nothing is under way.
_IDLE = ("tritone:num_requests_running", "tritone:num_requests_waiting", "tritone:kv_cache_usage_perc")
_SETTLING = 10.0  # seconds in which a server has to be idle again
_GRACE = 60.0  # seconds of the client's process beyond the timeout of its requests


@dataclass(frozen=True, slots=True)
class Server:
    """The server under test."""

    name: str  # of its model
    arguments: tuple[str, ...]  # of the command

    def start(self) -> ServerProcess:
        """Start the server."""
        return ServerProcess(self.arguments)


@dataclass(frozen=True, slots=True)
class Load:
    """Result of a run."""

    uploads: int
    answers: dict[str, int]  # by status, or by the end without one
    wrong: list[str]  # descriptions of wrong answers, and of uploads without an answer
    refusals: int  # answers 429, after which the client came again
    seconds: float  # from the first byte to the last answer
    cpu: float  # seconds of the server
    event_loop_cpu: float  # of these, in the thread of the event loop
    latency: dict[int, float]  # seconds from the first attempt to the answer 200, by percentile
    memory: dict[str, int]  # bytes: start, half, end, peak
    open_files: dict[str, int]  # start, end
    left_over: dict[str, float]  # metrics that should be zero, afterwards
    health: str  # answer of /health, afterwards
    exit_code: int  # after SIGTERM


def run(server: Server, uploads: Sequence[Upload], alone: Mapping[str, str | None], timeout: float) -> Load:
    """Send all uploads at once to a fresh server.

    Args:
        server: server to start.
        uploads: all uploads.
        alone: text of each file as a bare engine has it, None where it cannot be read.
        timeout: seconds in which all answers have to be there.
    """
    with server.start() as process:
        send(process, server.name, good(uploads)[:2], timeout)  # warms up
        start = process.resident(), process.open_files()
        used, begin = process.cpu(), time.monotonic()
        answers = send(process, server.name, uploads, timeout)
        cpu, in_loop = (after - before for after, before in zip(process.cpu(), used, strict=True))
        ends = sorted(one.end for one in answers)
        half = _memory_at(process, ends[len(ends) // 2])
        left_over, open_files = _settle(process, start[1])
        end, health = process.resident(), process.get("/health")
        peak = max(size for _, size in process.memory)
        exit_code = process.stop()
    by_path = {one.path: one for one in uploads}
    checked = [(one, judge(by_path[one.path], one, alone[one.path])) for one in answers]
    return Load(
        uploads=len(uploads),
        answers=dict(Counter(_ending(one) for one in answers)),
        wrong=[f"{Path(one.path).name}: {fault}" for one, fault in checked if fault],
        refusals=sum(len(one.refusals) for one in answers),
        seconds=ends[-1] - begin,
        cpu=cpu,
        event_loop_cpu=in_loop,
        latency=_percentiles([one.end - one.begin for one in answers if one.status == 200]),
        memory={"start": start[0], "half": half, "end": end, "peak": peak},
        open_files={"start": start[1], "end": open_files},
        left_over=left_over,
        health=health,
        exit_code=exit_code,
    )


def send(process: ServerProcess, model: str, uploads: Sequence[Upload], timeout: float) -> list[Answer]:
    """Answers to uploads, sent by a client in a process of its own."""
    with TemporaryDirectory() as folder:
        plan, answers = Path(folder, "uploads.json"), Path(folder, "answers.json")
        save(uploads, plan)
        command = [sys.executable, "-m", "bench.server.client", str(process.port), model, str(plan)]
        subprocess.run(
            [*command, str(answers), "--timeout", str(timeout)], check=True, timeout=timeout + _GRACE
        )
        return [Answer(**fields) for fields in json.loads(answers.read_text())]


def judge(upload: Upload, answer: Answer, alone: str | None) -> str | None:
    """Description of a wrong answer; None for a right one.

    A broken upload has to be refused with an error of the client, and one that leaves may go unanswered.
    """
    if answer.left:
        return None
    if answer.status is None:
        return f"no answer: {answer.error}"
    if upload.fault == "field" or alone is None:
        fine = 400 <= answer.status < 500 and "message" in _json(answer.body).get("error", {})
        return None if fine else f"is broken, and was answered {answer.status}: {answer.body[:200]}"
    if answer.status != 200:
        return f"answered {answer.status}: {answer.body[:200]}"
    text = _json(answer.body).get("text")
    return None if text == alone else f"text is {text!r}, alone {alone!r}"


def _json(body: str) -> dict[str, Any]:
    """JSON object of a body; empty where it is none."""
    try:
        content = json.loads(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _ending(answer: Answer) -> str:
    return "left" if answer.left else str(answer.status or "none")


def _memory_at(process: ServerProcess, moment: float) -> int:
    """Resident bytes at a moment."""
    return min(process.memory, key=lambda one: abs(one[0] - moment))[1]


def _settle(process: ServerProcess, open_files: int) -> tuple[dict[str, float], int]:
    """Wait until the server is idle, and return what is left: metrics and open files."""
    end = time.monotonic() + _SETTLING
    while True:
        left, now = process.gauges(_IDLE), process.open_files()
        if (not any(left.values()) and now <= open_files) or time.monotonic() > end:
            return left, now
        time.sleep(0.1)


def _percentiles(seconds: Sequence[float]) -> dict[int, float]:
    """Values that occurred."""
    if not seconds:
        return {}
    found = np.percentile(seconds, PERCENTILES, method="inverted_cdf").tolist()
    return dict(zip(PERCENTILES, found, strict=True))


def report(load: Load) -> list[str]:
    """Lines of a result."""
    megabytes = {name: f"{name} {size / 1e6:.0f}" for name, size in load.memory.items()}
    latency = ", ".join(f"p{percent} {seconds:.2f} s" for percent, seconds in load.latency.items())
    answers = ", ".join(f"{number} {name}" for name, number in sorted(load.answers.items()))
    return [
        f"{load.uploads} uploads at once in {load.seconds:.1f} s, {load.uploads / load.seconds:.1f} a second",
        f"answers: {answers}; 429 and sent again: {load.refusals}; wrong: {len(load.wrong)}",
        *load.wrong[:20],
        f"latency from the first attempt to the answer 200: {latency}",
        f"server's memory in MB: {', '.join(megabytes.values())}",
        f"server's CPU seconds: {load.cpu:.1f}, of these {load.event_loop_cpu:.2f} in the event loop",
        f"open files: {load.open_files['start']} before, {load.open_files['end']} after",
        f"left over: {load.left_over}; health: {load.health}; exit code {load.exit_code}",
    ]


def is_clean(load: Load) -> bool:
    """True where every answer is right, and nothing is left in the server."""
    closed = load.open_files["end"] <= load.open_files["start"]
    return not load.wrong and closed and not any(load.left_over.values()) and load.exit_code == 0


def as_json(load: Load) -> dict[str, Any]:
    """A result as JSON."""
    return asdict(load)
