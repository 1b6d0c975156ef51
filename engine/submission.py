"""One recording or text on its way from the caller to a job of the worker."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .jobs import Prepared
from .journal import Journal, JournaledSession
from .journal_files import journal_path
from .session import Session
from .tasks.base import EngineTask
from .tasks.inputs import ReadOptions


@dataclass(frozen=True, slots=True)
class Submission:
    """Recording or text with all that a call says of it.

    Args:
        source: as the caller gave it, for the result.
        snapshot: snapshot of the source for a reading thread, its inputs, or the error of making one.
        reading: options of reading.
        options: options as `EngineTask.check` returns them.
        priority, deadline, journal, stream: as of `Engine.submit`.
        bounded: False for one that has waited for its place in the queue.
    """

    source: Any
    snapshot: Any
    reading: ReadOptions
    options: dict[str, Any]
    priority: int
    deadline: float | None
    journal: Path | None = None
    stream: bool = False
    bounded: bool = True

    def start(
        self, task: EngineTask, origin: dict[str, str], is_wanted: Callable[[], bool]
    ) -> Prepared | Session:
        """Read the snapshot, as `EngineTask.start` does; a session keeps its journal, if it has one.

        Args:
            origin: origin of the engine's outputs in journals.
        """
        if isinstance(self.snapshot, Exception):
            raise self.snapshot
        started = task.start(self.snapshot, self.reading, self.options, is_wanted)
        if self.journal is not None and isinstance(started, Session):
            return JournaledSession(started, Journal(self.journal, origin))
        return started


def journal_in(folder: Path | None, source: Any, reading: ReadOptions) -> Path | None:
    """Journal of a source in a folder; None without a folder, or for a source that is no path."""
    if folder is None or not isinstance(source, str | os.PathLike):
        return None
    return journal_path(folder, source, reading.channel)
