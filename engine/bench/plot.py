"""Picture of a measurement, by matplotlib."""

from pathlib import Path
from typing import Any

from .measure import Measurement

_INK, _RATE, _SLOW, _FIRST = "#3d444d", "#0969da", "#bc4c00", "#8250df"


def draw(found: Measurement, file: Path) -> None:
    """Draw speed and latency by the number at once, in the format of the file's suffix.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the suffix names no format.
        OSError: the file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (speed, latency) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    machine = found.machine
    where = machine.get("gpu") or f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores"
    figure.suptitle(f"{found.model}, {found.dtype}\n{where}; {found.workload}", fontsize=10, color=_INK)
    numbers = [level.at_once for level in found.levels]
    spread = [[level.lowest for level in found.levels], [level.highest for level in found.levels]]
    speed.fill_between(numbers, *spread, color=_RATE, alpha=0.15, linewidth=0)
    speed.plot(numbers, [level.rate for level in found.levels], color=_RATE, marker="o")
    unit = "seconds of audio a second (RTFx)" if found.unit == "RTFx" else "tokens a second"
    _label(speed, numbers, unit)
    latency.plot(
        numbers, [level.total.p50 for level in found.levels], color=_SLOW, marker="o", label="result"
    )
    latency.plot(
        numbers, [level.total.p95 for level in found.levels], color=_SLOW, linestyle=":", label="result, 95 %"
    )
    first = [(level.at_once, level.first_token.p50) for level in found.levels if level.first_token]
    if first:
        latency.plot(*zip(*first, strict=True), color=_FIRST, marker="o", label="first token")
    _label(latency, numbers, "seconds")
    latency.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def _label(axes: Any, numbers: list[int], unit: str) -> None:
    """Name the axes; the lower one has a tick for each level."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(one) for one in numbers])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("at once", color=_INK)
    axes.set_title(unit, fontsize=9, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
