"""The `tritone` command. Whatever imports torch is imported inside a command, so that `--help` is at once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..builtin_models import DIGIT_CLASSIFIER
from ..config import DEFAULT_TOP_K
from ..outputs import Classification, Transcription
from .output_files import LineFormat
from .run import Command, Output, Setup, find_recordings, find_texts, refuse, run

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

# Options that every command has.
OutputFile = Annotated[
    Path | None,
    typer.Option("--output", dir_okay=False, help="Write to this file; one that exists is continued."),
]
Format = Annotated[
    LineFormat | None,
    typer.Option("--format", help="Lines of text, or of JSON. Default: text, to a file jsonl."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin the output file anew.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu or cuda. Default: a GPU if there is one.")]
Dtype = Annotated[str, typer.Option("--dtype", help="float32, float16 or bfloat16.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads for the model.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from ... import __version__

        typer.echo(f"tritone {__version__}")
        raise typer.Exit


@app.callback()
def tritone(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Speech to text, and labels of speech and text; many at once, each exactly as it would be alone."""


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
    output: OutputFile = None,
    line_format: Format = None,
    overwrite: Overwrite = False,
    device: Device = None,
    dtype: Dtype = "float32",
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest result. Default: by the recording's length.")
    ] = None,
    threads: Threads = None,
) -> None:
    """Transcribes recordings, in the order given.

    Prints a line for each, its path, a tab and its text; of a single file just the text. One that cannot be
    transcribed is named on stderr and stops no other. Exit code: 0, 1 where any failed, 2 for a wrong call.

    An output file that exists is continued: recordings with a result there are skipped, those that failed are
    tried again, and a line torn by a crash is dropped. It must have been made with the same model, beams,
    language, length and dtype, of paths given in the same way.
    """
    where = Output(output, line_format, overwrite)
    options: dict[str, Any] = {
        "num_beams": num_beams,
        "max_new_tokens": max_new_tokens,
        "language": language,
    }
    command = Command(
        of_texts=False,
        submit=lambda engine, sources: engine.transcribe(sources, **options),
        failure=_no_transcription,
    )
    setup = Setup(model, device, dtype, threads)
    run(find_recordings(paths), command, setup, options, where, _is_several(paths))


@app.command()
def classify(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...|TEXT...",
            help="Recordings, folders, globs; with --text texts. - reads lines of either from stdin.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint of a classifier, a name or folder. Default: single English digits."),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Classify texts, not recordings.")] = False,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Each text is two, with a tab between them.")
    ] = False,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut texts that are too long, instead of failing them.")
    ] = False,
    top_k: Annotated[int, typer.Option(min=1, help="Labels of a result, best first.")] = DEFAULT_TOP_K,
    output: OutputFile = None,
    line_format: Format = None,
    overwrite: Overwrite = False,
    device: Device = None,
    dtype: Dtype = "float32",
    threads: Threads = None,
) -> None:
    """Gives recordings, or texts, their labels, in the order given.

    Prints a line for each: its path or text, a tab, then labels and scores with tabs between them; of a
    single file or text just those. Failures, exit codes and output files are as with transcribe; an output
    file must have been made with the same model, dtype, --top-k, --pairs and --truncate.
    """
    where = Output(output, line_format, overwrite)
    if model is None and text:
        refuse("--text needs --model, the name or folder of a classifier of texts; none is built in")
    for name, given in (("--pairs", pairs), ("--truncate", truncate)):
        if given and not text:
            refuse(f"{name} is about texts; give --text too, or leave it out")
    options: dict[str, Any] = {"top_k": top_k, "pairs": pairs or None, "truncate": truncate or None}
    command = Command(
        of_texts=text,
        submit=lambda engine, ready: _classify(engine, ready, text, top_k, truncate),
        failure=_no_classification,
    )
    items = find_texts(sources, pairs) if text else find_recordings(sources)
    several = len(items) > 1 or sources == ["-"] if text else _is_several(sources)
    setup = Setup(model, device, dtype, threads, DIGIT_CLASSIFIER)
    run(items, command, setup, options, where, several)


def _classify(engine: Any, sources: list[Any], text: bool, top_k: int, truncate: bool) -> Any:
    """The engine's results; a recording for a classifier of texts, or the reverse, is a wrong call."""
    results = engine.classify(sources, top_k=top_k, truncate=truncate)
    if text != (engine.sampling_rate is None):
        name = type(engine.model).__name__
        refuse(f"a {name} classifies recordings; leave --text out" if text else f"a {name} needs --text")
    return results


def _no_transcription(error: Exception) -> Transcription:
    from ...scheduler.request import FinishReason

    return Transcription("", (), FinishReason.ERROR, 0.0, error=error)


def _no_classification(error: Exception) -> Classification:
    from ...scheduler.request import FinishReason

    return Classification((), FinishReason.ERROR, error=error)


def _is_several(paths: list[str]) -> bool:
    """Whether lines have to tell which recording they are of."""
    return len(paths) > 1 or not Path(paths[0]).is_file()
