"""Paged key-value cache."""

import torch
from torch import Tensor

from ...kernels.attention.kv_cache import PAGE_SIZE, store
from ...kernels.runtime.launch import interpreting


class PagedCache:
    """Paged key-value cache, one pool of pages for self- and cross-attention in every layer.

    Args:
        layers, heads, head_dim: sizes of the decoder.
        num_pages: number of pages in the pool; a page has 16 cache positions, in every layer.
        dtype: dtype of the keys and values; replaced by float32 on a CPU, which computes in that.
        device: device of the pool.
    """

    def __init__(
        self, layers: int, heads: int, head_dim: int, num_pages: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (layers, num_pages, PAGE_SIZE, heads, head_dim)
        if device.type == "cpu" and not interpreting():
            dtype = torch.float32
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    def store_cross(self, key_values: list[tuple[Tensor, Tensor]], positions: Tensor) -> None:
        """Write the cross-attention keys and values [tokens, heads, head_dim] of all layers by `store`."""
        for layer, (key, value) in enumerate(key_values):
            self.store(layer, key, value, positions)

    def store(self, layer: int, key: Tensor, value: Tensor, positions: Tensor) -> None:
        """Write one layer's keys and values [tokens, heads, head_dim] to cache positions, int64 [tokens]."""
        keys, values = self.keys[layer], self.values[layer]
        store(keys, values, key.to(keys.dtype), value.to(values.dtype), positions)

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Copy keys and values of all layers between cache positions, int64 [tokens] each."""
        for pool in (self.keys, self.values):
            flat = pool.flatten(1, 2)
            flat.index_copy_(1, targets, flat.index_select(1, sources))


def cache_positions(pages: tuple[int, ...], length: int) -> Tensor:
    """Cache positions of the first `length` tokens stored in these pages, int64 [length]."""
    starts = torch.tensor(pages, dtype=torch.int64) * PAGE_SIZE
    return (starts[:, None] + torch.arange(PAGE_SIZE)[None]).flatten()[:length]
