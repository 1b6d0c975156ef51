"""Decode step of a batch: one new token for every hypothesis."""

import torch
from torch import Tensor

from ..kernels.sampling.step_inputs import step_inputs
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
    are the same each time. Kernel launches depend only on the batch's shapes, its `longest` and
    `keep_scores`, its groups' rules and the buffer of `state`, so that `DecodeGraphs` can record them.

    Returns:
        Scores of all rows after the rules, float32 [rows, vocabulary], if the batch keeps them.
    """
    current = state.current
    rows = batch.slots, batch.capacity, batch.sequence_index, batch.self_tables
    requests = batch.cu_own if batch.searches else None
    inputs = step_inputs(current.tokens, current.length, current.origin, *rows, requests, batch.longest)
    lengths = inputs.lengths if inputs.request_lengths is None else inputs.request_lengths
    own = PageLayout(batch.self_tables, lengths, batch.cu_own, inputs.origins)
    attention = AttentionMetadata(cache, inputs.cache_positions, own, batch.cross)
    logits = model.decode(inputs.tokens, inputs.positions, attention)
    chosen = [select(group, logits[group.rows], state, batch.longest) for group in batch.groups]
    if not batch.keep_scores:
        return None
    return torch.cat([one.final() for one in chosen])
