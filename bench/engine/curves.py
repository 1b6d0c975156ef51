"""The plots of the engine's throughput."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_COLOR = "#20639b"


def plot_concurrency(
    points: Sequence[tuple[int, float]], peer: float | None, size: str, about: dict[str, Any], file: Path
) -> None:
    """RTFx against requests in flight.

    Args:
        points: requests and RTFx.
        peer: RTFx of transformers at its best batch size, as a line; None where it was not timed.
        size: of the model, by name.
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
    for flight, rtfx in points:
        axes.annotate(
            f"{rtfx:,.0f}", (flight, rtfx), (0, 7), textcoords="offset points", ha="center", fontsize=8
        )
    axes.set_ylim(bottom / 1.5, top * 1.5)
    axes.legend()
    _save(figure, file)


def plot_lengths(points: Sequence[tuple[float, float]], size: str, about: dict[str, Any], file: Path) -> None:
    """What a second of audio costs against the length of the recordings.

    Args:
        points: seconds of each recording, and seconds of work for one of audio.
    """
    figure, axes = _axes(f"Cost against audio length: Speech2Text {size}, from waveforms, greedy", about)
    milliseconds = [(length, 1e3 * cost) for length, cost in points]
    axes.plot(*zip(*milliseconds, strict=True), "o-", color=_COLOR)
    axes.set(xscale="log", xlabel="seconds of a recording", ylabel="ms of work for a second of audio")
    _mark(axes.xaxis, [length for length, _ in points])
    axes.set_ylim(0, 1.2 * max(cost for _, cost in milliseconds))
    for length, cost in milliseconds:
        axes.annotate(
            f"{cost:.3g}", (length, cost), (0, 7), textcoords="offset points", ha="center", fontsize=8
        )
    _save(figure, file)


def _axes(title: str, about: dict[str, Any]) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    axes.set_title(f"{title}\n{about['device']}", fontsize=11)
    axes.grid(alpha=0.25)
    return figure, axes


def _mark(axis: Any, values: Sequence[float]) -> None:
    """Only what was measured on a logarithmic axis, in plain numbers."""
    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_ticks([], minor=True)


def _save(figure: Any, file: Path) -> None:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(file, dpi=100)
    pyplot.close(figure)
