"""The paged cache of keys and values, and how one decode step sees it."""

from typing import Any

import torch
from torch import Tensor

from ...kernels.attention.kv_cache import PAGE_SIZE, store
from ...kernels.attention.paged.reference import paged_attention
from ...kernels.runtime.launch import interpreting


class PagedCache:
    """One pool of pages for self- and cross-attention of every layer.

    Args:
        layers, heads, head_dim: of the decoder.
        num_pages: pages in the pool; a page is 16 rows of keys and values in every layer.
        dtype: of the keys and values; on a processor, which computes with them in float32, that.
        device: where they lie.
    """

    def __init__(
        self, layers: int, heads: int, head_dim: int, num_pages: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (layers, num_pages, PAGE_SIZE, heads, head_dim)
        if device.type == "cpu" and not interpreting():
            dtype = torch.float32
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    def store_cross(self, key_values: list[tuple[Tensor, Tensor]], slots: Tensor) -> None:
        """Write each layer's cross-attention keys and values [tokens, heads, head_dim] to `slots`."""
        for layer, (key, value) in enumerate(key_values):
            self.store(layer, key, value, slots)

    def store(self, layer: int, key: Tensor, value: Tensor, slots: Tensor) -> None:
        """Write one layer's keys and values [tokens, heads, head_dim] to `slots`."""
        keys, values = self.keys[layer], self.values[layer]
        store(keys, values, key.to(keys.dtype), value.to(values.dtype), slots)

    def attend(self, layer: int, query: Tensor, *where: Tensor, **options: Any) -> Tensor:
        """`paged_attention` over one layer, in the query's dtype; the rest of its arguments as there."""
        keys, values = self.keys[layer], self.values[layer]
        return paged_attention(query.to(keys.dtype), keys, values, *where, **options).to(query.dtype)


class PagedAttention:
    """The attention layout of one decode step: one new token a row, everything before it in pages.

    Args:
        cache: the pool.
        cu_rows: int32 [requests + 1], which rows are a request's.
        lengths: int32 [requests], tokens of a hypothesis, the new one counted.
        slots: int64 [rows], where the new token's keys and values go.
        self_tables: int32 [rows, blocks], each hypothesis' own pages.
        origin: int32 [rows, positions], whose page holds which position, see `paged_attention`.
        cross_tables: int32 [requests, blocks].
        cross_lengths: int32 [requests].
    """

    crosses = True  # every request has encoder output

    def __init__(
        self,
        cache: PagedCache,
        cu_rows: Tensor,
        lengths: Tensor,
        slots: Tensor,
        self_tables: Tensor,
        origin: Tensor,
        cross_tables: Tensor,
        cross_lengths: Tensor,
    ) -> None:
        self.cache = cache
        self.cu_rows = cu_rows
        self.lengths = lengths
        self.slots = slots
        self.self_tables = self_tables
        self.origin = origin
        self.cross_tables = cross_tables
        self.cross_lengths = cross_lengths

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Store the new token's key and value, then attend to all of the hypothesis' tokens."""
        self.cache.store(layer, key, value, self.slots)
        where = self.self_tables, self.lengths, self.cu_rows
        return self.cache.attend(layer, query, *where, scale=scale, origin=self.origin)

    def cross_attention(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Attend to the request's encoder tokens."""
        where = self.cross_tables, self.cross_lengths, self.cu_rows
        return self.cache.attend(layer, query, *where, scale=scale)


def slots_of(pages: tuple[int, ...], length: int) -> Tensor:
    """The first `length` slots of these pages: int64 [length]."""
    starts = torch.tensor(pages, dtype=torch.int64) * PAGE_SIZE
    return (starts[:, None] + torch.arange(PAGE_SIZE)[None]).flatten()[:length]
