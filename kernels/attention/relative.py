"""Attention whose scores also depend on how far apart two tokens are and on whether they are of one segment
(Transformer-XL, arXiv 1901.02860): XLNet's (arXiv 1906.08237)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.dispatch import choose
from ..runtime.packing import aligned, check_cu_seqlens, spans
from .flash import weighted_values
from .relative_triton import relative_attention_triton


def relative_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_tokens: Tensor,
    position_key: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    segments: Tensor | None = None,
    segment_bias: Tensor | None = None,
    segment_key: Tensor | None = None,
    *,
    scale: float,
    causal: bool = False,
    window: int | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """`softmax(scores * scale) @ value` within each sequence, in float32 inside.

    The score of a query at place i and a key at place j is

        (query[i] + content_bias) . key[j] + (query[i] + position_bias) . position_key[i - j]
        + (query[i] + segment_bias) . segment_key[0 if segments[i] == segments[j] else 1]

    the last term only where there are segments.

    Args:
        query, key, value: [tokens, heads, head_dim], packed. On a GPU head_dim is at most 128.
        cu_tokens: int32 [n + 1]. Not to be changed in place, as for `flash_attention`.
        position_key: [2 * limit + 1, heads, head_dim], for each `i - j` from -limit to limit; what is farther
            apart has the row of the limit.
        content_bias, position_bias: [heads, head_dim], added to queries before the products.
        segments: int32 [tokens], any numbers; None without the last term.
        segment_bias: [heads, head_dim], with segments.
        segment_key: [2, heads, head_dim], for the same segment and for another one, with segments.
        scale: multiplies the scores, positive.
        causal: a query sees the keys up to its own place.
        window: with `causal`, a query sees only its last `window` keys.
        dropout: of the attention weights, for training.

    Returns:
        [tokens, heads, head_dim].

    Raises:
        ValueError: shapes or offsets that do not fit, a scale that is not positive, or a window without
            `causal` or smaller than 1.
    """
    check_cu_seqlens(cu_tokens, query.shape[0], "cu_tokens")
    if query.dim() != 3 or key.shape != query.shape or value.shape != query.shape:
        raise ValueError(
            "query, key and value must all be [tokens, heads, head_dim], "
            f"got {list(query.shape)}, {list(key.shape)} and {list(value.shape)}"
        )
    _check_terms(query, position_key, content_bias, position_bias, segments, segment_bias, segment_key)
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    if window is not None and (not causal or window < 1):
        raise ValueError(
            f"window is the number of keys, at least 1, that a causal query sees; got {window} with "
            f"causal={causal}; give causal=True with it, or no window to see all keys"
        )
    given = (
        query,
        key,
        value,
        cu_tokens,
        position_key,
        content_bias,
        position_bias,
        segments,
        segment_bias,
        segment_key,
    )
    if dropout:
        return relative_attention_reference(
            *given, scale=scale, causal=causal, window=window, dropout=dropout
        )
    run = choose(
        *given,
        reference=relative_attention_reference,
        cpu=relative_attention_cpu,
        triton=relative_attention_triton,
    )
    return run(*given, scale=scale, causal=causal, window=window)


def _check_terms(
    query: Tensor,
    position_key: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    segments: Tensor | None,
    segment_bias: Tensor | None,
    segment_key: Tensor | None,
) -> None:
    tokens, heads, head_dim = query.shape
    rows = position_key.shape[0] if position_key.dim() else 0
    if position_key.shape[1:] != query.shape[1:] or rows % 2 == 0:
        raise ValueError(
            f"position_key must be [2 * limit + 1, {heads}, {head_dim}], an odd number of rows, "
            f"got {list(position_key.shape)}"
        )
    biases = {"content_bias": content_bias, "position_bias": position_bias}
    if segments is None:
        if segment_bias is not None or segment_key is not None:
            raise ValueError("segment_bias and segment_key are for segments; give all three or none")
    else:
        if segment_bias is None or segment_key is None:
            raise ValueError("segments need segment_bias and segment_key; give all three or none")
        if segments.dtype != torch.int32 or segments.shape != (tokens,):
            raise ValueError(
                f"segments must be int32 [{tokens}], got {segments.dtype} {list(segments.shape)}"
            )
        if segment_key.shape != (2, heads, head_dim):
            raise ValueError(f"segment_key must be [2, {heads}, {head_dim}], got {list(segment_key.shape)}")
        biases["segment_bias"] = segment_bias
    for name, bias in biases.items():
        if bias.shape != (heads, head_dim):
            raise ValueError(f"{name} must be [{heads}, {head_dim}], got {list(bias.shape)}")


def relative_weights(
    query: Tensor,
    key: Tensor,
    cu_tokens: Tensor,
    position_key: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    segments: Tensor | None = None,
    segment_bias: Tensor | None = None,
    segment_key: Tensor | None = None,
    *,
    scale: float,
    causal: bool = False,
    window: int | None = None,
    dropout: float = 0.0,
) -> list[Tensor]:
    """The attention weights of each sequence, [heads, queries, keys] in float32 at least: half of the
    specification."""
    wide = torch.promote_types(query.dtype, torch.float32)
    limit = position_key.shape[0] // 2
    weights = []
    for start, end in spans(cu_tokens):
        one, other = aligned(query[start:end]).to(wide), aligned(key[start:end]).to(wide)
        place = torch.arange(end - start, device=query.device)
        distance = place[:, None] - place
        # No more rows than the sequence reads, so that sums do not depend on how many the table has.
        own = min(limit, max(end - start - 1, 0))
        near = position_key[limit - own : limit + own + 1].to(wide)
        rows = (distance.clamp(-own, own) + own).expand(query.shape[1], -1, -1)
        scores = torch.einsum("qhd,khd->hqk", one + content_bias.to(wide), other)
        products = torch.einsum("qhd,phd->hqp", one + position_bias.to(wide), near)
        scores = scores + products.gather(2, rows)
        if segments is not None and segment_bias is not None and segment_key is not None:
            products = torch.einsum("qhd,shd->hqs", one + segment_bias.to(wide), segment_key.to(wide))
            mine = segments[start:end]
            apart = mine[:, None] != mine
            scores = scores + torch.where(apart, products[:, :, 1:], products[:, :, :1])
        if causal:
            scores = scores.masked_fill(_unseen(distance, window), -math.inf)
        weights.append(F.dropout((scores * scale).softmax(-1), dropout, dropout > 0))
    return weights


def _unseen(distance: Tensor, window: int | None) -> Tensor:
    """Which keys a causal query does not see, by how far before it they are."""
    later = distance < 0
    return later if window is None else later | (distance >= window)


def relative_attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_tokens: Tensor,
    *terms: Tensor | None,
    scale: float,
    causal: bool = False,
    window: int | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """The specification, in plain torch: one sequence after the other; `terms` as in `relative_attention`."""
    weights = relative_weights(
        query,
        key,
        cu_tokens,
        *terms,  # type: ignore[arg-type]  # the first three are tensors
        scale=scale,
        causal=causal,
        window=window,
        dropout=dropout,
    )
    return weighted_values(weights, value, cu_tokens)


def relative_attention_cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_tokens: Tensor,
    position_key: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    segments: Tensor | None = None,
    segment_bias: Tensor | None = None,
    segment_key: Tensor | None = None,
    *,
    scale: float,
    causal: bool = False,
    window: int | None = None,
) -> Tensor:
    """One sequence after the other: the order of its sums then depends on its own length alone."""
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    table = _by_heads(position_key)
    biases = [_by_heads(bias[None]) for bias in (content_bias, position_bias)]
    for_segments = None
    if segment_bias is not None and segment_key is not None:
        for_segments = _by_heads(segment_bias[None]), _by_heads(segment_key)
    for start, end in spans(cu_tokens):
        if start == end:
            continue
        one, other, mixed = (_by_heads(aligned(tensor[start:end])) for tensor in (query, key, value))
        place = torch.arange(end - start)
        unseen = _unseen(place[:, None] - place, window) if causal else None
        together = max(1, _CELLS // (end - start) ** 2)
        for head in range(0, query.shape[1], together):
            some = slice(head, head + together)
            for_content, for_positions = (one[some] + bias[some] for bias in biases)
            scores = torch.bmm(for_content, other[some].transpose(1, 2))
            _add_positions(scores, for_positions, table[some])
            if segments is not None and for_segments is not None:
                bias, keys = for_segments
                terms = torch.bmm(one[some] + bias[some], keys[some].transpose(1, 2))
                mine = segments[start:end]
                scores += torch.where(mine[:, None] != mine, terms[:, :, 1:], terms[:, :, :1])
            scores *= scale
            if unseen is not None:
                scores.masked_fill_(unseen, -math.inf)
            values = torch.bmm(torch.softmax(scores, -1, out=scores), mixed[some])
            out[start:end, some] = values.transpose(0, 1)
    return out


_CELLS = 1 << 20  # scores at a time, of several heads where sequences are short: 4 MB
_BLOCK = 128  # queries whose products with the positions are made at a time


def _by_heads(tensor: Tensor) -> Tensor:
    """[tokens, heads, head_dim] to [heads, tokens, head_dim], contiguous, in float32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).transpose(0, 1).contiguous()


def _add_positions(scores: Tensor, query: Tensor, table: Tensor) -> None:
    """Add the products of one sequence's queries with its positions to `scores` [heads, tokens, tokens].

    The distances from one query to all keys are neighbors, and the next query's are one further: a product
    of a block of queries with the rows of all its distances is read along its diagonals.

    Args:
        query: [heads, tokens, head_dim], with its bias.
        table: [heads, 2 * limit + 1, head_dim].
    """
    heads, tokens, _ = query.shape
    limit = table.shape[1] // 2
    for begin in range(0, tokens, _BLOCK):
        block = min(_BLOCK, tokens - begin)
        distances = begin + block - 1 - torch.arange(tokens + block - 1)  # of the block's last query first
        near = table[:, distances.clamp(-limit, limit) + limit]
        products = torch.bmm(query[:, begin : begin + block], near.transpose(1, 2))
        width = products.shape[2]
        scores[:, begin : begin + block] += products.as_strided(
            (heads, block, tokens), (block * width, width - 1, 1), storage_offset=block - 1
        )
