"""Watchdog of a test: a call that hangs is a failure with the stacks of all threads, not a suite in limbo."""

import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Hang(AssertionError):
    """A call did not return in its time; the message holds the stack of every thread."""


def within(seconds: float, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Return what `call` returns, or raise what it raises; Hang after so many seconds.

    The call runs in a daemon thread, which is left behind where it hangs.
    """
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(call(*arguments, **options))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="watched", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise Hang(f"{call!r} has not returned after {seconds} s\n{stacks()}")
    if raised:
        raise raised[0]
    return returned[0]


def stacks() -> str:
    """Stacks of all threads, as text."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(number, number)}:\n{''.join(traceback.format_stack(frame))}"
        for number, frame in sys._current_frames().items()
    )
