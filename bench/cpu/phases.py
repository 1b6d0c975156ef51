"""Phases of Tritone's runs: CPU time, and the shares of the processor's rates that each reaches."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tritone.engine.bench.phases import CacheShape, PhaseClock, PhaseShare, WorkCounter, shares
from tritone.engine.bench.rates import Rates

from ..common.output import markdown

NAMES = {"features": "features", "encode": "encode", "prefill": "prompts", "decode": "decode step"}


@dataclass(slots=True)
class Phases:
    """Observers of one run: work of the round that does not count, times of the others."""

    counter: WorkCounter = field(default_factory=WorkCounter)
    clock: PhaseClock = field(default_factory=PhaseClock)

    def shares(self, cache: CacheShape, rates: Rates, cpu_seconds: float) -> dict[str, PhaseShare]:
        """Shares by phase; `cpu_seconds` are of all rounds that count."""
        found = shares(self.clock.totals(), self.counter.work, cache, rates, cpu_seconds)
        return {NAMES[name]: share for name, share in found.items()}


def phase_lines(name: str, found: dict[str, PhaseShare], rates: Rates) -> Iterator[str]:
    """Lines of a table of one run's phases."""
    head = ["phase", "CPU time", "a call", "rows", "of the products' rate", "of the memory's rate"]
    rows = []
    for phase, share in found.items():
        row = [phase, f"{share.cpu:.0%}", f"{share.milliseconds:.2f} ms", f"{share.rows:.0f}"]
        rows.append([*row, *("" if one is None else f"{one:.0%}" for one in (share.products, share.memory))])
    rest = max(1 - sum(share.cpu for share in found.values()), 0.0)
    rows.append(["all else", f"{rest:.0%}", "", "", "", ""])
    yield f"\n{name}; a thread: {rates.operations / 1e9:.0f} GFLOP/s, {rates.bytes / 1e9:.1f} GB/s"
    yield markdown(head, rows, padded=True)
