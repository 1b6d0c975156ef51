"""Paged attention on the CPU: sparse operations read each query's keys and values in their pages.

Two of torch's operations, made for graphs and for recommendations, read listed rows in place, for all
queries in one call and at close to memory bandwidth: `sparse.sampled_addmm` multiplies a query with the keys
of its list, `embedding_bag` sums the values of its list. A call for every request would take longer, and a
copy of its pages longer still.
"""

import math
import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kv_cache import PAGE_SIZE

with warnings.catch_warnings():
    # torch warns once per process that CSR tensors are in beta. Here they only hold two lists of indices.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], [], [], (1, 1), dtype=torch.float32, check_invariants=False)

_SCORE_BLOCK = 16  # a query's scores are padded to a multiple of it, so that their sum keeps its order


@dataclass(frozen=True, slots=True)
class GatherPlan:
    """Lists of the rows of a layer's page pool that each head of each query reads; valid for all layers.

    The pool is viewed as [pages * 16 * heads, head_dim].
    """

    rows: Tensor  # int32 [total], all lists concatenated, each in the order of positions
    offsets: Tensor  # int32 [queries * heads + 1], the start of each list
    score_index: Tensor  # int64 [total], each score's index in a padded table [queries * heads, width]
    width: int  # of that table
    zeros: Tensor  # float32 [total], unused values of the sparse pattern

    @classmethod
    def of(
        cls,
        block_tables: Tensor,
        lengths: Tensor,
        cu_rows: Tensor,
        heads: int,
        origin: Tensor | None = None,
        *,
        by_heads: bool = False,
    ) -> "GatherPlan":
        """Plan the row lists of a batch with at least one query; arguments as in `plan_paged_attention`."""
        counts = cu_rows.diff().long()
        request = torch.repeat_interleave(counts)
        length = lengths[request]
        width = -(-int(length.max()) // _SCORE_BLOCK) * _SCORE_BLOCK
        position = torch.arange(width)
        valid = position < length[:, None]
        block = (position // PAGE_SIZE).clamp(max=block_tables.shape[1] - 1)
        if by_heads:
            rows = rows_by_heads(block_tables, lengths, heads, width)[request]
        else:
            if origin is None:
                pages = block_tables[request[:, None], block]
            else:
                first = cu_rows[:-1].long()[request]
                table = first[:, None] + origin[:, position.clamp(max=origin.shape[1] - 1)]
                pages = block_tables[torch.where(valid, table, 0), block]
            cache_positions = pages.int() * PAGE_SIZE + (position % PAGE_SIZE).int()
            # [queries, heads, width]
            rows = cache_positions[:, None] * heads + torch.arange(heads, dtype=torch.int32)[:, None]
        mask = valid[:, None].expand(-1, heads, -1)
        offsets = F.pad(length.repeat_interleave(heads).cumsum(0, dtype=torch.int32), (1, 0))
        total = int(offsets[-1])
        return cls(rows[mask], offsets, mask.flatten().nonzero()[:, 0], width, torch.zeros(total))


def rows_by_heads(block_tables: Tensor, lengths: Tensor, heads: int, width: int) -> Tensor:
    """Rows of a page pool, viewed as [pages * 16 * heads, head_dim], where a request's heads lie one by one.

    All positions of the first head fill the request's pages from their beginning, then come those of the
    second. Where pages follow each other, a head is read as one stream, at two to three times the speed of
    rows that lie a position apart.

    Args:
        block_tables: int32 [requests, blocks].
        lengths: int32 [requests], positions, of which a head takes whole pages' worth.
        heads: number of heads.
        width: positions to give rows of; those from the request's length on are without meaning.

    Returns:
        int32 [requests, heads, width].
    """
    span = (lengths.long() + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE
    index = torch.arange(heads)[:, None] * span[:, None, None] + torch.arange(width)
    page_rows = PAGE_SIZE * heads
    block = (index // page_rows).clamp_(max=block_tables.shape[1] - 1)
    pages = block_tables.gather(1, block.flatten(1)).view(index.shape)
    return pages.int() * page_rows + (index % page_rows).int()


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
    plan: GatherPlan | None = None,
) -> Tensor:
    """`paged_attention` on the CPU, in float32; a pool of another dtype is first converted as a whole."""
    rows, heads, head_dim = query.shape
    if not rows:
        return torch.empty_like(query)
    if plan is None:
        plan = GatherPlan.of(block_tables, lengths, cu_rows, heads, origin)
    all_keys, all_values = keys.view(-1, head_dim).float(), values.view(-1, head_dim).float()
    pattern = torch.sparse_csr_tensor(
        plan.offsets, plan.rows, plan.zeros, (rows * heads, all_keys.shape[0]), check_invariants=False
    )
    queries = query.reshape(rows * heads, head_dim).float()
    products = torch.sparse.sampled_addmm(pattern, queries, all_keys.t(), beta=0.0, alpha=scale).values()
    scores = products.new_full((rows * heads, plan.width), -math.inf)
    scores.view(-1)[plan.score_index] = products
    weights = scores.softmax(-1).view(-1).index_select(0, plan.score_index)
    out = F.embedding_bag(plan.rows, all_values, plan.offsets[:-1], mode="sum", per_sample_weights=weights)
    return out.view(rows, heads, head_dim).to(query.dtype)
