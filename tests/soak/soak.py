"""Soak: random load, cancels, faults, closes, forks, killed runs and damaged files, for ten minutes.

    python tests/soak/soak.py --seconds 600 --seed 1

Every result is compared with the one that its request gives alone. The exit code is 1 where a request hung or
was lost, a result was wrong, or memory or threads grew. `make soak` runs it.
"""

import argparse
import faulthandler
import gc
import os
import random
import statistics
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

# Two cores in each operation's place: parts of a step run in a pool of threads, as on a user's machine.
THREADS = 2
GROWTH = 64 << 20  # bytes that memory may grow by after the warm-up, beside a tenth
SETTLE = 20.0  # seconds in which threads and dropped engines go away at the end


class Meter(threading.Thread):
    """Thread that records this process's memory and threads once a second."""

    def __init__(self, over: threading.Event) -> None:
        super().__init__(name="meter", daemon=True)
        self.over = over
        self.samples: list[tuple[float, int, int]] = []  # seconds, bytes, threads

    def run(self) -> None:
        begin = time.monotonic()
        while True:
            self.samples.append((time.monotonic() - begin, resident(), threads()))
            if self.over.wait(1):
                return

    def growth(self) -> tuple[float, float]:
        """Median memory after the warm-up, a third of the time, and in the last fifth."""
        end = self.samples[-1][0]
        warm = [size for at, size, _ in self.samples if end * 0.33 <= at <= end * 0.53]
        last = [size for at, size, _ in self.samples if at >= end * 0.8]
        return statistics.median(warm or [0]), statistics.median(last or [0])


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def threads() -> int:
    """Threads of this process, those of C libraries too."""
    return len(os.listdir("/proc/self/task"))


def soak(seconds: float, seed: int, folder: Path) -> int:
    """Run all stages for so many seconds, print the table, and return the exit code."""
    from load import CLIENTS, Client, Counts, Manager, Slot, hang_of
    from oracle import subjects
    from processes import Commands, Fuzzing
    from storm import Storm

    made = subjects(folder)
    gc.collect()
    at_start = resident(), threads()
    counts, over, storm = Counts(), threading.Event(), Storm(seed)
    slots = [Slot(subject, counts) for subject in made]
    manager = Manager(slots, seed, over)
    clients = [Client(slot, seed + number, over) for slot in slots for number in range(CLIENTS)]
    stages = [
        commands := Commands(folder / "commands", seed, counts, over),
        fuzzing := Fuzzing(folder / "fuzzing", seed, counts, over, seconds),
    ]
    meter = Meter(over)
    begin = time.monotonic()
    with storm.blowing():
        for thread in (meter, manager, *clients, *stages):
            thread.start()
        while time.monotonic() - begin < seconds and not counts.hangs:
            time.sleep(0.5)
            if hang := hang_of([manager, *clients]):
                counts.note(counts.hangs, hang)
    took = time.monotonic() - begin
    over.set()
    for thread in (manager, *clients, *stages, meter):
        thread.join(60)
        if thread.is_alive():
            counts.note(counts.hangs, f"{thread.name} does not end: {hang_of([thread]) or thread}")
    left = settle(slots, at_start[1])
    warm, last = meter.growth()
    most = max(count for *_, count in meter.samples)
    rows = {
        "seed, seconds": f"{seed}, {took:.0f}",
        "requests": f"{counts.requests} ({counts.requests / took:.0f} a second)",
        "by their end": shown(counts.by_end),
        "audio": f"{counts.audio_seconds:.0f} s (RTFx {counts.audio_seconds / took:.0f}, of right answers)",
        "engines": shown(counts.engines),
        "forked children": manager.forks,
        "command runs": f"{commands.runs}, {commands.kills} of them killed",
        "faults injected": f"{sum(storm.by_kind.values())}: {shown(storm.by_kind)}",
        "by site": f"{len(storm.by_site)} of {len(storm._rows)} sites: {shown(storm.by_site)}",
        "files fuzzed": f"{sum(fuzzing.files.values())}: {shown(fuzzing.files)}",
        "memory": f"{mib(at_start[0])} at the start, {mib(warm)} warm, {mib(last)} at the end",
        "threads": f"{at_start[1]} at the start, {most} at most, {threads()} at the end",
        "hangs": counts.hangs.total(),
        "losses": counts.lost.total(),
        "wrong answers": counts.wrong.total(),
        "left behind": left or "nothing",
    }
    for name, value in rows.items():
        print(f"{name:<18}{value}")
    for what, found in (("hang", counts.hangs), ("loss", counts.lost), ("wrong", counts.wrong)):
        for one, times in found.most_common(20):
            print(f"{what}, {times} times: {one}", file=sys.stderr)
    grew = seconds >= 60 and last > warm * 1.1 + GROWTH  # less is all warm-up
    if grew:
        print("memory grew after the warm-up", file=sys.stderr)
    return int(bool(counts.hangs or counts.lost or counts.wrong or left or grew))


def settle(slots: list, threads_before: int) -> str:
    """Close all engines; names what is left of them and of those that were dropped."""
    from watchdog import within

    for slot in slots:
        if slot.engine is not None:
            within(SETTLE, slot.engine.close, cancel=True)
            slot.engine = None
    until = time.monotonic() + SETTLE
    while True:
        gc.collect()
        alive = [reference for slot in slots for reference in slot.dropped if reference() is not None]
        running = [thread.name for thread in threading.enumerate() if thread.name.startswith("tritone-")]
        if not (alive or running) or time.monotonic() > until:
            break
        time.sleep(0.2)
    engines = f"{len(alive)} dropped engines" if alive else ""
    return " ".join(filter(None, [engines, f"threads {running}" if running else ""]))


def shown(counter: dict) -> str:
    return (
        ", ".join(f"{name} {count}" for name, count in sorted(counter.items(), key=lambda one: -one[1]))
        or "none"
    )


def mib(size: float) -> str:
    return f"{size / (1 << 20):.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None, help="Default: a new one each time.")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    import torch

    faulthandler.enable()
    warnings.simplefilter("ignore")
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory(prefix="tritone-soak-") as folder:
        code = soak(arguments.seconds, seed, Path(folder))
    sys.stdout.flush()
    sys.stderr.flush()
    # Interpreter exit is part of the soak: engines that were closed leave nothing that could hang here.
    faulthandler.dump_traceback_later(60, exit=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
