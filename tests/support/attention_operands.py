"""Arguments of the attention operations over packed sequences, in their order."""

from typing import Any

import torch
from kernel_checks import drawn
from torch import Tensor

from tritone.kernels.attention.distance_buckets import Buckets
from tritone.kernels.attention.relative_positions import relative_rows
from tritone.kernels.runtime.packing import cumulative

BOTH = Buckets(8, 20, both_directions=True)


def flash_operands(
    queries: list[int],
    heads: int = 2,
    width: int = 12,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    *,
    keys: list[int] | None = None,
) -> list[Any]:
    """query, key and value [tokens, heads, width], cu_query, cu_key."""
    keys = queries if keys is None else keys
    shapes = [(sum(lengths), heads, width) for lengths in (queries, keys, keys)]
    packed = drawn(*shapes, seed=sum(queries) * 1009 + sum(keys) * 31 + width, dtype=dtype, device=device)
    return [*packed, cumulative(queries, device), cumulative(keys, device)]


def biased_operands(*given: Any, buckets: Buckets = BOTH, **options: Any) -> list[Any]:
    """Those of plain attention, the table of biases [buckets, heads], and its buckets."""
    plain = flash_operands(*given, **options)
    query = plain[0]
    shape = (buckets.count, query.shape[1])
    table = drawn(shape, seed=len(query), dtype=query.dtype, device=str(query.device))
    return [*plain, *table, buckets]


def disentangled_operands(*given: Any, span: tuple[int, int] = (4, 9), **options: Any) -> list[Any]:
    """query, key, value, cu_tokens, the tables of positions, and their row of each distance.

    Args:
        span: buckets, or 0 for a row of each distance, and the farthest distance.
    """
    *packed, cu_tokens, _ = flash_operands(*given, **options)
    query, rows = packed[0], 2 * (span[0] or span[1])
    shape = (rows, *query.shape[1:])
    tables = drawn(shape, shape, seed=len(query), dtype=query.dtype, device=str(query.device))
    return [*packed, cu_tokens, *tables, relative_rows(*span, torch.device("cpu")).to(query.device)]


def relative_operands(*given: Any, limit: int = 400, segmented: bool = True, **options: Any) -> list[Any]:
    """query, key, value, cu_tokens, a key of each distance up to `limit`, biases, and terms of segments."""
    *packed, cu_tokens, _ = flash_operands(*given, **options)
    query = packed[0]
    one = query.shape[1:]
    position_key, content_bias, position_bias, segment_bias, segment_key = drawn(
        (2 * limit + 1, *one), one, one, one, (2, *one), seed=len(query) + limit, dtype=query.dtype
    )
    segments = torch.randint(
        -1, 3, (len(query),), generator=torch.Generator().manual_seed(len(query)), dtype=torch.int32
    )
    terms: list[Tensor | None] = [None, None, None]
    if segmented:
        terms = [segments, segment_bias, segment_key]
    moved = [
        None if term is None else term.to(query.device)
        for term in (position_key, content_bias, position_bias, *terms)
    ]
    return [*packed, cu_tokens, *moved]
