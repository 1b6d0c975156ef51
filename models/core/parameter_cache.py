"""What is made of parameters alone, kept from one call to the next."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Remembered:
    """The outcome of a function of parameters, made again once one of them has changed.

    torch does not count changes of tensors made in inference mode, nor those through `.data`: load such
    weights before the first call. A copy of the module that has it begins empty.
    """

    def __init__(self) -> None:
        self._made: tuple[object, Any] | None = None

    def __call__(self, make: Callable[[], Any], parameters: list[Tensor]) -> Any:
        """`make()`, from before where no parameter has changed since; anew where one needs a gradient."""
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters):
            return make()
        state = [_state(parameter) for parameter in parameters]
        made = self._made
        if made is None or made[0] != state:
            # Outside inference mode, since a later call may need a gradient through it.
            with torch.inference_mode(False), torch.no_grad():
                made = self._made = state, make()
        return made[1]

    def __reduce__(self) -> tuple[type["Remembered"], tuple[()]]:
        return Remembered, ()


def _state(parameter: Tensor) -> tuple[object, ...]:
    version = -1 if parameter.is_inference() else parameter._version
    return parameter.data_ptr(), parameter.dtype, parameter.device, version
