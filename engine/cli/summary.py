"""Summary at the end of a run: counts, hours, throughput, and failures by cause."""

import re
import time
from collections.abc import Iterator, Sequence

from .outputs.lines import Name, Result, message_of

MAX_LISTED = 3  # failures that the messages above the summary still show at a glance
_DETAILS = re.compile(r"[;:,(]")
_NUMBER = re.compile(r"\d[\d.,]*")


class Summary:
    """Counts of results, failures and seconds of audio in a run, timed from construction.

    Args:
        of_texts: True for results of texts, False for results of recordings.
        there: number of items with a result in the output before the run.
        others: number of files in folders that were left out, since their suffix is of no recording.
    """

    def __init__(self, of_texts: bool, there: int = 0, others: int = 0) -> None:
        self.count = self.failures = 0
        self.audio_seconds = 0.0
        self._there, self._others = there, others
        self._causes: dict[str, list[Name]] = {}  # names of the failures by cause
        self._of_texts = of_texts
        self._start = time.perf_counter()

    def add(self, name: Name, results: Sequence[Result]) -> None:
        """Count a recording or text with its seconds of audio, or as a failure where any result is one."""
        self.count += 1
        errors = [result.error for result in results if result.error is not None]
        if not errors:
            self.audio_seconds += results[0].duration
        else:
            self.failures += 1
            self._causes.setdefault(_cause(str(name), message_of(errors[0])), []).append(name)

    def lines(self, ending: str = "") -> Iterator[str]:
        """Lines with counts, time, throughput, the reason of an early end, and failures by cause."""
        seconds = time.perf_counter() - self._start
        if self._of_texts:
            done = f"{self.count} texts in {seconds:.1f} s ({self.count / seconds:.1f} a second)"
        else:
            done = (
                f"{self.count} files, {_duration(self.audio_seconds)} of audio in {_duration(seconds)} "
                f"(RTFx {self.audio_seconds / seconds:.1f})"
            )
        parts = [done, f"{self.failures} failed"]
        if self._there:
            parts.append(f"{self._there} there already")
        if self._others:
            parts.append(f"{self._others} files of other kinds left out")
        yield ", ".join(parts) + (f"; {ending}" if ending else "")
        if self.failures > MAX_LISTED:
            for cause, names in sorted(self._causes.items(), key=lambda item: -len(item[1])):
                yield f"{len(names):5} {cause}: {'first ' if len(names) > 1 else ''}{names[0]}"


def _cause(name: str, message: str) -> str:
    """Kind of a failure: how its message begins behind the item's name, without details and numbers."""
    problem = message.replace(name, "").removeprefix(": ")
    return _NUMBER.sub("N", _DETAILS.split(problem, maxsplit=1)[0]).strip() or problem


def _duration(seconds: float) -> str:
    """Length of time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"
