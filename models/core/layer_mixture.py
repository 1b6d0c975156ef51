"""Weighted sum of the hidden states of all layers, which classification heads may read."""

from torch import Tensor


class LayerMixture(list[Tensor]):
    """Running weighted sum of hidden states, used in place of a list of them to save memory.

    Args:
        weights: [layers + 1], weights of the hidden states.
        states: list that receives the hidden states too, if given.
    """

    def __init__(self, weights: Tensor, states: list[Tensor] | None = None) -> None:
        super().__init__()
        self._weights = iter(weights)
        self._states = states
        self._sum: Tensor | None = None
        self._last: Tensor | None = None  # not yet in the sum, since a norm may replace it

    def append(self, state: Tensor) -> None:
        """Add the next hidden state to the sum."""
        if self._states is not None:
            self._states.append(state)
        self.skip()
        self._last = state

    def skip(self) -> None:
        """Add the last hidden state again for a skipped layer, whose output is its input."""
        if self._last is not None:
            weighted = self._last * next(self._weights).to(self._last.dtype)
            self._sum = weighted if self._sum is None else self._sum + weighted

    def replace_last(self, state: Tensor) -> None:
        """Replace the last hidden state by its normalization."""
        if self._states is not None:
            self._states[-1] = state
        self._last = state

    def total(self) -> Tensor:
        """Weighted sum of all hidden states, of which there must be one; to be called once, at the end."""
        self.skip()
        assert self._sum is not None
        return self._sum
