"""Training for tests: steps of Adam, and checks of where dropout is drawn.

Tests import this as `training`: pyproject.toml puts tests/support on their path.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter


def train(
    parameters: Iterable[Parameter], loss: Callable[[], Tensor], *, steps: int, lr: float
) -> list[float]:
    """Take steps of Adam down a loss that is computed anew before each; returns the losses."""
    optimizer = torch.optim.Adam(parameters, lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def assert_each_dropout_draws(
    build: Callable[..., Any], run: Callable[[Any], Tensor], names: Iterable[str]
) -> None:
    """Check that each named probability alone changes the output in training, and at 0 none does.

    Args:
        build: makes a model in evaluation mode of fields of its configuration.
        run: the model's output for one input.
    """
    nothing = dict.fromkeys(names, 0.0)
    usual = run(build(**nothing))
    torch.testing.assert_close(run(build(**nothing).train()), usual)
    for name in nothing:
        model = build(**{**nothing, name: 0.5})
        assert torch.equal(run(model), usual), f"{name} is drawn in evaluation"
        assert not torch.allclose(run(model.train()), usual), f"{name} is not drawn in training"


def assert_every_weight_learns(model: torch.nn.Module, unused: tuple[str, ...] = ()) -> None:
    """Check that a backward pass reached every weight but those that the model does not read.

    Args:
        unused: parts of names of parameters that may have no gradient.
    """
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            assert any(part in name for part in unused), name
        else:
            # The keys' bias changes nothing: softmax takes it away again.
            zero = name.endswith(("k_proj.bias", "key_proj.bias"))
            assert zero or bool(parameter.grad.abs().max() > 0), name
