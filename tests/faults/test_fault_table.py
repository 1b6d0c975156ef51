"""Every fault of the table on real engines and through the command: nothing hung, lost, or falsely right."""

import gc
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
import torch
from commands import records, tritone_invoke
from fault_sites import Culprit, Injector, Panic
from fault_table import COMMAND_TABLE, FORESEEN, TABLE, CommandRow, Row
from watchdog import within

SOON = 20  # seconds; nothing here takes a tenth of it
CLOSING = 10  # seconds that `close` may take

CASES = [(row, on, kind) for row in TABLE for on in row.on for kind in row.kinds]
COMMANDS = [(row, row.on[0], kind) for row in TABLE if row.exit_code is not None for kind in row.kinds]


def case_id(value: Any) -> str:
    return value.site.replace(" ", "-") if isinstance(value, Row | CommandRow) else str(value)


def injector_of(row: Row, kind: str, culprit: Culprit, duration: float) -> Injector:
    """The wrapper that a row's fault needs."""
    known_by = {
        "here": lambda *_, **__: culprit.index is not None,
        "source": lambda *arguments, **options: any(map(culprit.is_source, (*arguments, *options.values()))),
        "array": lambda array: len(array) in culprit.samples,
        "request": lambda _, request: culprit.is_request(request),
        "duration": lambda _, options, length: length == duration,
    }
    when = known_by[row.known_by] if row.when == "culprit" else lambda *_, **__: True
    times = 1 if row.when == "once" else row.times
    return Injector(row.target, kind, when, times, culprit if row.when == "culprit" else None)


@pytest.mark.parametrize(("row", "on", "kind"), CASES, ids=case_id)
def test_a_fault_in_the_engine_is_the_culprits_own(subjects, row, on, kind):
    subject = subjects[on]
    alone, culprit = subject.alone, subject.culprit
    before = set(threading.enumerate())
    fault = injector_of(row, kind, culprit, alone[1].duration)
    with culprit.followed():
        engine = subject.open()
    try:
        with culprit.followed(), fault.active():
            results = within(SOON, subject.results, engine)
        assert fault.raised, "the site was not reached"
        outcomes = [row.beside, row.culprit, row.beside]
        for wanted, result, expected in zip(outcomes, results, alone, strict=True):
            check(wanted, result, expected)
        assert engine.health().status in row.health.split(" or ")
        if engine.health().status == "failed":
            with pytest.raises(RuntimeError, match="injected"):
                engine.submit(subject.sources[0])
        else:
            again = within(SOON, subject.results, engine)
            assert again == alone
    finally:
        within(CLOSING, engine.close, cancel=True)
    del engine  # with the engine goes its pool
    until = time.monotonic() + SOON
    while left := {one for one in set(threading.enumerate()) - before if one.name.startswith("tritone-")}:
        assert time.monotonic() < until, left
        gc.collect()


@contextmanager
def one_thread() -> Iterator[None]:
    """Put torch's number of threads back, which the command sets."""
    try:
        yield
    finally:
        torch.set_num_threads(1)


def check(wanted: str, result: Any, expected: Any) -> None:
    if wanted == "same" or (wanted == "any" and result.error is None):
        assert result == expected
        return
    assert result.error is not None, f"succeeded with {result}"
    assert isinstance(result.error, Exception)
    assert result.finish_reason == "error"
    assert not getattr(result, "text", "")
    assert not getattr(result, "labels", ())


@pytest.mark.parametrize(("row", "on", "kind"), COMMANDS, ids=case_id)
def test_a_fault_in_the_command_is_the_culprits_own(subjects, row, on, kind):
    subject = subjects[on]
    fault = injector_of(row, kind, subject.culprit, subject.alone[1].duration)
    with subject.culprit.followed(), fault.active(), one_thread():
        run = within(SOON, tritone_invoke, *subject.arguments, "--format", "jsonl", *subject.sources)
    assert fault.raised, "the site was not reached"
    assert run.exception is None or isinstance(run.exception, SystemExit), run.exception
    assert "Traceback" not in run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    outcomes = [row.beside, row.culprit, row.beside]
    for wanted, line in zip(outcomes, lines, strict=True):
        if wanted != "any":
            assert (line["error"] is None) == (wanted == "same")
    failed = any(line["error"] is not None for line in lines)
    assert run.exit_code == (int(failed) if "any" in outcomes else row.exit_code)


def run_with_fault(row: CommandRow, kind: str, arguments: list[Any]) -> None:
    """Run the command with a fault, which must end it as its row says."""
    calls = count(1)
    fault = Injector(row.target, kind, lambda *_, **__: next(calls) == row.call)
    with fault.active():
        try:
            run = within(SOON, tritone_invoke, *arguments)
            exit_code, errors, unforeseen = run.exit_code, run.stderr, run.exception
        except Panic as error:  # which a process prints as it ends, with code 1
            exit_code, errors, unforeseen = 1, "", error
    assert fault.raised, "the site was not reached"
    assert exit_code == row.exit_code, errors
    if kind in FORESEEN:
        assert unforeseen is None or isinstance(unforeseen, SystemExit)
        assert "injected" in errors


def command_cases(to_folder: bool) -> list[tuple[CommandRow, str]]:
    return [(row, kind) for row in COMMAND_TABLE for kind in row.kinds if row.to_folder is to_folder]


@pytest.mark.parametrize(("row", "kind"), command_cases(to_folder=False), ids=case_id)
def test_a_fault_of_the_command_leaves_whole_lines_and_the_next_run_completes_them(
    subjects, tmp_path, row, kind
):
    subject, output = subjects["greedy"], tmp_path / "out.jsonl"
    arguments = [*subject.arguments, "--output", output, *subject.sources]
    run_with_fault(row, kind, arguments)
    before = output.read_text() if output.exists() else ""
    assert before.endswith("\n") or not before

    assert within(SOON, tritone_invoke, *arguments).exit_code == 0
    assert output.read_text().startswith(before)
    texts = {line["path"]: line["text"] for line in records(output)}
    assert len(records(output)) == len(texts)
    assert texts == {str(path): one.text for path, one in zip(subject.sources, subject.alone, strict=True)}


@pytest.mark.parametrize(("row", "kind"), command_cases(to_folder=True), ids=case_id)
def test_a_fault_of_the_command_leaves_whole_files_and_the_next_run_completes_them(
    subjects, tmp_path, row, kind
):
    subject = subjects["greedy"]
    arguments = [*subject.arguments, "-f", "srt,json", *subject.sources, "-o"]
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert within(SOON, tritone_invoke, *arguments, whole).exit_code == 0
    wanted = {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*.*") if path.is_file()}
    run_with_fault(row, kind, [*arguments, output])
    for path in output.rglob("*.[js]*"):
        assert path.read_bytes() == wanted[path.relative_to(output)]
    assert within(SOON, tritone_invoke, *arguments, output).exit_code == 0
    assert wanted == {
        path.relative_to(output): path.read_bytes() for path in output.rglob("*.*") if path.is_file()
    }
