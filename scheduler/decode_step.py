"""One decode step of a batch: a token for every hypothesis in it."""

from typing import Protocol

import torch
from torch import Tensor

from ..kernels.attention.kv_cache import PAGE_SIZE
from .batch import Batch
from .cache.paged_cache import PagedAttention, PagedCache
from .sampling.select import select
from .state import DecodeState


class Decoder(Protocol):
    """The part of a generative model that decodes."""

    def decode(self, token_ids: Tensor, positions: Tensor, attention: PagedAttention) -> Tensor: ...


def decode_batch(model: Decoder, cache: PagedCache, state: DecodeState, batch: Batch) -> None:
    """Choose the next token of every row and write it to the other side of `state`, which does not turn yet.

    Of the state and the cache it touches nothing but what belongs to the batch's requests. Nothing here waits
    for the device, and but for `keeping` all that is launched depends on the batch's shapes, its `longest`,
    its groups' options and the side of `state` alone: see `graphs`.
    """
    lengths = torch.minimum(state.length[batch.rows], batch.places)
    places = lengths.long() - 1
    state.origin[state.side, batch.rows, places] = batch.streams
    pages = batch.self_tables.gather(1, (places // PAGE_SIZE)[:, None])[:, 0].long()
    attention = PagedAttention(
        cache,
        cu_rows=batch.cu_rows,
        lengths=lengths[batch.cu_rows[:-1].long()],
        slots=pages * PAGE_SIZE + places % PAGE_SIZE,
        self_tables=batch.self_tables,
        origin=state.origin[state.side, batch.rows, : batch.longest],
        cross_tables=batch.cross_tables,
        cross_lengths=batch.cross_lengths,
    )
    tokens = state.tokens[state.side, batch.rows, places]
    logits = model.decode(tokens.long(), places, attention)
    # Before the choice, which notes who ends in this step.
    ended = [state.request_done[one.rows[0]].clone() for one, _ in batch.keeping]
    choices = [select(group, logits[group.start : group.end], state, batch.longest) for group in batch.groups]
    if batch.keeping:
        scores = torch.cat([choice.scores for choice in choices])
        for (running, rows), had_ended in zip(batch.keeping, ended, strict=True):
            running.scores.append((had_ended, scores[rows].clone()))
    state.advance(
        batch.rows,
        parents=torch.cat([choice.parents for choice in choices]),
        tokens=torch.cat([choice.tokens for choice in choices]),
        active=torch.cat([choice.active for choice in choices]),
        longest=batch.longest,
    )
