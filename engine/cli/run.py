"""Execution of a command: results in input order to a file or standard output, progress, exit codes."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..builtin_models import BuiltinModel, named
from ..journal_files import remove_journals
from .display import Display
from .inputs import Inputs, Item, StandardInput
from .outputs.destination import Output
from .outputs.lines import Name, Origin, Result, message_of
from .outputs.results_file import ResultsFile
from .outputs.results_folder import ResultsFolder
from .scoring import Scores
from .summary import Summary
from .terminal import INTERRUPTED, refuse, show_warning, silence

if TYPE_CHECKING:
    from ..engine import Engine
    from ..pool import EnginePool

_CLOSE_SECONDS = 1.0  # that an interrupted command waits for a step or read under way


@dataclass(frozen=True)
class Setup:
    """Engine settings of a command: arguments of `Engine`, and the number of CPU threads."""

    model: str | None  # None: the default model
    device: str | None
    dtype: str | None  # None: the engine's default
    threads: int | None  # None leaves torch's number
    default: BuiltinModel
    reason: str = ""  # why this one is the default, where it depends

    def __post_init__(self) -> None:
        if self.model == "":
            refuse("--model is empty; give a name or folder, . for the current folder")

    def origin(self, options: dict[str, Any]) -> Origin:
        """Origin of the results: the model's folder or name, the dtype, and the options that are set."""
        given = {
            name: value for name, value in (options | {"dtype": self._dtype()}).items() if value is not None
        }
        model = self._model
        if isinstance(model, BuiltinModel):
            return Origin(model.name, given)
        folder = os.path.expanduser(model)
        return Origin(os.path.realpath(folder) if os.path.isdir(folder) else model, given)

    @property
    def _model(self) -> str | BuiltinModel:
        """Built-in model that is named or the default; otherwise the name or folder that is given."""
        return self.default if self.model is None else named(self.model) or self.model

    def _checkpoint(self) -> str | Path:
        """Name or folder of the checkpoint; errors are those of `BuiltinModel.folder`."""
        model = self._model
        return model.folder if isinstance(model, BuiltinModel) else model

    @property
    def _devices(self) -> list[str]:
        """Devices that are named, with commas between; none where the engine chooses."""
        return [] if self.device is None else self.device.split(",")

    def _dtype(self) -> str:
        """Dtype of the engine, given or its default; end the command where it cannot be known."""
        if self.dtype is not None or self.device == "cpu":
            return self.dtype or "float32"
        from ..tasks.loading import default_dtype

        try:
            return default_dtype(self._checkpoint(), self._devices[0] if self._devices else None)
        except (ValueError, OSError, RuntimeError) as error:
            refuse(str(error))

    def start(self, resources: ExitStack, display: Display) -> "Engine | EnginePool":
        """Start the engine, or one on each device, closed with `resources`.

        Ends the command where the model cannot be used.
        """
        import torch

        from ..config import EngineConfig
        from ..engine import Engine
        from ..pool import EnginePool

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.model is None:
            because = f", since {self.reason}" if self.reason else ""
            display.note(f"no --model given: using {self.default.description}{because}")
        try:
            with warnings.catch_warnings():
                warnings.showwarning = show_warning  # type: ignore[assignment]
                config = EngineConfig(close_timeout=_CLOSE_SECONDS)
                if len(self._devices) > 1:
                    pool = EnginePool(self._checkpoint(), self._devices, dtype=self._dtype(), config=config)
                    return resources.enter_context(pool)
                engine = Engine(self._checkpoint(), device=self.device, dtype=self.dtype, config=config)
                return resources.enter_context(engine)
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            refuse(message_of(error))


@dataclass(frozen=True)
class Command:
    """Processing of one command: submission of inputs to the engine, and the result of a bad input."""

    of_texts: bool  # inputs are texts, otherwise recordings
    submit: "Callable[[Any, list[Any]], Iterator[Result]]"  # in order; ValueError for incorrect usage
    failure: Callable[[Exception], Result]  # the result of an item with a problem
    split: bool = False  # an item has a result for each of its channels


def run(
    inputs: Inputs,
    command: Command,
    setup: Setup,
    options: dict[str, Any],
    output: Output,
    show_name: bool,
    display: Display,
    scores: Scores | None = None,
) -> None:
    """Process all items, write their results in order, and show progress.

    Args:
        scores: error rates that the items' references are counted in.

    Raises:
        typer.Exit: code 1 where any item failed, 2 for incorrect usage, 130 after an interrupt.
    """
    items = inputs.items
    origin = setup.origin(options)
    names = [item.name for item in items]
    output.check_inputs(names, command.split)
    with display.log(), ExitStack() as resources:
        results = output.open(origin, names, command.of_texts, resources)
        left = list(items)
        if results is not None:
            if any(isinstance(item.source, StandardInput) and results.has(item.name) for item in items):
                refuse(
                    f"--output {output.path}: has a recording of standard input already, maybe another one; "
                    "name another file, or --overwrite it"
                )
            left = [item for item in items if not results.has(item.name)]
            _note_continued(output, command, len(items), left, results, display)
        if not left:
            if results is not None and results.count:
                results.begin(())
            return
        engine: Engine | EnginePool | None = None
        ready: Iterator[list[Result]] = iter(())
        if sources := [item.source for item in left if item.problem is None]:
            with display.loading():
                engine = setup.start(resources, display)
            try:
                ready = _by_item(command.submit(engine, sources), command.split)
            except ValueError as error:
                refuse(str(error))
        summary = Summary(command.of_texts, len(items) - len(left), inputs.others)
        progress = resources.enter_context(display.progress(len(left)))
        writer = results or output.writer(origin, show_name)

        def end(ending: str = "") -> None:
            for line in summary.lines(ending):
                display.note(line)
            if scores is not None:
                display.note(scores.line())

        try:
            writer.begin([item.name for item in left])
            if output.overwrite:
                _remove_journals(output)
            for item in left:
                of_item = next(ready) if item.problem is None else [command.failure(item.problem)]
                for message in dict.fromkeys(warning for one in of_item for warning in one.warnings):
                    display.item(item.name, f"warning: {message}", "yellow")
                for problem in dict.fromkeys(message_of(one.error) for one in of_item if one.error):
                    display.item(item.name, problem, "red")
                writer.write(item.name, *of_item, reference=item.reference)
                if all(one.error is None for one in of_item):
                    _remove_journals(output, item.name)
                summary.add(item.name, of_item)
                if scores is not None and engine is not None and item.reference is not None:
                    scores.add(item.reference, of_item[0], engine.model)
                progress.advance(progress.task_ids[0])
            writer.finish()
        except KeyboardInterrupt:
            if engine is not None:
                engine.close(cancel=True)
            end(f"interrupted with {len(left) - summary.count} to go")
            raise typer.Exit(INTERRUPTED) from None
        except (RuntimeError, MemoryError) as error:  # the engine's; a request's own error is in its result
            end(f"{message_of(error)}; stopped with {len(left) - summary.count} to go")
            raise typer.Exit(1) from None
        except OSError as error:
            if output.is_standard:
                silence(sys.stdout)
            to_go = len(left) - summary.count
            end(f"{output.label}: {error.strerror or error}; stopped with {to_go} to go")
            raise typer.Exit(1) from None
    end()
    if summary.failures:
        raise typer.Exit(1)


def _remove_journals(output: Output, name: Name | None = None) -> None:
    """Remove the journals of a recording whose result is written, or all."""
    if (folder := output.journals) is not None and not isinstance(name, str):
        remove_journals(folder, name)


def _by_item(results: Iterator[Result], split: bool) -> Iterator[list[Result]]:
    """Results of one item after the other: one, or with `split` one for each channel of a recording."""
    if not split:
        return ([result] for result in results)
    # The next recording's first result ends a group. An item's path is its own object.
    return (list(group) for _, group in groupby(results, key=lambda result: id(result.source)))


def _note_continued(
    output: Output,
    command: Command,
    total: int,
    left: list[Item],
    results: ResultsFile | ResultsFolder,
    display: Display,
) -> None:
    """Print to stderr how many results are there already, and how many failures are tried again."""
    failed = sum(results.failed(item.name) for item in left)
    if total > len(left) or failed:
        what = "texts" if command.of_texts else "recordings"
        again = f", {failed} that failed are tried again" if failed else ""
        display.note(
            f"{output.folder or output.path} goes on: {total - len(left)} of {total} {what} are there{again}"
        )
