"""What a throughput run found: rows of a table, points of two plots, and what was left out."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..common.contestants import Run
from .curves import plot_concurrency, plot_lengths
from .timeline import Spent


@dataclass(frozen=True, slots=True)
class Peer:
    """transformers with one batch size.

    Args:
        rtfx: None where it has no time or no memory.
        batches, of: how many batches were timed, of how many there are.
        note: why there is no number.
    """

    size: int
    rtfx: float | None
    batches: int = 0
    of: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Args:
        run: Tritone's, that counts.
        limit: RTFx that the device cannot exceed on these recordings.
        spent: where the time of a shorter run went; None where nobody could see.
        utilization: of the GPU while the run that counts went on, by nvidia-smi.
        compiled: kernels that were compiled during that run.
        peers: transformers.
    """

    size: str
    way: str
    beams: int
    run: Run
    limit: float
    spent: Spent | None
    utilization: float | None
    compiled: int
    peers: tuple[Peer, ...]

    @property
    def best(self) -> Peer | None:
        """transformers at its best batch size."""
        timed = [peer for peer in self.peers if peer.rtfx]
        return max(timed, key=lambda peer: peer.rtfx or 0.0, default=None)

    @property
    def times(self) -> float | None:
        """How many times as fast as that."""
        return self.run.rtfx / self.best.rtfx if self.best and self.best.rtfx else None

    def as_json(self) -> dict[str, Any]:
        best = self.best
        return {
            "size": self.size,
            "way": self.way,
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
    """All there is to tell, so far; `size` is the model of the plots."""

    about: dict[str, Any]
    size: str
    rows: list[Row] = field(default_factory=list)
    concurrency: list[tuple[int, float]] = field(default_factory=list)  # in flight, RTFx
    lengths: list[tuple[float, float]] = field(
        default_factory=list
    )  # seconds, seconds of work for each of audio
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, what: str) -> None:
        self.left_out.append(what)
        print(f"left out: {what}", flush=True)


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
    return f"{row.size}, from {row.way}, {decoding(row.beams)}: RTFx {row.run.rtfx:,.1f}{beside}"


HEADINGS = (
    *("model", "from", "decoding", "recordings", "RTFx", "tokens/s", "encode", "decode", "host"),
    *("GPU busy", "of the limit", "compiled", "transformers (batch)", "times"),
)


def table(rows: Sequence[Row]) -> str:
    """Markdown. Encode, decode and host are per cent of the wall time of a run of their own; busy is by the
    profiler in that run, and by nvidia-smi in the one that counts."""
    lines = [line(HEADINGS), line(["---"] * len(HEADINGS))]
    for row in rows:
        spent, best = row.spent, row.best
        shares = ["not measured"] * 3
        if spent:
            shares = [f"{100 * part / spent.wall:.0f} %" for part in (spent.encode, spent.decode, spent.host)]
        cells = [row.size, row.way, decoding(row.beams), f"{row.run.recordings:,}", f"{row.run.rtfx:,.1f}"]
        cells += [f"{row.run.tokens_per_second:,.0f}", *shares, busy(row)]
        cells += [f"{100 * row.run.rtfx / row.limit:.1f} %", str(row.compiled)]
        cells += [f"{best.rtfx:,.1f} ({best.size})" if best and best.rtfx else "not measured"]
        cells += [f"{row.times:.2f}" if row.times else "not measured"]
        lines.append(line(cells))
    return "\n".join(lines)


def busy(row: Row) -> str:
    by_profiler = row.spent.busy if row.spent else None
    found = [
        f"{100 * value:.0f} % ({source})"
        for value, source in ((by_profiler, "profiler"), (row.utilization, "nvidia-smi"))
        if value is not None
    ]
    return ", ".join(found) or "not measured"


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def write(findings: Findings, folder: Path) -> None:
    """JSON, table and plots."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "about": findings.about,
        "rows": [row.as_json() for row in findings.rows],
        "concurrency": [{"in_flight": flight, "rtfx": rtfx} for flight, rtfx in findings.concurrency],
        "lengths": [{"seconds": length, "per_second": cost} for length, cost in findings.lengths],
        "left_out": findings.left_out,
    }
    (folder / "throughput.json").write_text(json.dumps(told, indent=1) + "\n")
    left_out = "".join(f"- left out: {what}\n" for what in findings.left_out)
    (folder / "throughput.md").write_text(
        f"# Throughput\n\n`{findings.about['command']}`\n\n{headline(findings.about)}\n\n"
        f"{table(findings.rows)}\n\n{left_out}"
    )
    same = [
        row.best for row in findings.rows if (row.size, row.way, row.beams) == (findings.size, "waveforms", 1)
    ]
    peer = same[0].rtfx if same and same[0] else None
    try:
        if findings.concurrency:
            plot_concurrency(
                findings.concurrency,
                peer,
                findings.size,
                findings.about,
                folder / "concurrency.png",
            )
        if findings.lengths:
            plot_lengths(findings.lengths, findings.size, findings.about, folder / "length.png")
    except ImportError as error:
        print(f"no plots: {error}", file=sys.stderr)
