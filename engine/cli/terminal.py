"""Messages on standard error, control characters made visible, and the ends of a command's process."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any, NoReturn

import typer

INTERRUPTED = 130  # the exit code that shells report for SIGINT
# C0, DEL and C1 move a terminal's cursor, color it or rename it; the others reorder or end a line.
CONTROLS = (
    *map(chr, (*range(0x20), *range(0x7F, 0xA0))),
    *"\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
)
_VISIBLE = {ord(control): repr(control)[1:-1] for control in CONTROLS}
# A line feed stays in messages of two lines, a tab between the fields of a line.
_VISIBLE_LINE = {code: shown for code, shown in _VISIBLE.items() if code != 0x09}
_VISIBLE_LINES = {code: shown for code, shown in _VISIBLE.items() if code != 0x0A}


def visible(text: str) -> str:
    """Write control characters, and bytes of names that are not UTF-8, as Python does: \\x1b, \\u202e."""
    return _encodable(text.translate(_VISIBLE))


def visible_line(text: str) -> str:
    """Write control characters as `visible` does, except tabs."""
    return _encodable(text.translate(_VISIBLE_LINE))


def note(message: str) -> None:
    """Print a message to stderr."""
    _print_error(f"tritone: {message}")


def refuse(message: str) -> NoReturn:
    """Print an error and end the command with exit code 2, for incorrect usage."""
    _print_error(f"tritone: error: {message}")
    raise typer.Exit(2)


def show_warning(message: Warning | str, *_: Any) -> None:
    """Print a warning to stderr, in place of `warnings.showwarning`."""
    note(f"warning: {message}")


def _print_error(message: str) -> None:
    with standard_error():
        typer.echo(_encodable(message.translate(_VISIBLE_LINES)), err=True)


@contextlib.contextmanager
def standard_error() -> Iterator[None]:
    """Ignore that standard error is full or gone: messages are lost then, and results must not be."""
    try:
        yield
    except OSError:
        silence(sys.stderr)


def silence(stream: IO[str] | None) -> None:
    """Send what a standard stream still holds to nowhere; otherwise the interpreter's end fails on it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or not a file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
        os.close(nowhere)


def run_process(app: Callable[[], object]) -> None:
    """Run a command as this process: closed standard streams, interruptions and full disks end it in order.

    The first Ctrl-C or SIGTERM raises KeyboardInterrupt, for an orderly end; the next one kills the process.
    Once the command has ended its files, an interrupted process waits for no thread: one in the midst of a
    long operation would abort it, which prints a traceback.

    Raises:
        SystemExit: exit code of the command, unless it was interrupted: then the process ends with 130 after
            Ctrl-C, 143 after SIGTERM.
    """
    _open_standard_descriptors()
    interrupted = 0  # exit code of the signal that came

    def interrupt(number: int, _: object) -> None:
        nonlocal interrupted
        interrupted = 128 + number
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt

    # Left alone where they are ignored, as SIGINT is in a shell's background jobs.
    for each in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(each) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(each, interrupt)
    try:
        app()
        if sys.stdout is not None:
            sys.stdout.flush()
    except SystemExit as ending:
        if interrupted:
            _leave(interrupted if ending.code == INTERRUPTED else ending.code)
        raise
    except KeyboardInterrupt:
        _leave(interrupted or INTERRUPTED)
    except OSError as error:  # of --help and --version; a run reports its own
        silence(sys.stdout)
        note(f"error: {error.strerror or error}")
        sys.exit(1)
    except Exception:
        if interrupted:  # an import that an interruption broke off may raise another error for it
            _leave(interrupted)
        raise


def _leave(code: str | int | None) -> NoReturn:
    """End the process without the interpreter's own end, which waits for threads or stops them anywhere."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, full, or none
            stream.flush()
    os._exit(code if isinstance(code, int) else INTERRUPTED)


def _open_standard_descriptors() -> None:
    # Otherwise the next file opened, for instance that of the results, would get what libraries print.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free one, which is this


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
