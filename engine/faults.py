"""Faults that are no `Exception`, turned into errors that a result can hold."""

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
_WITHOUT_MESSAGE = RuntimeError("a library has stopped, and memory or a message is lacking to say how")


def as_error(raised: BaseException) -> Exception:
    """Error to report for anything raised: an exception itself, else a RuntimeError that names it.

    Libraries written in Rust, such as tokenizers, raise a BaseException where they panic. A StopIteration
    would end the iterator that raises it.
    """
    if isinstance(raised, Exception) and not isinstance(raised, StopIteration):
        return raised
    try:
        error = RuntimeError(
            f"a library has stopped with {type(raised).__name__} ({raised}); if a checkpoint's files may be "
            "damaged, fetch them again"
        )
        error.__cause__ = raised
    except BaseException:  # the message itself cannot be made
        return _WITHOUT_MESSAGE
    return error


def attempt(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in the user's thread; a fault is raised as an error, but interrupts and exits are not.

    Raises:
        Exception: the error of the function, or of `as_error` for what it raised.
    """
    try:
        return function(*arguments)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as raised:
        raise as_error(raised)  # noqa: B904 -- it has its cause
