"""Attention over packed sequences: teacher-forced decoders, encoders and one-shot models."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import choose
from .packing import aligned, check_cu_seqlens, spans


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    relative: object | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """`softmax(query @ key.T * scale) @ value`, each sequence on its own, in float32 inside.

    Args:
        query: [query tokens, heads, head_dim], packed.
        key, value: [key tokens, heads, head_dim], packed.
        cu_query, cu_key: int32 [n + 1] each; the same n sequences.
        causal: a query sees the keys up to its own place, both ends aligned.
        scale: multiplies the scores; head_dim ** -0.5 by default (GPT-Neo and T5 use 1).
        window: with `causal`, a query sees only its last `window` keys (GPT-Neo's local layers).
        relative: relative terms, for the families that have them.
        dropout: of the attention weights, for training.

    Returns:
        [query tokens, heads, head_dim].

    Raises:
        ValueError: shapes or offsets that do not fit.
        NotImplementedError: relative terms, which no family here uses yet.
    """
    check_cu_seqlens(cu_query, query.shape[0], "cu_query")
    check_cu_seqlens(cu_key, key.shape[0], "cu_key")
    if cu_query.numel() != cu_key.numel():
        raise ValueError(
            f"queries of {cu_query.numel() - 1} sequences, but keys of {cu_key.numel() - 1}; give one of each"
        )
    if key.shape != value.shape or query.shape[1:] != key.shape[1:]:
        raise ValueError(
            f"heads do not fit: query {list(query.shape)}, key {list(key.shape)}, value {list(value.shape)}"
        )
    if relative is not None:
        raise NotImplementedError("relative terms come with the families that need them (T5, XLNet, SEW-D)")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if dropout:
        run = flash_attention_reference
        return run(
            query, key, value, cu_query, cu_key, causal=causal, scale=scale, window=window, dropout=dropout
        )
    run = choose(query, key, value, reference=flash_attention_reference, cpu=flash_attention_cpu)
    return run(query, key, value, cu_query, cu_key, causal=causal, scale=scale, window=window)


def attention_weights(
    query: Tensor,
    key: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    dropout: float = 0.0,
) -> list[Tensor]:
    """The attention weights of each sequence, [heads, queries, keys] float32: half of the specification."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    weights = []
    for (q0, q1), (k0, k1) in zip(spans(cu_query), spans(cu_key), strict=True):
        one, other = aligned(query[q0:q1]).float(), aligned(key[k0:k1]).float()
        scores = torch.einsum("qhd,khd->hqk", one, other) * scale
        if causal:
            scores = scores.masked_fill(~_visible(q1 - q0, k1 - k0, window, scores.device), float("-inf"))
        weights.append(F.dropout(scores.softmax(-1), dropout, dropout > 0))
    return weights


def weighted_values(weights: list[Tensor], value: Tensor, cu_key: Tensor) -> Tensor:
    """The values of each sequence [key tokens, heads, head_dim], mixed by its weights: the other half.

    Args:
        weights: [heads, queries, keys] of each sequence, as `attention_weights` gives them.
        value: [key tokens, heads, head_dim], packed.
        cu_key: int32 [n + 1].

    Returns:
        [query tokens, heads, head_dim], in value's dtype.
    """
    outputs = [
        torch.einsum("hqk,khd->qhd", weight, value[k0:k1].float())
        for weight, (k0, k1) in zip(weights, spans(cu_key), strict=True)
    ]
    return torch.cat(outputs).to(value.dtype) if outputs else torch.empty_like(value)


def flash_attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """The specification, in plain torch: one sequence after the other."""
    weights = attention_weights(
        query, key, cu_query, cu_key, causal=causal, scale=scale, window=window, dropout=dropout
    )
    return weighted_values(weights, value, cu_key)


def flash_attention_cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
) -> Tensor:
    """torch's fused attention, one call a sequence: its blocks then depend on its own length alone."""
    out = torch.empty_like(query)
    for (q0, q1), (k0, k1) in zip(spans(cu_query), spans(cu_key), strict=True):
        if q0 == q1:
            continue
        square = q1 - q0 == k1 - k0 and window is None
        out[q0:q1] = F.scaled_dot_product_attention(
            aligned(query[q0:q1]).transpose(0, 1)[None],
            aligned(key[k0:k1]).transpose(0, 1)[None],
            aligned(value[k0:k1]).transpose(0, 1)[None],
            attn_mask=_visible(q1 - q0, k1 - k0, window, query.device) if causal and not square else None,
            is_causal=causal and square,
            scale=scale,
        )[0].transpose(0, 1)
    return out


def _visible(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """Which keys a causal query sees: bool [queries, keys], the last query seeing up to the last key."""
    places = torch.arange(queries, device=device)[:, None] + (keys - queries)
    others = torch.arange(keys, device=device)[None]
    seen = others <= places
    return seen if window is None else seen & (others > places - window)
