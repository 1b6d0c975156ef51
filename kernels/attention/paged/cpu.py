"""Paged attention on the CPU, by lists of the rows that each head of each query reads.

Two of torch's operations, made for graphs and for recommendations, read rows where they lie, for all
queries in one call and at close to the speed of the memory: `sparse.sampled_addmm` multiplies a query with
the keys of its list, `embedding_bag` sums the values of its list. A call for every request would take longer,
and a copy of its pages longer still.
"""

import math
import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..kv_cache import PAGE_SIZE

with warnings.catch_warnings():
    # Once a process torch warns that CSR tensors are in beta. Here they only carry two lists of numbers.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], [], [], (1, 1), dtype=torch.float32, check_invariants=False)

_STEP = 16  # to a multiple of which a query's scores are padded, so that their sum keeps its order


def paged_attention_cpu(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    block_tables: Tensor,
    lengths: Tensor,
    cu_rows: Tensor,
    *,
    scale: float,
    origin: Tensor | None = None,
) -> Tensor:
    """See `paged_attention`. In float32; pages of other types are converted as a whole first."""
    rows, heads, head_dim = query.shape
    if not rows:
        return torch.empty_like(query)
    lists = _lists_of(block_tables, lengths, cu_rows, origin, heads)
    all_keys, all_values = keys.view(-1, head_dim).float(), values.view(-1, head_dim).float()
    pattern = torch.sparse_csr_tensor(
        lists.offsets,
        lists.rows,
        lists.nothing,
        (rows * heads, all_keys.shape[0]),
        check_invariants=False,
    )
    wide = query.reshape(rows * heads, head_dim).float()
    found = torch.sparse.sampled_addmm(pattern, wide, all_keys.t(), beta=0.0, alpha=scale).values()
    scores = found.new_full((rows * heads, lists.width), -math.inf)
    scores.view(-1)[lists.places] = found
    weights = scores.softmax(-1).view(-1).index_select(0, lists.places)
    out = F.embedding_bag(lists.rows, all_values, lists.offsets[:-1], mode="sum", per_sample_weights=weights)
    return out.view(rows, heads, head_dim).to(query.dtype)


@dataclass(frozen=True, slots=True)
class _Lists:
    """Which rows of a layer's pool, seen as [pages * 16 * heads, head_dim], each head of each query reads.

    Args:
        rows: int32 [total], all lists end to end, in the order of their positions.
        offsets: int32 [queries * heads + 1], where each begins.
        places: int64 [total], where their scores lie in a padded table [queries * heads, width].
        width: of that table.
        nothing: float32 [total], zeros.
    """

    rows: Tensor
    offsets: Tensor
    places: Tensor
    width: int
    nothing: Tensor


# By lengths, then by table: all layers of a step, and the steps between arrivals, ask for the same.
_made: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _lists_of(
    block_tables: Tensor, lengths: Tensor, cu_rows: Tensor, origin: Tensor | None, heads: int
) -> _Lists:
    of_lengths = _made.setdefault(lengths, WeakTensorKeyDictionary())
    table = block_tables if origin is None else origin
    found = of_lengths.get(table)
    if found is None:
        found = _make_lists(block_tables, lengths, cu_rows, origin, heads)
        of_lengths[table] = found
    return found


def _make_lists(
    block_tables: Tensor, lengths: Tensor, cu_rows: Tensor, origin: Tensor | None, heads: int
) -> _Lists:
    counts = cu_rows.diff().long()
    request = torch.repeat_interleave(counts)
    length = lengths[request]
    width = -(-int(length.max()) // _STEP) * _STEP
    position = torch.arange(width)
    inside = position < length[:, None]
    block = (position // PAGE_SIZE).clamp(max=block_tables.shape[1] - 1)
    if origin is None:
        pages = block_tables[request[:, None], block]
    else:
        first = cu_rows[:-1].long()[request]
        whose = first[:, None] + origin[:, position.clamp(max=origin.shape[1] - 1)]
        pages = block_tables[torch.where(inside, whose, 0), block]
    slots = pages.int() * PAGE_SIZE + (position % PAGE_SIZE).int()
    rows = slots[:, None] * heads + torch.arange(heads, dtype=torch.int32)[:, None]  # [queries, heads, width]
    there = inside[:, None].expand(-1, heads, -1)
    offsets = F.pad(length.repeat_interleave(heads).cumsum(0, dtype=torch.int32), (1, 0))
    total = int(offsets[-1])
    return _Lists(rows[there], offsets, there.flatten().nonzero()[:, 0], width, torch.zeros(total))
