"""The roofline plot."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.output import pyplot
from ..common.roofline import Peaks, Work

_Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels


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

    Left: rate over intensity, both logarithmic, under the two ceilings, each kernel named at its point
    nearest to them; without kernels that only move bytes. Right: every timing as a fraction of its floor.
    """
    plt = pyplot()
    figure, (roof, strip) = plt.subplots(1, 2, figsize=(17, 8), width_ratios=(2.2, 1))
    colors, markers = plt.get_cmap("tab20"), "osD^vP*X"
    kernels = sorted({point.kernel for point in points})
    styles = {
        kernel: {"color": colors(index % 20), "marker": markers[index % len(markers)]}
        for index, kernel in enumerate(kernels)
    }
    common = {"s": 38, "alpha": 0.85, "edgecolors": "black", "linewidths": 0.4, "zorder": 3}
    counted = [point for point in points if point.work.operations]
    _ceilings(roof, counted, peaks)
    named = []
    for index, kernel in enumerate(kernels):
        style = common | styles[kernel]
        mine = [point for point in counted if point.kernel == kernel]
        if mine:
            roof.scatter(*zip(*(point.position for point in mine), strict=True), **style)
            named.append(max(mine, key=lambda point: point.work.floor(peaks) / point.seconds))
        fractions = [point.work.floor(peaks) / point.seconds for point in points if point.kernel == kernel]
        # Scattered in height, so that points do not hide each other.
        heights = [index + 0.3 * ((number * 0.618) % 1 - 0.5) for number in range(len(fractions))]
        strip.scatter(fractions, heights, **style)
    roof.set_title(f"{peaks.device}: rate under its ceilings ({peaks.source})")
    strip.set_title("fraction of the floor, each case")
    strip.set_yticks(range(len(kernels)), kernels)
    strip.set_ylim(max(len(kernels), 1) - 0.5, -0.5)
    strip.set_xlim(0, max([1.0, *(point.work.floor(peaks) / point.seconds for point in points)]) * 1.05)
    strip.axvline(1.0, color="black", lw=1.5)
    strip.grid(alpha=0.25)
    figure.tight_layout()
    _name(roof, named, counted, peaks)
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
    axes.set(xlabel="operations a byte", ylabel="TFLOP/s")
    axes.grid(alpha=0.25)


def _name(axes: Any, named: list[Point], points: list[Point], peaks: Peaks) -> None:
    """Write names at the nearest free box beside each point, and the bandwidth along its line."""
    across, frame = axes.transData.transform, axes.bbox
    low, high = axes.get_xlim()
    ceiling = [
        (x, min(x * peaks.bytes, peaks.operations) / 1e12)
        for x in (low * (high / low) ** (step / 200) for step in range(201))
    ]
    start, end = across(ceiling[0]), across(ceiling[10])
    axes.text(
        *ceiling[8],
        f"{peaks.bytes / 1e12:.1f} TB/s",
        rotation=math.degrees(math.atan2(end[1] - start[1], end[0] - start[0])),
        rotation_mode="anchor",
        va="bottom",
    )
    right, top = across(ceiling[-1])
    taken: list[_Box] = [(right - 120, top, right, top + 25)]  # the other ceiling's number
    for x, y in map(across, [*ceiling, *(point.position for point in points)]):
        taken.append((x - 5, y - 5, x + 5, y + 5))
    for point in sorted(named, key=lambda point: -point.position[1]):
        text = f"{point.kernel}, {', '.join(point.label.split(', ')[:2])}"
        x, y = across(point.position)
        size = (6.3 * len(text), 12.0)  # at 8 points
        inside = (box for box in _around(x, y, *size) if _inside(box, frame))
        free = next(
            (box for box in inside if not any(_meet(box, other) for other in taken)),
            (x + 8, y - 5, x + 8 + size[0], y + 6),
        )
        taken.append(free)
        left, middle = free[0], (free[1] + free[3]) / 2
        edge = left if left > x else free[2]
        if math.hypot(edge - x, middle - y) > 14:
            line = axes.transData.inverted().transform([(x, y), (edge, middle)])
            axes.plot(*zip(*line, strict=True), color="gray", lw=0.6, zorder=2)
        position = axes.transData.inverted().transform((left, middle))
        axes.text(*position, text, fontsize=8, va="center", zorder=4)


def _around(x: float, y: float, width: float, height: float) -> Iterator[_Box]:
    """Boxes of this size beside a point, nearest first."""
    for distance in range(8, 260, 9):
        for step in range(16):
            angle = 2 * math.pi * step / 16
            near, middle = x + distance * math.cos(angle), y + distance * math.sin(angle)
            left = near if math.cos(angle) >= 0 else near - width
            yield left, middle - height / 2, left + width, middle + height / 2


def _inside(box: _Box, frame: Any) -> bool:
    return frame.x0 < box[0] and frame.y0 < box[1] and box[2] < frame.x1 and box[3] < frame.y1


def _meet(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
