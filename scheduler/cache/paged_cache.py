"""Paged key-value cache."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...kernels.attention.kv_cache import PAGE_SIZE, store, store_layers
from ...kernels.attention.paged.cpu import rows_by_heads
from ...kernels.runtime.launch import interpreting


class PagedCache:
    """Paged key-value cache, one pool of pages for self- and cross-attention in every layer.

    Args:
        layers, heads, head_dim: sizes of the decoder.
        num_pages: number of pages in the pool; a page has 16 cache positions, in every layer.
        dtype: dtype of the keys and values; replaced by float32 on a CPU, which computes in that.
        device: device of the pool.

    Attributes:
        cross_by_heads: True on a CPU, whose pages of cross-attention hold one head after the other, since it
            reads them so (`rows_by_heads`); all other pages hold one position after the other.
    """

    def __init__(
        self, layers: int, heads: int, head_dim: int, num_pages: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (layers, num_pages, PAGE_SIZE, heads, head_dim)
        self.cross_by_heads = device.type == "cpu" and not interpreting()
        if self.cross_by_heads:
            dtype = torch.float32
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    def cross_positions(self, owned: Sequence[tuple[npt.NDArray[np.int32], int]]) -> Tensor:
        """Places of packed encoder outputs for `store_cross`, on the CPU.

        Args:
            owned: each request's pages for cross-attention, and its number of encoder positions.

        Returns:
            int64 [tokens], cache positions, or [tokens * heads], rows of the pool, with `cross_by_heads`.
        """
        if not self.cross_by_heads:
            return cache_positions(owned)
        heads = self.keys.shape[3]
        places = [
            rows_by_heads(torch.from_numpy(pages)[None], torch.tensor([length]), heads, length)[0].t()
            for pages, length in owned
        ]
        return torch.cat(places).flatten().long()

    def store_cross(self, key_values: list[tuple[Tensor, Tensor]], positions: Tensor) -> None:
        """Write the cross-attention keys and values [tokens, heads, head_dim] of all layers.

        Args:
            key_values: keys and values of each layer.
            positions: result of `cross_positions`, on the cache's device.
        """
        dtype, keys, values = self.keys.dtype, self.keys, self.values
        rows = [(key.to(dtype), value.to(dtype)) for key, value in key_values]
        if self.cross_by_heads:  # a head of a position has its own place, as if there were one head
            layers, _, _, _, head_dim = self.keys.shape
            keys, values = (pool.view(layers, -1, PAGE_SIZE, 1, head_dim) for pool in (keys, values))
            rows = [(key.reshape(-1, 1, head_dim), value.reshape(-1, 1, head_dim)) for key, value in rows]
        store_layers(keys, values, rows, positions)

    def store(self, layer: int, key: Tensor, value: Tensor, positions: Tensor) -> None:
        """Write one layer's keys and values [tokens, heads, head_dim] to cache positions, int64 [tokens]."""
        keys, values = self.keys[layer], self.values[layer]
        store(keys, values, key.to(keys.dtype), value.to(values.dtype), positions)

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Copy keys and values of all layers between cache positions, int64 [tokens] each."""
        for pool in (self.keys, self.values):
            flat = pool.flatten(1, 2)
            flat.index_copy_(1, targets, flat.index_select(1, sources))


def cache_positions(owned: Sequence[tuple[npt.NDArray[np.int32], int]]) -> Tensor:
    """Cache positions of packed sequences, int64 [tokens], each with its pages and its number of tokens."""
    pages = np.concatenate([pages for pages, _ in owned]).astype(np.int64)
    positions = (pages[:, None] * PAGE_SIZE + np.arange(PAGE_SIZE)).ravel()
    # A last page need not be full.
    kept = np.concatenate([np.arange(len(pages) * PAGE_SIZE) < length for pages, length in owned])
    return torch.from_numpy(positions[kept])
