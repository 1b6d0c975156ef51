"""What the commands share: results in order to a file or to standard output, progress, errors, exit codes."""

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from ..builtin_models import DIGITS, BuiltinModel
from .output_files import Line, LineFormat, Name, Origin, ResultsFile, StandardOutput, message_of

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..engine import Engine

INTERRUPTED = 130  # what shells report for SIGINT
_EXCERPT = 32  # characters of a text that tell which one failed

# A request: its name in the results, what the engine is given, and what is wrong where that is known already.
Item = tuple[Name, Any, Exception | None]


@dataclass(frozen=True)
class Output:
    """Where results go.

    Args:
        path: a file; None for standard output.
        line_format: of its lines; None for text, to a file for JSON lines.
        overwrite: begin the file anew.
    """

    path: Path | None
    line_format: LineFormat | None
    overwrite: bool

    def __post_init__(self) -> None:
        if self.overwrite and self.path is None:
            refuse("--overwrite is about the file of --output; name one")

    @property
    def format(self) -> LineFormat:
        """Of its lines."""
        return self.line_format or (LineFormat.JSONL if self.path else LineFormat.TEXT)


@dataclass(frozen=True)
class Setup:
    """The engine that a command wants.

    Args:
        model: a checkpoint's name or folder; None for the built-in one.
        device, dtype: as `Engine` takes them.
        threads: for the model on a CPU; None to leave them.
        builtin: the model in its place.
    """

    model: str | None
    device: str | None
    dtype: str
    threads: int | None
    builtin: BuiltinModel = DIGITS

    def origin(self, options: dict[str, Any]) -> Origin:
        """What results come from, with those of the options that say something."""
        given = {
            name: value for name, value in (options | {"dtype": self.dtype}).items() if value is not None
        }
        if self.model is None:
            return Origin(self.builtin.name, given)
        folder = Path(self.model).expanduser()
        return Origin(str(folder.resolve()) if folder.is_dir() else self.model, given)

    def start(self, resources: ExitStack) -> "Engine":
        """The engine, which ends with `resources`; a model that cannot be used ends the command."""
        import torch

        from ..engine import Engine

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.model is None:
            note(f"no --model given: using {self.builtin.description}")
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning  # type: ignore[assignment]
                model = self.builtin.folder if self.model is None else self.model
                return resources.enter_context(Engine(model, device=self.device, dtype=self.dtype))
        except (ValueError, OSError, RuntimeError) as error:
            refuse(str(error))


@dataclass(frozen=True)
class Command:
    """What a command does with each item.

    Args:
        of_texts: whether they are texts, not recordings.
        submit: the engine and sources to their results in order; ValueError for a wrong call.
        failure: what becomes of an item that is wrong already.
    """

    of_texts: bool
    submit: "Callable[[Engine, list[Any]], Iterator[Line]]" = field(repr=False)
    failure: Callable[[Exception], Line] = field(repr=False)


def run(
    items: Sequence[Item],
    command: Command,
    setup: Setup,
    options: dict[str, Any],
    output: Output,
    show_name: bool,
) -> None:
    """Has every item's result written in order, shows how far it is, and ends with the exit code.

    Raises:
        typer.Exit: 1 where any failed, 2 for a wrong call, 130 where it was interrupted.
    """
    origin = setup.origin(options)
    with ExitStack() as resources:
        results = _open(output, origin, command, resources) if output.path else None
        left = list(items)
        if results is not None:
            left = [item for item in items if not results.has(item[0])]
            _tell_what_is_there(output, command, len(items), left, results)
        names = [name for name, _, _ in left]
        if not left:
            if results is not None and results.count:
                results.begin(())
            return
        engine: Engine | None = None
        ready: Iterator[Line] = iter(())
        if sources := [source for _, source, problem in left if problem is None]:
            engine = setup.start(resources)
            try:
                ready = command.submit(engine, sources)
            except ValueError as error:
                refuse(str(error))
        summary = Summary(command.of_texts)
        progress = resources.enter_context(_progress(len(left)))
        lines = results or StandardOutput(output.format, origin, show_name)
        try:
            lines.begin(names)
            for name, _, problem in left:
                result = next(ready) if problem is None else command.failure(problem)
                summary.add(result)
                _report(name, result, lines, progress)
        except KeyboardInterrupt:
            if engine is not None:
                engine.close(cancel=True)
            summary.show(f"interrupted with {len(left) - summary.count} to go")
            raise typer.Exit(INTERRUPTED) from None
        except RuntimeError as error:  # the engine itself; a request's own error is in its result
            summary.show(f"{error}; stopped with {len(left) - summary.count} to go")
            raise typer.Exit(1) from None
        except OSError as error:
            if results is None:
                raise  # standard output's reader has gone; typer knows how to end
            to_go = len(left) - summary.count
            summary.show(f"--output {output.path}: {error.strerror}; stopped with {to_go} to go")
            raise typer.Exit(1) from None
    summary.show()
    if summary.failures:
        raise typer.Exit(1)


class Summary:
    """What a run comes to, from now on."""

    def __init__(self, of_texts: bool) -> None:
        self.count = self.failures = 0
        self.audio_seconds = 0.0
        self._of_texts = of_texts
        self._start = time.perf_counter()

    def add(self, result: Line) -> None:
        """Counts one result."""
        self.count += 1
        if result.error is None:
            self.audio_seconds += result.duration
        else:
            self.failures += 1

    def show(self, ending: str = "") -> None:
        """Prints it to stderr, and how the run ended where that was not by itself."""
        seconds = time.perf_counter() - self._start
        if self._of_texts:
            done = f"{self.count} texts in {seconds:.1f} s ({self.count / seconds:.1f} a second)"
        else:
            done = (
                f"{self.count} files, {self.audio_seconds:.1f} s of audio in {seconds:.1f} s "
                f"(RTFx {self.audio_seconds / seconds:.1f})"
            )
        note(f"{done}, {self.failures} failed" + (f"; {ending}" if ending else ""))


def find_recordings(paths: Sequence[str]) -> list[Item]:
    """The recordings that arguments name, each once, and what is wrong where one names none."""
    from ..audio.reader import AudioError, find_audio

    recordings: dict[Path, Exception | None] = {}
    for given in paths:
        if given == "-":
            # As bytes, because names need not be text.
            recordings |= {Path(os.fsdecode(line)): None for line in _lines_of_input()}
            continue
        try:
            recordings |= dict.fromkeys(find_audio([given]))
        except AudioError as error:
            recordings[Path(given)] = error
    return [(path, path, problem) for path, problem in recordings.items()]


def find_texts(texts: Sequence[str], pairs: bool) -> list[Item]:
    """The texts that arguments are, and lines of standard input; with `pairs` each is two, a tab between."""
    found: list[str] = []
    for given in texts:
        lines = (
            (line.decode("utf-8", "surrogateescape") for line in _lines_of_input())
            if given == "-"
            else [given]
        )
        found += lines
    if not pairs:
        return [(text, text, None) for text in found]
    return [(text, tuple(text.split("\t")), _wrong_pair(text)) for text in found]


def _wrong_pair(text: str) -> Exception | None:
    count = text.count("\t")
    if count == 1:
        return None
    return ValueError(f"{text!r:.40}: with --pairs two texts have one tab between them, here are {count}")


def _lines_of_input() -> Iterator[bytes]:
    """Lines of standard input that are not blank; only a line end ends one."""
    for line in sys.stdin.buffer.read().split(b"\n"):
        if line.strip():
            yield line.rstrip(b"\r")


def _show_warning(message: Warning | str, *_: Any) -> None:
    note(f"warning: {message}")


def _open(output: Output, origin: Origin, command: Command, resources: ExitStack) -> ResultsFile:
    from ..audio.reader import AUDIO_SUFFIXES

    path = output.path
    assert path is not None  # asked before
    if path.suffix.lower() in AUDIO_SUFFIXES:
        refuse(f"--output {path}: has a recording's name; give it another suffix")
    try:
        return resources.enter_context(
            ResultsFile(path, output.format, origin, overwrite=output.overwrite, of_texts=command.of_texts)
        )
    except OSError as error:
        refuse(f"--output {path}: cannot be written ({error.strerror})")
    except ValueError as error:
        refuse(f"--output {error}")


def _tell_what_is_there(
    output: Output, command: Command, total: int, left: list[Item], results: ResultsFile
) -> None:
    failed = sum(results.failed(name) for name, _, _ in left)
    if total > len(left) or failed:
        what = "texts" if command.of_texts else "recordings"
        again = f", {failed} that failed are tried again" if failed else ""
        note(f"{output.path} goes on: {total - len(left)} of {total} {what} are there{again}")


def _report(name: Name, result: Line, lines: ResultsFile | StandardOutput, progress: "Progress") -> None:
    """Makes one result known, at once."""
    if result.error is not None:
        # Its message may name the file already, or show how the text begins.
        message, shown = message_of(result.error), str(name)
        if not isinstance(name, Path):
            shown = repr(name)[:_EXCERPT]
        progress.console.print(
            message if shown in message else f"{shown}: {message}",
            style="red" if progress.console.is_terminal else None,
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    lines.write(name, result)
    progress.advance(progress.task_ids[0])


def _progress(total: int) -> "Progress":
    """A bar on stderr, and nothing at all where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    progress = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        # Text goes above the bar where both are on one terminal; into a pipe it must go as it is.
        redirect_stdout=sys.stdout.isatty(),
    )
    progress.add_task("", total=total)
    return progress


def note(message: str) -> None:
    """Tells something on stderr."""
    typer.echo(f"tritone: {message}", err=True)


def refuse(message: str) -> NoReturn:
    """Ends the command as a wrong call."""
    typer.echo(f"tritone: error: {message}", err=True)
    raise typer.Exit(2)
