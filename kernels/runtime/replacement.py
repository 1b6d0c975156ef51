"""Replacement of an operation's implementation by a function of the user's, for experiments with kernels."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .dispatch import OPERATIONS


@dataclass(slots=True)
class Replacement:
    """Replacement in use: name of the operation, and number of calls that its function has answered."""

    name: str
    calls: int = 0


@contextmanager
def use(name: str, function: Callable[..., Any]) -> Iterator[Replacement]:
    """Context manager in which an operation calls `function`, in all threads.

        with tritone.kernels.use("layer_norm", my_layer_norm), tritone.Engine(model) as engine: ...

    The function has the arguments of the operation's reference, and gets tensors of a GPU or of the CPU; it
    returns NotImplemented for a call to leave to the shipped implementation. Gradients still go through the
    reference. An engine records its steps, so it is made inside the context.

    Args:
        name: operation, as its function is called: "layer_norm", "linear", "flash_attention".
        function: implementation.

    Raises:
        ValueError: no operation has that name.
    """
    operation = _operation(name)
    shipped = operation.cpu, operation.triton
    replacement = Replacement(name)

    def replacing(other: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            out = function(*arguments, **options)
            if out is NotImplemented:
                return other(*arguments, **options)
            replacement.calls += 1
            return out

        return call

    operation.cpu = replacing(operation.cpu or operation.reference)
    operation.triton = replacing(operation.triton or operation.reference)
    try:
        yield replacement
    finally:
        operation.cpu, operation.triton = shipped


def _operation(name: str) -> Any:
    """The operation of a name, importing all modules of operations if it is not there yet."""
    if name not in OPERATIONS:
        package = importlib.import_module("..", __package__)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    if name not in OPERATIONS:
        raise ValueError(f"no operation is called {name!r}; there are {', '.join(sorted(OPERATIONS))}")
    return OPERATIONS[name]
