"""Plots of the engine's throughput."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.output import pyplot

_COLOR = "#20639b"


def plot_concurrency(
    points: Sequence[tuple[int, float]], peer: float | None, size: str, about: dict[str, Any], file: Path
) -> None:
    """RTFx against requests in flight.

    Args:
        points: requests and RTFx.
        peer: RTFx of transformers at its best batch size, drawn as a line; None if not timed.
        size: name of the model's size.
    """
    from matplotlib.ticker import LogLocator

    figure, axes = _axes(f"RTFx against concurrency: Speech2Text {size}, from waveforms, greedy", about)
    axes.plot(*zip(*points, strict=True), "o-", color=_COLOR, label="tritone")
    axes.set(
        xscale="log", yscale="log", xlabel="requests in flight", ylabel="RTFx (seconds of audio a second)"
    )
    _mark(axes.xaxis, [flight for flight, _ in points])
    top, bottom = max(rtfx for _, rtfx in points), min(rtfx for _, rtfx in points)
    if peer is not None:
        axes.axhline(peer, color="gray", ls="--", label="transformers, best batch size")
        top, bottom = max(top, peer), min(bottom, peer)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_minor_formatter(lambda value, _: "")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    _annotate(axes, points, ",.0f")
    axes.set_ylim(bottom / 1.5, top * 1.5)
    axes.legend()
    _save(figure, file)


def plot_lengths(points: Sequence[tuple[float, float]], size: str, about: dict[str, Any], file: Path) -> None:
    """Cost of a second of audio against the length of the recordings.

    Args:
        points: seconds of each recording, and seconds of work for one of audio.
    """
    figure, axes = _axes(f"Cost against audio length: Speech2Text {size}, from waveforms, greedy", about)
    milliseconds = [(length, 1e3 * cost) for length, cost in points]
    axes.plot(*zip(*milliseconds, strict=True), "o-", color=_COLOR)
    axes.set(xscale="log", xlabel="seconds of a recording", ylabel="ms of work for a second of audio")
    _mark(axes.xaxis, [length for length, _ in points])
    axes.set_ylim(0, 1.2 * max(cost for _, cost in milliseconds))
    _annotate(axes, milliseconds, ".3g")
    _save(figure, file)


def _axes(title: str, about: dict[str, Any]) -> tuple[Any, Any]:
    figure, axes = pyplot().subplots(figsize=(8, 5))
    axes.set_title(f"{title}\n{about['device']}", fontsize=11)
    axes.grid(alpha=0.25)
    return figure, axes


def _annotate(axes: Any, points: Sequence[tuple[float, float]], form: str) -> None:
    """Write each point's value above it."""
    for x, y in points:
        axes.annotate(f"{y:{form}}", (x, y), (0, 7), textcoords="offset points", ha="center", fontsize=8)


def _mark(axis: Any, values: Sequence[float]) -> None:
    """Label the measured values alone on a logarithmic axis, as plain numbers."""
    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_ticks([], minor=True)


def _save(figure: Any, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, dpi=100)
    pyplot().close(figure)
