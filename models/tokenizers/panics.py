"""Errors of the `tokenizers` library that are no `Exception`."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_panic(what: str) -> Iterator[None]:
    """Context that turns a panic of the library into a ValueError that names `what`.

    A panic of Rust arrives as `pyo3_runtime.PanicException`, a BaseException, which handlers of errors let
    pass: a thread that meets one would end and leave its callers waiting.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        reason = next(iter(str(error).splitlines()), "no reason given")[:160]
        raise ValueError(f"{what}: the tokenizers library fails ({reason}); fetch its files again") from None
