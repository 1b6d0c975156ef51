"""Command `tritone bench`."""

import json
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from ..builtin_models import DIGITS, ENGLISH, default_recognizer
from .display import Display
from .inputs import find_recordings
from .names import check_dtype
from .outputs.lines import message_of
from .run import Setup
from .terminal import INTERRUPTED, refuse, visible

_MAX_ITEMS = 64  # recordings or texts of a user's, from the whole list evenly


def bench(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Recordings, folders, globs; of texts, files with one a line. Default: made up.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            autocompletion=lambda: [DIGITS.name, ENGLISH.name],
            help="english, digits, or a checkpoint: a name or folder. Default: english if there.",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Time for the measurement, behind loading.")] = 60,
    num_beams: Annotated[int | None, typer.Option(min=1, help="Beams. Default: the checkpoint's.")] = None,
    device: Annotated[
        str | None,
        typer.Option(
            autocompletion=lambda: ["cpu", "cuda"], help="cpu or cuda. Default: a GPU if there is one."
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            callback=check_dtype,
            autocompletion=lambda: ["float32", "float16", "bfloat16"],
            help="float32, float16 or bfloat16. [default: float32; on a GPU half precision]",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for the model.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write all numbers to this file.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write a picture, .png or .svg; needs the extra bench."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors alone on stderr.")] = False,
) -> None:
    """Measure a model on this machine: speed and latency by the number of recordings at once.

    Prints what the machine gives, where its time goes, and which knob to turn. Nothing else should run
    meanwhile. Exit code: 0; 1 if nothing has a result; 2 for incorrect usage or a model that cannot be used.
    """
    if plot is not None and find_spec("matplotlib") is None:
        refuse("--plot needs matplotlib, of the extra bench; install it: pip install 'tritone[bench]'")
    if device is not None and "," in device:
        refuse(f"--device {device}: several devices are for transcribe; name one")
    for file in (json_file, plot):
        if file is not None and not file.absolute().parent.is_dir():
            refuse(f"{file}: its folder is not there; make it first")
    display = Display(quiet=quiet)
    setup = Setup(model, device, dtype, threads, *default_recognizer())
    with display.log(), ExitStack() as resources:
        with display.loading():
            engine: Any = setup.start(resources, display)
        from ..bench.measure import measure
        from ..bench.report import report

        workload = _workload(engine, paths, {} if num_beams is None else {"num_beams": num_beams})
        try:
            found = measure(engine, workload, seconds, lambda part: display.note(f"measuring: {part}"))
        except KeyboardInterrupt:
            engine.close(cancel=True)
            raise typer.Exit(INTERRUPTED) from None
        except ValueError as error:  # of an option that the model does not take
            refuse(message_of(error))
        except (RuntimeError, OSError, MemoryError) as error:
            display.note(f"error: {message_of(error)}")
            raise typer.Exit(1) from None
    for line in report(found):
        typer.echo(visible(line))
    if json_file is not None:
        json_file.write_text(json.dumps(found.as_json(), indent=1) + "\n")
    if plot is not None:
        from ..bench.plot import draw

        try:
            draw(found, plot)
        except ValueError as error:  # of a suffix that names no format
            refuse(f"--plot {plot}: {error}")


def _workload(engine: Any, paths: list[str] | None, options: dict[str, Any]) -> Any:
    """The user's recordings or texts, or made-up ones; ends the command where there are none."""
    from ..bench.workload import given_recordings, given_texts, made_up

    if not paths:
        return made_up(engine, options)
    if engine.sampling_rate is None:
        lines = [line for path in paths for line in _lines(path) if line.strip()]
        if not lines:
            refuse(f"{paths[0]}: has no line with a text")
        return given_texts(engine, _evenly(lines))
    items = find_recordings(paths, False, False).items
    for item in items:
        if item.problem is not None:
            refuse(message_of(item.problem))
    return given_recordings(_evenly([item.source for item in items]), options)


def _evenly(items: list[Any]) -> list[Any]:
    """At most `_MAX_ITEMS` of a list, from all of it."""
    return items[:: -(-len(items) // _MAX_ITEMS)] if items else items


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        refuse(f"{path}: cannot be read as text: {error}")
