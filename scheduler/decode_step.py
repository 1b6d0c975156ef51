"""Decode step of a batch: one new token for every hypothesis."""

import torch

from ..kernels.attention.kv_cache import PAGE_SIZE
from .batch import Batch
from .cache.attention_metadata import AttentionMetadata, PageLayout
from .cache.paged_cache import PagedCache
from .model_protocol import GenerativeModel
from .sampling.select import select
from .state import DecodeState


def decode_batch(model: GenerativeModel, cache: PagedCache, state: DecodeState, batch: Batch) -> None:
    """Decode the next token of every row and write it to the other buffer of `state`, without swapping.

    Only the slots and pages of the batch's requests are touched, and the device is never waited for. Except
    for `keep_scores`, kernel launches depend only on the batch's shapes, its `longest`, its groups' rules and
    the buffer of `state`, so that `DecodeGraphs` can record them.
    """
    cu_rows = batch.cross.cu_rows
    lengths = torch.minimum(state.length[batch.slots], batch.capacity)
    positions = lengths.long() - 1
    state.origin[state.buffer, batch.slots, positions] = batch.sequence_index
    pages = batch.self_tables.gather(1, (positions // PAGE_SIZE)[:, None])[:, 0].long()
    attention = AttentionMetadata(
        cache,
        positions=pages * PAGE_SIZE + positions % PAGE_SIZE,
        own=PageLayout(
            batch.self_tables,
            lengths=lengths[cu_rows[:-1].long()],
            cu_rows=cu_rows,
            origin=state.origin[state.buffer, batch.slots, : batch.longest],
        ),
        cross=batch.cross,
    )
    tokens = state.tokens[state.buffer, batch.slots, positions]
    logits = model.decode(tokens.long(), positions, attention)
    # Copied before the selection, which marks the requests that end in this step.
    ended = [state.request_done[one.admission.slots[0]].clone() for one, _ in batch.keep_scores]
    chosen = [select(group, logits[group.rows], state, batch.longest) for group in batch.groups]
    if batch.keep_scores:
        scores = torch.cat([next_tokens.scores for next_tokens in chosen])
        for (running, rows), had_ended in zip(batch.keep_scores, ended, strict=True):
            running.scores.append((had_ended, scores[rows].clone()))
    state.advance(
        batch.slots,
        parents=torch.cat([next_tokens.parents for next_tokens in chosen]),
        tokens=torch.cat([next_tokens.tokens for next_tokens in chosen]),
        active=torch.cat([next_tokens.active for next_tokens in chosen]),
        longest=batch.longest,
    )
