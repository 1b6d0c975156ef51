"""Tritone: padding-free, continuously batched speech inference in Python and Triton.

The public names are loaded on first use (PEP 562), so that `import tritone` and `tritone --help` never
import torch.
"""

import logging
from importlib import import_module
from typing import Any

from .names import HOMES

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that wants the log adds its own

__version__ = "0.1.0"

__all__ = ["__version__", *HOMES]


def __getattr__(name: str) -> Any:
    home = HOMES.get(name)
    if home is None:
        raise AttributeError(
            f"module 'tritone' has no attribute {name!r}; it has: {', '.join(sorted(HOMES))}"
        )
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
