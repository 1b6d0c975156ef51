"""Report of a throughput run: rows of a table, points of two plots, and parts left out."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..common.output import markdown, write_json
from ..common.recognizers import Run
from .curves import plot_concurrency, plot_lengths
from .timeline import Spent


@dataclass(frozen=True, slots=True)
class Peer:
    """transformers with one batch size."""

    size: int
    rtfx: float | None  # None if there was no time or memory
    batches: int = 0  # timed,
    of: int = 0  # of so many
    note: str = ""  # the reason if there is no number


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    size: str
    source: str
    beams: int
    run: Run  # Tritone's, that counts
    limit: float  # RTFx that the device cannot exceed on these recordings
    spent: Spent | None  # of a shorter run; None if not measured
    utilization: float | None  # of the GPU during the run that counts, by nvidia-smi
    compiled: int  # kernels compiled during that run
    peers: tuple[Peer, ...]  # transformers

    @property
    def best(self) -> Peer | None:
        """transformers at its best batch size."""
        timed = [peer for peer in self.peers if peer.rtfx]
        return max(timed, key=lambda peer: peer.rtfx or 0.0, default=None)

    @property
    def times(self) -> float | None:
        """Tritone's speed over that of transformers at its best batch size."""
        return self.run.rtfx / self.best.rtfx if self.best and self.best.rtfx else None

    def as_json(self) -> dict[str, Any]:
        best = self.best
        return {
            "size": self.size,
            "way": self.source,
            "beams": self.beams,
            **asdict(self.run),
            "rtfx": self.run.rtfx,
            "tokens_per_second": self.run.tokens_per_second,
            "limit_rtfx": self.limit,
            "fraction_of_limit": self.run.rtfx / self.limit,
            "spent": asdict(self.spent) if self.spent else None,
            "gpu_utilization": self.utilization,
            "compiled": self.compiled,
            "transformers": [asdict(peer) for peer in self.peers],
            "transformers_best_batch": best.size if best else None,
            "times_transformers": self.times,
        }


@dataclass(slots=True)
class Findings:
    """Everything measured so far; `size` is the model of the plots."""

    about: dict[str, Any]
    size: str
    rows: list[Row] = field(default_factory=list)
    concurrency: list[tuple[int, float]] = field(default_factory=list)  # requests in flight, RTFx
    lengths: list[tuple[float, float]] = field(default_factory=list)  # seconds, cost of a second of audio
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, name: str) -> None:
        self.left_out.append(name)
        print(f"left out: {name}", flush=True)


def decoding(beams: int) -> str:
    return "greedy" if beams == 1 else f"{beams} beams"


def headline(found: dict[str, Any]) -> str:
    return (
        f"{found['device']} ({found['processor']}), torch {found['torch']}, "
        f"transformers {found['transformers']}; "
        f"ceilings {found['operations_per_second'] / 1e12:.2f} TFLOP/s and "
        f"{found['bytes_per_second'] / 1e12:.3f} TB/s ({found['ceilings']})"
    )


def progress(row: Row) -> str:
    beside = f", {row.times:.1f} times transformers" if row.times else ""
    return f"{row.size}, from {row.source}, {decoding(row.beams)}: RTFx {row.run.rtfx:,.1f}{beside}"


HEADINGS = (
    *("model", "from", "decoding", "recordings", "RTFx", "tokens/s", "encode", "decode", "host"),
    *("GPU busy", "of the limit", "compiled", "transformers (batch)", "times"),
)


def table(rows: Sequence[Row]) -> str:
    """A Markdown table. Encode, decode and host are per cent of a separate run's wall time; GPU busy is from
    the profiler in that run, and from nvidia-smi in the run that counts."""
    lines = []
    for row in rows:
        spent, best = row.spent, row.best
        shares = ["not measured"] * 3
        if spent:
            shares = [f"{100 * part / spent.wall:.0f} %" for part in (spent.encode, spent.decode, spent.host)]
        cells = [row.size, row.source, decoding(row.beams), f"{row.run.recordings:,}", f"{row.run.rtfx:,.1f}"]
        cells += [f"{row.run.tokens_per_second:,.0f}", *shares, busy(row)]
        cells += [f"{100 * row.run.rtfx / row.limit:.1f} %", str(row.compiled)]
        cells += [f"{best.rtfx:,.1f} ({best.size})" if best and best.rtfx else "not measured"]
        cells += [f"{row.times:.2f}" if row.times else "not measured"]
        lines.append(cells)
    return markdown(HEADINGS, lines)


def busy(row: Row) -> str:
    by_profiler = row.spent.busy if row.spent else None
    found = [
        f"{100 * value:.0f} % ({source})"
        for value, source in ((by_profiler, "profiler"), (row.utilization, "nvidia-smi"))
        if value is not None
    ]
    return ", ".join(found) or "not measured"


def write(findings: Findings, folder: Path) -> None:
    """Write JSON, table and plots."""
    results = {
        "about": findings.about,
        "rows": [row.as_json() for row in findings.rows],
        "concurrency": [{"in_flight": flight, "rtfx": rtfx} for flight, rtfx in findings.concurrency],
        "lengths": [{"seconds": length, "per_second": cost} for length, cost in findings.lengths],
        "left_out": findings.left_out,
    }
    write_json(folder / "throughput.json", results)
    left_out = "".join(f"- left out: {name}\n" for name in findings.left_out)
    (folder / "throughput.md").write_text(
        f"# Throughput\n\n`{findings.about['command']}`\n\n{headline(findings.about)}\n\n"
        f"{table(findings.rows)}\n\n{left_out}"
    )
    plotted = (findings.size, "waveforms", 1)
    bests = [row.best for row in findings.rows if (row.size, row.source, row.beams) == plotted]
    peer = bests[0].rtfx if bests and bests[0] else None
    size, about = findings.size, findings.about
    try:
        if findings.concurrency:
            plot_concurrency(findings.concurrency, peer, size, about, folder / "concurrency.png")
        if findings.lengths:
            plot_lengths(findings.lengths, size, about, folder / "length.png")
    except ImportError as error:
        print(f"no plots: {error}", file=sys.stderr)
