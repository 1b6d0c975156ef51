"""Attention layout of one decode step, shared by all layers of a decoder."""

from dataclasses import dataclass, field

from torch import Tensor

from ...kernels.attention.paged.cpu import GatherPlan
from ...kernels.attention.paged.reference import paged_attention, plan_paged_attention
from ...kernels.attention.projection import NewRows
from .paged_cache import PagedCache


@dataclass(slots=True)
class PageLayout:
    """Page tables that the rows of a batch attend to; the tensors must not change while it is in use."""

    tables: Tensor  # int32 [requests, blocks], or with `origin` [rows, blocks]
    lengths: Tensor  # int32 [requests], positions to attend to
    cu_rows: Tensor  # int32 [requests + 1], the rows of each request
    origin: Tensor | None = None  # int32 [rows, positions], the hypothesis whose page holds a position
    _plan: GatherPlan | None = field(default=None, init=False)

    def plan(self, heads: int, by_heads: bool) -> GatherPlan | None:
        """Gather plan of paged attention on the CPU, built once for all layers; None on other devices."""
        if self._plan is None:
            rows = self.tables, self.lengths, self.cu_rows
            self._plan = plan_paged_attention(*rows, heads, self.origin, by_heads=by_heads)
        return self._plan


@dataclass(frozen=True, slots=True)
class AttentionMetadata:
    """Self- and cross-attention of one decode step: one new token per row, earlier ones in a paged cache."""

    cache: PagedCache  # keys and values of all layers
    positions: Tensor  # int64 [rows], cache positions of the new tokens' keys and values
    own: PageLayout  # tokens of each hypothesis, including the new one
    cross: PageLayout  # encoder output of each request; a batch keeps it until a request joins or leaves

    @property
    def crosses(self) -> bool:
        """Flag for cross-attention, always true: every request has encoder output."""
        return True

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Store the new tokens' keys and values, then attend to all tokens of each hypothesis.

        Query, key, value and the result are [rows, heads, head_dim].
        """
        self.cache.store(layer, key, value, self.positions)
        return self.stored_attention(layer, query, scale)

    def new_rows(self, layer: int) -> NewRows:
        """Pages of one layer, with the cache positions of the new tokens."""
        return NewRows(self.cache.keys[layer], self.cache.values[layer], self.positions)

    def stored_attention(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Attend to all tokens of each hypothesis, once the new ones' keys and values are stored."""
        return self._attend(layer, query, self.own, scale, by_heads=False)

    def cross_attention(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Attend to each request's encoder output; query and result are [rows, heads, head_dim]."""
        return self._attend(layer, query, self.cross, scale, self.cache.cross_by_heads)

    def _attend(self, layer: int, query: Tensor, layout: PageLayout, scale: float, by_heads: bool) -> Tensor:
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        mixed = paged_attention(
            query.to(keys.dtype),
            keys,
            values,
            layout.tables,
            layout.lengths,
            layout.cu_rows,
            scale=scale,
            origin=layout.origin,
            plan=layout.plan(query.shape[1], by_heads),
        )
        return mixed.to(query.dtype)
