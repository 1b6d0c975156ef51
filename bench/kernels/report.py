"""Results of the kernels' benchmark: rows of a table, and the goals."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..common.output import markdown
from ..common.roofline import Peaks, Work


@dataclass(frozen=True, slots=True)
class Peer:
    """Timing of a peer."""

    seconds: float | None  # of a call; None if it could not be timed
    error: float | None = None  # of its output against the reference
    note: str = ""  # the reason if it could not be timed


@dataclass(frozen=True, slots=True)
class Result:
    """Timing of a case.

    Args:
        kernel, label, tags, work: of the case.
        seconds: of a call, the median; None if it failed.
        error: of the output against the reference, in norm.
        peers: by name.
        best, best_tile: the best tile for this number of rows, and seconds with it.
        failure: the error message.
        spread: bounds of the middle 60 % of the samples, in seconds.
    """

    kernel: str
    label: str
    tags: frozenset[str]
    sequences: int
    work: Work
    seconds: float | None = None
    error: float | None = None
    peers: dict[str, Peer] = field(default_factory=dict)
    best: float | None = None
    best_tile: tuple[int, ...] | None = None
    failure: str = ""
    spread: tuple[float, float] | None = None

    def fraction(self, peaks: Peaks) -> float | None:
        """Floor over time: 1 is as fast as the device can be."""
        return self.work.floor(peaks) / self.seconds if self.seconds else None

    def ratio(self, peer: str) -> float | None:
        """Speed over a peer's."""
        other = self.peers[peer].seconds if peer in self.peers else None
        return other / self.seconds if other and self.seconds else None

    @property
    def invariance_cost(self) -> float | None:
        """Time over that with the best tile for this number of rows; 1 if the declared one is the best."""
        return max(self.seconds / self.best, 1.0) if self.best and self.seconds else None


@dataclass(frozen=True, slots=True)
class Goal:
    """A lower bound on a kernel's performance."""

    text: str
    wanted: float
    worst: float | None  # the lowest measurement, None without any
    where: str  # the label of its case

    @property
    def verdict(self) -> str:
        if self.worst is None:
            return "not measured"
        return "met" if self.worst >= self.wanted else "missed"


def goals(results: list[Result], peaks: Peaks) -> list[Goal]:
    """The goals, each at the case where it is hardest."""

    def bandwidth(result: Result) -> float | None:
        return result.work.bytes / peaks.bytes / result.seconds if result.seconds else None

    def of_products(result: Result) -> float | None:
        return result.work.dense_floor(peaks) / result.seconds if result.seconds else None

    def against(peer: str) -> Callable[[Result], float | None]:
        return lambda result: result.ratio(peer)

    def goal(text: str, wanted: float, tag: str, measure: Callable[[Result], float | None], count=0) -> Goal:
        chosen = [result for result in results if tag in result.tags and count in (0, result.sequences)]
        values = [(value, result.label) for result in chosen if (value := measure(result)) is not None]
        worst = min(values, default=None)
        return Goal(text, wanted, *(worst or (None, "")))

    of_sdpa = against("SDPA, padded")
    return [
        goal("paged attention at 512 sequences, of the copy bandwidth", 0.80, "paged cross", bandwidth, 512),
        goal("flash attention on equal lengths, of SDPA's rate", 0.9, "flash equal lengths", of_sdpa),
        goal("flash attention on real lengths, of padded SDPA's rate", 1.0, "flash real lengths", of_sdpa),
        goal("fbank, times torchaudio", 20, "fbank", against("torchaudio")),
        goal("fbank, of its floor", 1 / 3, "fbank", lambda result: result.fraction(peaks)),
        goal("fbank, of its floor as matrix products", 1 / 3, "fbank", of_products),
        goal("conv_subsample, times conv1d + GLU", 1.5, "conv", against("conv1d + GLU")),
        goal("linear, of cuBLAS", 0.85, "linear", against("cuBLAS")),
    ]


def table(results: list[Result], peaks: Peaks) -> str:
    """A Markdown table that is readable as plain text too."""
    head = ("kernel", "case", "µs", "floor µs", "of floor", "error", "times as fast as", "best tile")
    return markdown(head, [_row(result, peaks) for result in results], padded=True)


def _row(result: Result, peaks: Peaks) -> list[str]:
    floor = f"{result.work.floor(peaks) * 1e6:.2f}"
    if result.seconds is None:
        return [result.kernel, result.label, "FAILED", floor, "", "", result.failure.replace("|", "/"), ""]
    ratios = []
    for name, peer in result.peers.items():
        ratio = result.ratio(name)
        ratios.append(f"{name} {ratio:.2f}" if ratio else f"{name}: {peer.note.replace('|', '/')[:60]}")
    cost = result.invariance_cost
    tile = "x".join(map(str, result.best_tile[:3])) if result.best_tile else ""
    return [
        result.kernel,
        result.label,
        f"{result.seconds * 1e6:.1f}",
        floor,
        f"{result.fraction(peaks):.2f}",
        f"{result.error:.1e}",
        "; ".join(ratios),
        f"{tile}, {cost:.2f} x" if cost else "",
    ]


def goal_lines(reached: list[Goal]) -> str:
    return "\n".join(
        f"{goal.verdict:<13}{goal.text}: wanted {goal.wanted:.2f}"
        + ("" if goal.worst is None else f", got {goal.worst:.2f} at worst ({goal.where})")
        for goal in reached
    )


def as_json(results: list[Result], peaks: Peaks, about: dict[str, Any]) -> dict[str, Any]:
    """All results, with the table's numbers."""
    return {
        "about": about,
        "peaks": asdict(peaks),
        "goals": [asdict(goal) | {"verdict": goal.verdict} for goal in goals(results, peaks)],
        "results": [
            asdict(result)
            | {
                "tags": sorted(result.tags),
                "floor": result.work.floor(peaks),
                "fraction_of_floor": result.fraction(peaks),
                "times_as_fast_as": {name: result.ratio(name) for name in result.peers},
                "invariance_cost": result.invariance_cost,
            }
            for result in results
        ],
    }
