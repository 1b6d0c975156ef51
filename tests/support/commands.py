"""The `tritone` command in tests: as a process, within the test's own, and on a terminal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import typer.testing

from tritone.engine.cli.main import app

SOON = 300  # seconds; a start alone takes many on a loaded machine
_ENVIRONMENT = {"COLUMNS": "200", "NO_COLOR": "1"}


def tritone_process(*arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a process."""
    return subprocess.run(
        [sys.executable, "-m", "tritone", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=SOON,
        env={**os.environ, **_ENVIRONMENT},
    )


def tritone_invoke(*arguments: object, stdin: bytes | str | None = None) -> typer.testing.Result:
    """Run the command without a process of its own, which takes seconds to start."""
    return typer.testing.CliRunner().invoke(app, [*map(str, arguments)], input=stdin, env=_ENVIRONMENT)


def tritone_on_terminal(*arguments: object, with_output: bool = False) -> tuple[str, str]:
    """Output of the command on a pseudo-terminal: standard error, or both; and standard output in a pipe."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tritone", *map(str, arguments)],
        stdout=theirs if with_output else subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "60"},
    )
    os.close(theirs)
    drawn = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:
            break
        if not chunk:
            break
        drawn += chunk
    output, _ = process.communicate(timeout=SOON)
    os.close(ours)
    return drawn.decode(errors="replace"), (output or b"").decode()


def records(output: Path) -> list[dict]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
