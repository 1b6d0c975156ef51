"""Optimization of the training scripts: the learning rate's course and a running average of the weights."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def schedule(step: int, steps: int) -> float:
    """The share of the peak learning rate: a rise over the first tenth, then half a cosine."""
    warm = max(1, steps // 10)
    return (
        step / warm
        if step < warm
        else 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))
    )


def first_average(model: nn.Module) -> dict[str, Tensor]:
    """The average before the first step."""
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@torch.no_grad()
def update_average(average: dict[str, Tensor], model: nn.Module, step: int) -> None:
    """A running average of the weights over about 100 steps."""
    for name, value in model.named_parameters():
        average[name].lerp_(value, max(0.01, 1 / (step + 1)))


def averaged(model: Model, average: dict[str, Tensor]) -> Model:
    """A copy of the model that holds the average, in evaluation mode."""
    shipped = copy.deepcopy(model)
    shipped.load_state_dict(average, strict=False)
    return shipped.eval()
