"""matplotlib for the training scripts."""

from __future__ import annotations

from typing import Any


def plotting() -> Any:
    """matplotlib's pyplot without a window; None, and a line that says so, where it is missing."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed (pip install 'tritone[train]'): no plots", flush=True)
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
