"""Load test of `tritone serve`, and its CPU seconds beside those of a bare engine.

    python -m bench.server [--uploads 500] [--model small | digits | FOLDER] [--repeats 3] [--threads 1]
        [--max-waiting 128] [--timeout 600] [--output FILE]

Recordings of 1 to 30 s, joined from `samples/` and encoded in six formats, are sent by a client process of
its own, all at once, on loopback. A tenth of the clients leave while they send or wait; a twentieth of the
uploads are broken: cut, garbage, empty, or without the field `file`. Every other one has to be answered with
the text that a bare engine has for the file alone; one that is refused (429) comes again after Retry-After.
Prints answers, latencies, and the server's memory and open files; the exit status is 1 where an answer is
wrong or anything is left over.

Then the cost of serving: --repeats times in turn, a bare engine's process transcribes the good files, and a
fresh server answers them, all at once and refusing none. CPU seconds are those of all threads of the process,
without loading the model, and the median of the ratios counts. `small` is Speech2Text small with random
weights, which generates 53 tokens for each recording.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..common.output import write_json
from .bare import cost, in_process, texts_alone
from .checkpoint import write_small
from .load import Server, as_json, is_clean, report, run
from .uploads import Upload, good, make_uploads

_BUILT_IN = ("digits", "english")


def main(given: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parse_arguments(given)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # of all processes
    with TemporaryDirectory() as folder:
        files = Path(folder, "uploads")
        files.mkdir()
        uploads = make_uploads(files, arguments.uploads)
        model = arguments.model
        if model == "small":
            model = str(Path(folder, "small"))
            in_process(write_small, Path(model))
        name = model if model in _BUILT_IN else "small"
        server = Server(name, ("--model", f"{name}={model}"))
        bounded = Server(name, (*server.arguments, "--max-waiting", str(arguments.max_waiting)))
        alone = in_process(texts_alone, model, [one.path for one in uploads])
        different = len(set(alone.values()) - {None})
        seconds = sum(one.seconds for one in uploads)
        print(f"{len(uploads)} files, {seconds:.0f} s of audio, {different} different texts", flush=True)
        load = run(bounded, uploads, alone, arguments.timeout)
        print("\n".join(report(load)), flush=True)
        costs = [
            compare(server, model, good(uploads), alone, arguments.timeout) for _ in range(arguments.repeats)
        ]
    if costs:
        ratio = statistics.median(one["ratio"] for one in costs)
        print(f"CPU seconds of the server over the bare engine's: {ratio:.3f} (median of {len(costs)})")
    about = _about()
    print(f"{about['processor']}; {about['device']} a process")
    if arguments.output:
        results = {"about": about, "load": as_json(load), "cost": costs}
        write_json(arguments.output, results)
    return 0 if is_clean(load) else 1


def compare(
    server: Server, model: str, uploads: Sequence[Upload], alone: dict[str, str | None], timeout: float
) -> dict[str, Any]:
    """CPU seconds of a bare engine and of a server for the same files."""
    paths = [one.path for one in uploads]
    bare = in_process(cost, model, paths[:2], paths)
    load = run(server, uploads, alone, timeout)
    if load.wrong:
        raise RuntimeError(f"wrong answers: {load.wrong}")
    ratio = load.cpu / bare.cpu
    print(
        f"bare engine {bare.cpu:.2f} CPU s in {bare.wall:.1f} s, {bare.peak / 1e6:.0f} MB; server "
        f"{load.cpu:.2f} CPU s, {load.event_loop_cpu:.2f} in its event loop, in {load.seconds:.1f} s, "
        f"{load.memory['peak'] / 1e6:.0f} MB: {ratio:.3f}",
        flush=True,
    )
    return {
        "bare_cpu": bare.cpu,
        "bare_wall": bare.wall,
        "bare_peak": bare.peak,
        "server_cpu": load.cpu,
        "event_loop_cpu": load.event_loop_cpu,
        "server_wall": load.seconds,
        "ratio": ratio,
    }


def parse_arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uploads", type=int, default=500)
    parser.add_argument("--model", default="small", help="small, digits, english, or a checkpoint's folder")
    parser.add_argument("--repeats", type=int, default=3, help="of the cost of serving; 0 leaves it out")
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of every process")
    parser.add_argument("--max-waiting", type=int, default=128, help="of the server; others it refuses")
    parser.add_argument("--timeout", type=float, default=600, help="seconds of one run against a server")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write JSON there")
    return parser.parse_args(given)


def _about() -> dict[str, Any]:
    import torch

    from ..common.machine import about_machine

    return about_machine(torch.device("cpu"))


if __name__ == "__main__":
    sys.exit(main())
