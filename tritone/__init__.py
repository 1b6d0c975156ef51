"""Tritone: padding-free, continuously batched speech inference in Python and Triton.

The names below are the public API. They are loaded on first use (PEP 562), so that
`import tritone` and `tritone --help` never import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .models.public import HOMES

__version__ = "0.1.0"

_HOMES = {"Engine": "engine.engine", **{name: f"models.{home}" for name, home in HOMES.items()}}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(
            f"module 'tritone' has no attribute {name!r}; it has: {', '.join(sorted(_HOMES))}"
        )
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from .engine.engine import Engine as Engine
    from .models.public import *  # noqa: F403
