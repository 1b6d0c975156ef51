"""The `tritone` command. Whatever imports torch is imported inside a command, so that `--help` is at once."""

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

    from .engine import Engine
    from .transcription import Transcription

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
        typer.Option(dir_okay=False, help="Write JSON lines to this file instead of text to stdout."),
    ] = None,
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
    """
    recordings = _find(paths)
    show_path = len(paths) > 1 or not Path(paths[0]).is_file()
    with ExitStack() as resources:
        lines = _open(output, resources) if output else None
        options: dict[str, Any] = {
            "num_beams": num_beams,
            "max_new_tokens": max_new_tokens,
            "language": language,
        }
        engine = _start(model, device, dtype, threads, resources)
        try:
            results = engine.transcribe(recordings, **options)
        except ValueError as error:
            _refuse(str(error))
        summary = Summary()
        progress = resources.enter_context(_progress(len(recordings)))
        try:
            for path, result in zip(recordings, results, strict=True):
                summary.add(result)
                _report(path, result, lines, show_path, progress)
        except KeyboardInterrupt:
            engine.close(cancel=True)
            summary.show(f"interrupted with {len(recordings) - summary.files} to go")
            raise typer.Exit(INTERRUPTED) from None
        except RuntimeError as error:  # the engine itself; a recording's own error is in its result
            summary.show(f"{error}; stopped with {len(recordings) - summary.files} to go")
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


def _find(paths: list[str]) -> list[Path]:
    """The recordings that arguments name; a missing one is a wrong call, a missing line of `-` a failure."""
    from .audio import AudioError, find_audio

    recordings: list[Path] = []
    for given in paths:
        if given == "-":
            recordings += [Path(line) for line in sys.stdin.read().splitlines() if line.strip()]
            continue
        try:
            recordings += find_audio([given])
        except AudioError as error:
            _refuse(str(error))
    return list(dict.fromkeys(recordings))


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
        return resources.enter_context(Engine(model, device=device, dtype=dtype))
    except (ValueError, OSError, RuntimeError) as error:
        _refuse(str(error))


def _open(path: Path, resources: ExitStack) -> IO[str]:
    # A path that is no UTF-8 holds surrogates, which backslashreplace writes as JSON's own escapes.
    try:
        return resources.enter_context(path.open("w", encoding="utf-8", errors="backslashreplace"))
    except OSError as error:
        _refuse(f"--output {path}: cannot be written ({error.strerror})")


def _report(
    path: Path, result: "Transcription", lines: IO[str] | None, show_path: bool, progress: "Progress"
) -> None:
    """Makes one result known, at once."""
    if result.error is not None:
        # Its message may name the file already.
        message = str(result.error) or repr(result.error)
        progress.console.print(
            message if str(path) in message else f"{path}: {message}",
            style="red" if progress.console.is_terminal else None,
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if lines is not None:
        lines.write(json.dumps(_record(path, result), ensure_ascii=False) + "\n")
        lines.flush()
    elif result.error is None:
        text = " ".join(result.text.split())  # one line each
        line = f"{path}\t{text}" if show_path else text
        encoding = sys.stdout.encoding or "utf-8"
        print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    progress.advance(progress.task_ids[0])


def _record(path: Path, result: "Transcription") -> dict[str, Any]:
    return {
        "path": str(path),
        "text": result.text if result.error is None else None,
        "token_ids": list(result.token_ids),
        "finish_reason": str(result.finish_reason),
        "duration": round(result.duration, 3),
        "score": result.score,
        "error": None if result.error is None else str(result.error) or repr(result.error),
    }


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
