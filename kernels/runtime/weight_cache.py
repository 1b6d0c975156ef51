"""Cache of values derived from tensors: weights in another layout, tile schedules of packed offsets."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

T = TypeVar("T")


class _Node:
    """Cached values derived from one list of tensors, and nodes of longer lists that begin with it."""

    __slots__ = ("longer", "values")

    def __init__(self) -> None:
        self.longer = WeakTensorKeyDictionary()
        self.values: dict[Hashable, tuple[Hashable, Any]] = {}  # by function: state of the tensors, value


_nodes = WeakTensorKeyDictionary()  # by the first tensor of a list


def cached(make: Callable[..., T], *weights: Tensor, **options: Hashable) -> T:
    """Result of `make(*weights, **options)`, cached while the weights live and are not changed in place.

    Recomputed at each call where a gradient may be wanted. Copies of a module share no results. torch does
    not count changes of tensors made in inference mode, nor those through `.data`: load such weights before
    the first call.

    Args:
        make: pure function. Its result must not be a view of a weight, which would keep that weight alive.
        weights: at least one tensor; the cache does not keep them alive.
        options: further arguments, part of the key.
    """
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
        return make(*weights, **options)
    state: Hashable
    node = _nodes.get(weights[0]) or _nodes.setdefault(weights[0], _Node())
    if len(weights) == 1:  # the usual case, at every linear layer of a step
        state = _state(weights[0])
    else:
        state = tuple([_state(weight) for weight in weights])
        for weight in weights[1:]:
            node = node.longer.setdefault(weight, _Node())
    key = (make, *options.items()) if options else make
    before, value = node.values.get(key, (None, None))
    if before != state:
        # Outside inference mode, since a later call may need a gradient through the value.
        with torch.inference_mode(False), torch.no_grad():
            value = make(*weights, **options)
        node.values[key] = state, value
    return value  # type: ignore[no-any-return]


def _state(tensor: Tensor) -> Hashable:
    version = -1 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), tensor.dtype, tensor.device, version
