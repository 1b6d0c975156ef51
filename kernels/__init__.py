"""Neural network operations, one a file: plain-torch reference, Triton kernel, dispatching function.

`tritone.kernels.use` replaces an operation's implementation; it is imported at its first use, since other
libraries may import this package by the name of its folder.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtime.replacement import use as use


def __getattr__(name: str) -> Any:
    if name == "use":
        from .runtime.replacement import use

        return use
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
