"""What operations make of a weight once and keep: its numbers in another order or layout."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

# Of each weight: what tells whether it has changed since, and what was made of it, by the function.
_made: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def kept(weight: Tensor, make: Callable[[Tensor], Any]) -> Any:
    """`make(weight)`, made once as long as the weight lives and is neither replaced nor changed in place.

    torch does not count changes of tensors made in inference mode, nor those through `.data`: load such
    weights before the first call.

    Args:
        weight: the key; not kept alive.
        make: gives a copy and never a view, which would keep the weight alive.
    """
    state = (weight.data_ptr(), weight.dtype, weight.device, -1 if weight.is_inference() else weight._version)
    before, made = _made.get(weight, (None, None))
    if before != state:
        made = {}
        _made[weight] = state, made
    if make not in made:
        made[make] = make(weight)
    return made[make]
