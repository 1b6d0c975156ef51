"""The roofline plot."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.output import pyplot
from ..common.roofline import Peaks, Work


@dataclass(frozen=True, slots=True)
class Point:
    """One timing in the plot."""

    kernel: str
    label: str
    work: Work
    seconds: float

    @property
    def position(self) -> tuple[float, float]:
        """Operations a byte, and 10^12 operations a second."""
        return self.work.intensity, self.work.operations / self.seconds / 1e12


def plot(points: list[Point], peaks: Peaks, file: Path) -> None:
    """Draw the roofline and the fractions of the floors.

    Left: rate over intensity, both logarithmic, under the two ceilings, and in the legend each kernel's case
    nearest to them; without kernels that only move bytes. Right: every timing as a fraction of its floor.
    """
    plt = pyplot()
    figure, (roof, strip) = plt.subplots(1, 2, figsize=(17, 8), width_ratios=(2.2, 1))
    colors, markers = plt.get_cmap("tab20"), "osD^vP*X"
    kernels = sorted({point.kernel for point in points})
    counted = [point for point in points if point.work.operations]
    _ceilings(roof, counted, peaks)

    def fraction(point: Point) -> float:
        return point.work.floor(peaks) / point.seconds

    for index, kernel in enumerate(kernels):
        style = {"s": 38, "alpha": 0.85, "edgecolors": "black", "linewidths": 0.4, "zorder": 3}
        style |= {"color": colors(index % 20), "marker": markers[index % len(markers)]}
        mine = [point for point in counted if point.kernel == kernel]
        if mine:
            best = ", ".join(max(mine, key=fraction).label.split(", ")[:2])
            positions = zip(*(point.position for point in mine), strict=True)
            roof.scatter(*positions, **style, label=f"{kernel}, {best}")
        fractions = [fraction(point) for point in points if point.kernel == kernel]
        # Scattered in height, so that points do not hide each other.
        heights = [index + 0.3 * ((number * 0.618) % 1 - 0.5) for number in range(len(fractions))]
        strip.scatter(fractions, heights, **style)
    roof.set_title(f"{peaks.device}: rate under its ceilings ({peaks.source})")
    if counted:
        roof.legend(title="kernel and its best case", fontsize=8, loc="lower right")
    strip.set_title("fraction of the floor, each case")
    strip.set_yticks(range(len(kernels)), kernels)
    strip.set_ylim(max(len(kernels), 1) - 0.5, -0.5)
    strip.set_xlim(0, max([1.0, *map(fraction, points)]) * 1.05)
    strip.axvline(1.0, color="black", lw=1.5)
    strip.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(file, dpi=100)
    plt.close(figure)


def _ceilings(axes: Any, points: list[Point], peaks: Peaks) -> None:
    ridge, top = peaks.operations / peaks.bytes, peaks.operations / 1e12
    low = min([0.1, *(point.work.intensity / 2 for point in points)])
    high = max([4 * ridge, *(point.work.intensity * 3 for point in points)])
    bottom = min([0.03, *(point.position[1] / 3 for point in points)])
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(bottom, 3 * top))
    axes.plot([low, ridge, high], [low * peaks.bytes / 1e12, top, top], color="black", lw=1.5)
    axes.text(high / 1.1, top * 1.12, f"{top:.0f} TFLOP/s", ha="right")
    axes.text(ridge / 4, ridge / 3 * peaks.bytes / 1e12, f"{peaks.bytes / 1e12:.1f} TB/s", ha="right")
    axes.set(xlabel="operations a byte", ylabel="TFLOP/s")
    axes.grid(alpha=0.25)
