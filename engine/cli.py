"""The `tritone` command. Whatever imports torch is imported inside a command, so that `--help` is at once."""

import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .results import LineFormat, Origin, ResultsFile, StandardOutput, message_of
from .transcription import Transcription

if TYPE_CHECKING:
    from rich.progress import Progress

    from .audio import AudioError
    from .engine import Engine

INTERRUPTED = 130  # what shells report for SIGINT

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"tritone {__version__}")
        raise typer.Exit


@app.callback()
def tritone(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Speech to text, many recordings at once, each exactly as it would be alone."""


@app.command()
def transcribe(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Recordings, folders, globs, or - to read paths from stdin."),
    ],
    model: Annotated[
        str | None, typer.Option(help="Checkpoint, a name or folder. Default: English digits.")
    ] = None,
    num_beams: Annotated[int | None, typer.Option(min=1, help="Beams. Default: the checkpoint's.")] = None,
    language: Annotated[
        str | None, typer.Option(help="Language to translate into, of those the checkpoint has.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write to this file; one that exists is continued."),
    ] = None,
    line_format: Annotated[
        LineFormat | None,
        typer.Option("--format", help="Lines of text, or of JSON. Default: text, to a file jsonl."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin the output file anew.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: a GPU if there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest result. Default: by the recording's length.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for the model.")] = None,
) -> None:
    """Transcribes recordings, in the order given.

    Prints a line for each, its path, a tab and its text; of a single file just the text. One that cannot be
    transcribed is named on stderr and stops no other. Exit code: 0, 1 where any failed, 2 for a wrong call.

    An output file that exists is continued: recordings with a result there are skipped, those that failed are
    tried again, and a line torn by a crash is dropped. It must have been made with the same model, beams,
    language, length and dtype, of paths given in the same way.
    """
    if overwrite and output is None:
        _refuse("--overwrite is about the file of --output; name one")
    line_format = line_format or (LineFormat.JSONL if output else LineFormat.TEXT)
    options: dict[str, Any] = {
        "num_beams": num_beams,
        "max_new_tokens": max_new_tokens,
        "language": language,
    }
    origin = Origin(
        _identity(model),
        {name: value for name, value in (options | {"dtype": dtype}).items() if value is not None},
    )
    recordings = _find(paths)
    with ExitStack() as resources:
        results = _open(output, line_format, origin, overwrite, resources) if output else None
        left = recordings
        if results is not None and output is not None:
            left = {path: error for path, error in recordings.items() if not results.has(path)}
            _tell_what_is_there(output, len(recordings), len(left), sum(map(results.failed, left)))
        if not left:
            if results is not None and results.count:
                results.begin(())
            return
        engine = None
        transcriptions: Iterator[Transcription] = iter(())
        if readable := [path for path, error in left.items() if error is None]:
            engine = _start(model, device, dtype, threads, resources)
            try:
                transcriptions = engine.transcribe(readable, **options)
            except ValueError as error:
                _refuse(str(error))
        summary = Summary()
        progress = resources.enter_context(_progress(len(left)))
        show_path = len(paths) > 1 or not Path(paths[0]).is_file()
        lines = results or StandardOutput(line_format, origin, show_path)
        try:
            lines.begin(left)
            for path, problem in left.items():
                result = next(transcriptions) if problem is None else _failure(problem)
                summary.add(result)
                _report(path, result, lines, progress)
        except KeyboardInterrupt:
            if engine is not None:
                engine.close(cancel=True)
            summary.show(f"interrupted with {len(left) - summary.files} to go")
            raise typer.Exit(INTERRUPTED) from None
        except RuntimeError as error:  # the engine itself; a recording's own error is in its result
            summary.show(f"{error}; stopped with {len(left) - summary.files} to go")
            raise typer.Exit(1) from None
        except OSError as error:
            if results is None:
                raise  # standard output's reader has gone; typer knows how to end
            summary.show(
                f"--output {output}: {error.strerror}; stopped with {len(left) - summary.files} to go"
            )
            raise typer.Exit(1) from None
    summary.show()
    if summary.failures:
        raise typer.Exit(1)


class Summary:
    """What a run comes to, from now on."""

    def __init__(self) -> None:
        self.files = self.failures = 0
        self.audio_seconds = 0.0
        self._start = time.perf_counter()

    def add(self, result: "Transcription") -> None:
        """Counts one result."""
        self.files += 1
        if result.error is None:
            self.audio_seconds += result.duration
        else:
            self.failures += 1

    def show(self, ending: str = "") -> None:
        """Prints it to stderr, and how the run ended where that was not by itself."""
        seconds = time.perf_counter() - self._start
        _note(
            f"{self.files} files, {self.audio_seconds:.1f} s of audio in {seconds:.1f} s "
            f"(RTFx {self.audio_seconds / seconds:.1f}), {self.failures} failed"
            + (f"; {ending}" if ending else "")
        )


def _find(paths: list[str]) -> dict[Path, "AudioError | None"]:
    """The recordings that arguments name, each once, and what is wrong where one names none."""
    from .audio import AudioError, find_audio

    recordings: dict[Path, AudioError | None] = {}
    for given in paths:
        if given == "-":
            # As bytes, because names need not be text; and only a line end ends a line.
            lines = sys.stdin.buffer.read().split(b"\n")
            recordings |= {Path(os.fsdecode(line.rstrip(b"\r"))): None for line in lines if line.strip()}
            continue
        try:
            recordings |= dict.fromkeys(find_audio([given]))
        except AudioError as error:
            recordings[Path(given)] = error
    return recordings


def _failure(error: "AudioError") -> Transcription:
    """What becomes of a path that names no recording."""
    from ..scheduler.request import FinishReason

    return Transcription("", (), FinishReason.ERROR, 0.0, error=error)


def _identity(model: str | None) -> str:
    """How result files name a checkpoint."""
    if model is None:
        return "digits"
    folder = Path(model).expanduser()
    return str(folder.resolve()) if folder.is_dir() else model


def _start(
    model: str | None, device: str | None, dtype: str, threads: int | None, resources: ExitStack
) -> "Engine":
    import torch

    from .engine import Engine

    if threads is not None:
        torch.set_num_threads(threads)
    if model is None:
        _note("no --model given: using the digits model that comes along, which knows English digits only")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            return resources.enter_context(Engine(model, device=device, dtype=dtype))
    except (ValueError, OSError, RuntimeError) as error:
        _refuse(str(error))


def _show_warning(message: Warning | str, *_: Any) -> None:
    _note(f"warning: {message}")


def _open(
    path: Path, line_format: LineFormat, origin: Origin, overwrite: bool, resources: ExitStack
) -> ResultsFile:
    from .audio import AUDIO_SUFFIXES

    if path.suffix.lower() in AUDIO_SUFFIXES:
        _refuse(f"--output {path}: has a recording's name; give it another suffix")
    try:
        return resources.enter_context(ResultsFile(path, line_format, origin, overwrite=overwrite))
    except OSError as error:
        _refuse(f"--output {path}: cannot be written ({error.strerror})")
    except ValueError as error:
        _refuse(f"--output {error}")


def _tell_what_is_there(output: Path, total: int, left: int, failed: int) -> None:
    if total > left or failed:
        again = f", {failed} that failed are tried again" if failed else ""
        _note(f"{output} goes on: {total - left} of {total} recordings are there{again}")


def _report(
    path: Path, result: Transcription, lines: ResultsFile | StandardOutput, progress: "Progress"
) -> None:
    """Makes one result known, at once."""
    if result.error is not None:
        # Its message may name the file already.
        message = message_of(result.error)
        progress.console.print(
            message if str(path) in message else f"{path}: {message}",
            style="red" if progress.console.is_terminal else None,
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    lines.write(path, result)
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


def _note(message: str) -> None:
    typer.echo(f"tritone: {message}", err=True)


def _refuse(message: str) -> NoReturn:
    """Ends the command as a wrong call."""
    typer.echo(f"tritone: error: {message}", err=True)
    raise typer.Exit(2)
