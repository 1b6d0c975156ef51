"""Picture of the README: speed of Tritone and transformers by processor, from the JSON files of `bench.cpu`.

    python -m bench.cpu.picture [--output docs/images]

Reads the folders of bench/results/ in `MACHINES` and writes speed-light.svg and speed-dark.svg. A bar is as
long as the speed divided by that of transformers at its best batch size in float32, in the same run. Needs
matplotlib, of the `dev` extra.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.output import pyplot
from .__main__ import PEER, UNSORTED

RESULTS = Path(__file__).parents[1] / "results"
# Folders, with the commit whose code was measured, as docs/performance.md names it.
MACHINES = {"cpu": "e0e83ae", "cpu-xeon": "cf53e99"}
MODELS = {
    "speech2text": "Speech2Text small",
    "speech2text-5-beams": "Speech2Text small, 5 beams",
    "wav2vec2-ctc": "wav2vec2-base, CTC",
    "speech-encoder-decoder": "wav2vec2-base with bert-base",
    "audio-classification": "wav2vec2-base, labels",
    "text-classification": "bert-base, labels of texts",
}
SERIES = ("transformers, float32", "transformers, bfloat16", "Tritone, float32", "Tritone, bfloat16")


@dataclass(frozen=True, slots=True)
class Theme:
    """Colors of text and grid, and of each of `SERIES`."""

    ink: str
    grid: str
    bars: tuple[str, str, str, str]


THEMES = {
    "light": Theme("#1f2328", "#d1d9e0", ("#c8ccd1", "#8c959f", "#54aeff", "#0969da")),
    "dark": Theme("#e6edf3", "#3d444d", ("#484f58", "#848d97", "#1f6feb", "#79c0ff")),
}


def main(given: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    folder = parser.parse_args(given).output
    folder.mkdir(parents=True, exist_ok=True)
    machines = {name: read(RESULTS / name) for name in MACHINES}
    for name, theme in THEMES.items():
        draw(machines, theme, folder / f"speed-{name}.svg")
    return 0


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Results of a machine by the names of `MODELS`."""
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in MODELS}


def speeds(results: dict[str, Any]) -> dict[str, float]:
    """Speeds of one model by `SERIES`: of transformers that of its best batch size, sorted by length."""
    (found,) = results["results"].values()
    best: dict[str, float] = {}
    for name, speed in found.items():
        if name.endswith(UNSORTED):
            continue
        library = PEER if name.startswith(PEER) else "Tritone"
        series = f"{library}, {'bfloat16' if 'bfloat16' in name else 'float32'}"
        best[series] = max(best.get(series, 0.0), speed)
    return best


def draw(machines: dict[str, dict[str, dict[str, Any]]], theme: Theme, file: Path) -> None:
    """Write the picture in one theme, on a transparent ground."""
    plot = pyplot()
    plot.rcParams.update(
        {"svg.hashsalt": "tritone", "text.color": theme.ink, "font.size": 8.5, "svg.fonttype": "none"}
    )
    figure, panels = plot.subplots(1, len(machines), figsize=(9.6, 4.6), sharey=True, layout="constrained")
    for axes, (name, models) in zip(panels, machines.items(), strict=True):
        _panel(axes, models, theme)
        processor = next(iter(models.values()))["about"]["processor"].replace(" (x86_64)", "")
        axes.set_title(f"{processor}   (code of {MACHINES[name]})", fontsize=9, color=theme.ink)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, labelcolor=theme.ink)
    figure.suptitle("Speed beside transformers at its best batch size, float32 = 1", fontsize=11)
    figure.savefig(file, transparent=True, metadata={"Date": None})
    plot.close(figure)
    file.write_text("".join(f"{line.rstrip()}\n" for line in file.read_text().splitlines()))


def _panel(axes: Any, models: dict[str, dict[str, Any]], theme: Theme) -> None:
    """Bars of one machine: a group a model, and in it one for each series that was measured."""
    height = 0.2
    found = [speeds(models[name]) for name in MODELS]
    for series, color in zip(SERIES, theme.bars, strict=True):
        axes.barh(0, 0, color=color, label=series)  # for the legend
        for row, one in enumerate(found):
            if series not in one:
                continue
            there = [name for name in SERIES if name in one]
            place = row + (there.index(series) - (len(there) - 1) / 2) * height
            length = one[series] / one[SERIES[0]]
            axes.barh(place, length, 0.9 * height, color=color)
            text = f"{one[series]:,.0f}" if one[series] >= 100 else f"{one[series]:.1f}"
            axes.text(length + 0.04, place, text, va="center", fontsize=6.5)
    axes.set_yticks(range(len(MODELS)), MODELS.values(), color=theme.ink)
    axes.set_ylim(len(MODELS) - 0.5, -0.5)
    axes.set_xlim(0, 5)
    axes.set_xlabel(
        "times as fast; figures are seconds of audio a second, of texts tokens a second", fontsize=7
    )
    axes.xaxis.label.set_color(theme.ink)
    axes.tick_params(colors=theme.ink, length=0)
    axes.grid(axis="x", color=theme.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


if __name__ == "__main__":
    raise SystemExit(main())
