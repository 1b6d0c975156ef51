"""Cache of values derived from tensors: weights in another layout, tile schedules of packed offsets."""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar
from weakref import ref

import torch
from torch import Tensor

T = TypeVar("T")

# By function, identities of the tensors and options: references to the tensors, their state, and the value.
# An entry goes with the first of its tensors that dies. torch's own dictionary takes 1 µs for each tensor.
_entries: dict[Hashable, tuple[list[Any], Hashable, Any]] = {}


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
    key: Hashable
    if len(weights) == 1:  # the usual case, at every linear layer of a step
        state, key = _state(weights[0]), (make, id(weights[0]), *options.items())
    else:
        state = tuple([_state(weight) for weight in weights])
        key = (make, *map(id, weights), *options.items())
    entry = _entries.get(key)
    if entry is not None and entry[1] == state and _alive(entry[0], weights):
        return entry[2]  # type: ignore[no-any-return]
    # Outside inference mode, since a later call may need a gradient through the value.
    with torch.inference_mode(False), torch.no_grad():
        value = make(*weights, **options)
    forget = partial(_forget, key)
    _entries[key] = [ref(weight, forget) for weight in weights], state, value
    return value


def _alive(references: list[Any], weights: tuple[Tensor, ...]) -> bool:
    """True if an entry is of these tensors, not of others that had their identities before."""
    if len(weights) == 1:
        return references[0]() is weights[0]
    return all(reference() is weight for reference, weight in zip(references, weights, strict=True))


def _forget(key: Hashable, reference: Any) -> None:
    if _entries is None:  # at the interpreter's end, which clears names of modules
        return
    entry = _entries.get(key)
    if entry is not None and any(reference is own for own in entry[0]):
        del _entries[key]


def _state(tensor: Tensor) -> Hashable:
    version = -1 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), tensor.dtype, tensor.device, version
