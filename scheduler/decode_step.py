"""Decode step of a batch: one new token for every hypothesis."""

import torch
from torch import Tensor

from ..kernels.attention.kv_cache import PAGE_SIZE
from .cache.attention_metadata import AttentionMetadata, PageLayout
from .cache.paged_cache import PagedCache
from .model_protocol import GenerativeModel
from .sampling.select import select
from .slot_tables import BatchTensors
from .state import DecodeState


def decode_batch(
    model: GenerativeModel, cache: PagedCache, state: DecodeState, batch: BatchTensors
) -> Tensor | None:
    """Decode the next token of every row and write it to the other buffer of `state`, without swapping.

    Only the slots and pages of the batch's requests are touched, and the device is never waited for. A call
    that failed may be repeated, also in other batches, before the swap: a row's new keys, values and origin
    are the same each time. Kernel launches depend only on the batch's shapes, its `longest` and `keep_scores`,
    its groups' rules and the buffer of `state`, so that `DecodeGraphs` can record them.

    Returns:
        Scores of all rows after the rules of the options, float32 [rows, vocabulary], if the batch keeps them.
    """
    current, cu_rows = state.current, batch.cross.cu_rows
    lengths = torch.minimum(current.length[batch.slots], batch.capacity)
    positions = lengths.long() - 1
    current.origin[batch.slots, positions] = batch.sequence_index
    pages = batch.self_tables.gather(1, (positions // PAGE_SIZE)[:, None])[:, 0].long()
    attention = AttentionMetadata(
        cache,
        positions=pages * PAGE_SIZE + positions % PAGE_SIZE,
        own=PageLayout(
            batch.self_tables,
            lengths=lengths[cu_rows[:-1].long()],
            cu_rows=cu_rows,
            origin=current.origin[batch.slots, : batch.longest],
        ),
        cross=batch.cross,
    )
    tokens = current.tokens[batch.slots, positions]
    logits = model.decode(tokens.long(), positions, attention)
    chosen = [select(group, logits[group.rows], state, batch.longest) for group in batch.groups]
    state.advance(
        batch.slots,
        parents=torch.cat([next_tokens.parents for next_tokens in chosen]),
        tokens=torch.cat([next_tokens.tokens for next_tokens in chosen]),
        active=torch.cat([next_tokens.active for next_tokens in chosen]),
        longest=batch.longest,
    )
    if not batch.keep_scores:
        return None
    return torch.cat([next_tokens.scores for next_tokens in chosen])
