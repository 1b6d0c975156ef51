"""Comparison of a run's times with an earlier run's, within their noise."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .report import Result

LEAST = 0.02  # a smaller change counts as noise: clocks differ by that much between runs


def compared(results: Sequence[Result], earlier: Path) -> list[str]:
    """A line for each case that both runs have timed: faster, slower or same, and the bounds of the noise.

    A change is outside of the noise if the middle 60 % of both runs' samples do not overlap, and the medians
    differ by 2 % at least.

    Raises:
        ValueError: the file has no results of this benchmark.
    """
    try:
        found = json.loads(earlier.read_text())
        before = {(one["kernel"], one["label"]): one for one in found["results"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--compare: {earlier} holds no results of bench.kernels: {error}") from error
    lines = []
    for result in results:
        old = before.get((result.kernel, result.label))
        if result.seconds is None or old is None or old["seconds"] is None:
            continue
        lines.append(_line(result, old))
    missing = len(results) - len(lines)
    return [*lines, f"{len(lines)} cases compared, {missing} are not in both"]


def _line(result: Result, old: dict[str, Any]) -> str:
    assert result.seconds is not None
    low, high = result.spread or (result.seconds, result.seconds)
    old_low, old_high = old.get("spread") or (old["seconds"], old["seconds"])
    ratio = old["seconds"] / result.seconds
    apart = (high < old_low or low > old_high) and abs(ratio - 1) >= LEAST
    verdict = "same" if not apart else "faster" if ratio > 1 else "slower"
    return (
        f"{verdict:<7}{result.kernel}, {result.label}: {1e6 * old['seconds']:.1f} to "
        f"{1e6 * result.seconds:.1f} µs, {ratio:.3f} times as fast; noise {old_low / high:.3f} to "
        f"{old_high / low:.3f}"
    )
