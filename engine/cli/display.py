"""Messages, log, spinner and progress bar of a run, on standard error."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .outputs.lines import Name
from .terminal import note, refuse, standard_error, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_LIBRARY = __name__.partition(".")[0]  # parent of the loggers, of which each folder of modules has one
_MAX_EXCERPT = 32  # characters of a text beside its error


@dataclass(frozen=True)
class Display:
    """Standard error of a run.

    Args:
        verbose: True shows the log of all modules, not only warnings.
        quiet: True shows errors, failures and warnings alone: no notes, bar or summary.
    """

    verbose: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.verbose and self.quiet:
            refuse("--verbose and --quiet contradict each other; leave one out")

    @cached_property
    def console(self) -> "Console":
        """Console of standard error; one for all, so that messages go above the bar."""
        from rich.console import Console

        return Console(stderr=True)

    def note(self, message: str) -> None:
        """Print a message, unless quiet."""
        if not self.quiet:
            note(message)

    def item(self, name: Name, message: str, color: str) -> None:
        """Print an error or warning of a recording or text."""
        # A message may name the file already, or show how the text begins.
        shown = str(name) if isinstance(name, Path) else repr(name)[:_MAX_EXCERPT]
        self._print(message if shown in message else f"{shown}: {message}", color)

    @contextlib.contextmanager
    def log(self) -> Iterator[None]:
        """Show the library's log while the context lasts."""
        logger = logging.getLogger(_LIBRARY)
        handler, level = _LogHandler(self), logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG if self.verbose else logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Spin on a terminal while the model is loaded, with the log's newest line."""
        if self.quiet or not self.console.is_terminal:
            yield
            return
        with self.console.status("loading the model") as status:
            handler = _StatusHandler(status.update)
            logging.getLogger(_LIBRARY).addHandler(handler)
            try:
                yield
            finally:
                logging.getLogger(_LIBRARY).removeHandler(handler)

    def progress(self, total: int) -> "Progress":
        """Progress bar, disabled where there is no terminal."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        one_terminal = False
        if self.console.is_terminal and sys.stdout is not None and sys.stdout.isatty():
            one_terminal = os.path.samestat(os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno()))
        progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=self.quiet or not self.console.is_terminal,
            # Text goes above the bar where both are on one terminal; into a pipe it must go as it is.
            redirect_stdout=one_terminal,
        )
        progress.add_task("", total=total)
        return progress

    def _print(self, message: str, color: str) -> None:
        with standard_error():
            self.console.print(
                visible(message),
                style=color if self.console.is_terminal else None,
                markup=False,
                highlight=False,
                emoji=False,  # a name may hold :smile:
                soft_wrap=True,
            )


class _LogHandler(logging.Handler):
    """Handler that prints warnings, or with --verbose all records with their time and logger."""

    def __init__(self, display: Display) -> None:
        super().__init__(logging.DEBUG if display.verbose else logging.WARNING)
        self._display = display
        if display.verbose:
            self.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
        else:
            self.setFormatter(logging.Formatter(f"{_LIBRARY}: %(levelname)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, with its traceback if it has one, line by line."""
        color = "yellow" if record.levelno >= logging.WARNING else "dim"
        for line in self.format(record).splitlines():
            self._display._print(line, color)


class _StatusHandler(logging.Handler):
    """Handler that shows each record beside the spinner."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """Show the record's message."""
        self._show(visible(record.getMessage()))
