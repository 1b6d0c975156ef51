"""Faults that are no `Exception`, turned into errors that a result can hold."""

from collections.abc import Iterator
from contextlib import contextmanager


def as_error(raised: BaseException) -> Exception:
    """Error to report for anything raised: an exception itself, else a RuntimeError that names it.

    Libraries written in Rust, such as tokenizers, raise a BaseException where they panic.
    """
    if isinstance(raised, Exception):
        return raised
    error = RuntimeError(f"a {type(raised).__name__} was raised: {raised}")
    error.__cause__ = raised
    return error


@contextmanager
def faults_as_errors() -> Iterator[None]:
    """Context of a call in the user's thread: raises faults as errors, but leaves interrupts and exits be."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as raised:
        raise as_error(raised) from raised
