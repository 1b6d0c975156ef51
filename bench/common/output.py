"""Output of the benchmarks: tables, JSON files and plots."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, padded: bool = False) -> str:
    """A Markdown table; with `padded` its columns align as plain text too."""
    widths = [0] * len(head)
    rule = ["---"] * len(head)
    if padded:
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (head, rule, *rows)
    )


def write_json(file: Path, results: dict[str, Any], indent: int = 1) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=indent) + "\n")


def pyplot() -> Any:
    """matplotlib's pyplot without a window.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
