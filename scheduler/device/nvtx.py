"""NVTX ranges around the phases of a step, for Nsight Systems: on with TRITONE_NVTX=1 in the environment."""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch

_F = TypeVar("_F", bound=Callable[..., Any])

ENABLED = os.environ.get("TRITONE_NVTX", "0") not in ("", "0")


def marked(name: str, enabled: bool | None = None) -> Callable[[_F], _F]:
    """Decorator that puts a function's calls into an NVTX range, and leaves it as it is where ranges are off.

    Args:
        name: name of the range.
        enabled: None for the environment's choice at import.
    """

    def decorate(function: _F) -> _F:
        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            torch.cuda.nvtx.range_push(name)
            try:
                return function(*arguments, **options)
            finally:
                torch.cuda.nvtx.range_pop()

        return cast(_F, call) if (ENABLED if enabled is None else enabled) else function

    return decorate
