"""Attention over packed sequences, for encoders, teacher-forced decoders and encoder-only models."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import kernel
from ..runtime.optional_triton import tl
from ..runtime.packing import aligned, spans
from .checks import check_packed, check_scale_and_window
from .flash_cpu import LONG, attention_by_products, products_pay
from .tiles import (
    LOG2_E,
    NO_WINDOW,
    declare_heads,
    first_element,
    launch_heads,
    load_keys,
    read_block,
    softmax_begin,
    softmax_step,
    softmax_store,
    tile_mask,
    tile_offsets,
)


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
    """Attention of each packed sequence, `softmax(query @ key.T * scale) @ value`, summed in float32.

    A query that sees no key (there are none, or with `causal` fewer keys than queries) gets zeros.

    Args:
        query: [query tokens, heads, head_dim], packed. On a GPU head_dim is at most 128.
        key, value: [key tokens, heads, head_dim], packed.
        cu_query, cu_key: int32 [n + 1] each, of the same n sequences; never changed in place: a launch's
            tile schedule is cached by them, for the layers that follow.
        causal: a query sees the keys up to its own position; the last query has that of the last key.
        scale: positive factor of the scores; head_dim ** -0.5 by default (GPT-Neo and T5 use 1).
        window: with `causal`, a query sees only its last `window` keys (GPT-Neo's local layers).
        relative: must be None; the error names the operations with relative positions.
        dropout: dropout probability of the attention weights, for training.

    Returns:
        [query tokens, heads, head_dim].

    Raises:
        ValueError: shapes or offsets that do not match, a scale that is not positive, a window without
            `causal` or smaller than 1.
        NotImplementedError: a value of `relative`.
    """
    check_packed(query, key, value, cu_query, cu_key)
    if relative is not None:
        raise NotImplementedError(
            "flash_attention has no relative terms: use biased_attention (T5), relative_attention (XLNet) "
            "or disentangled_attention (SEW-D) of tritone.kernels.attention"
        )
    if scale is not None or window is not None:
        check_scale_and_window(1.0 if scale is None else scale, window, causal)
    options: dict[str, Any] = {"causal": causal, "scale": scale, "window": window}
    if dropout:
        options["dropout"] = dropout
    return _flash_attention(query, key, value, cu_query, cu_key, **options)


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
    """Attention weights [heads, queries, keys] of each sequence, in float32.

    First step of `flash_attention_reference`.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    weights = []
    for (q0, q1), (k0, k1) in zip(spans(cu_query), spans(cu_key), strict=True):
        one, other = aligned(query[q0:q1]).float(), aligned(key[k0:k1]).float()
        scores = torch.einsum("qhd,khd->hqk", one, other) * scale
        if causal:
            hidden = ~_visible(q1 - q0, k1 - k0, window, scores.device)
            # Finite, so that a query that sees no key has weights and gradients of 0, not NaN.
            lowest = torch.finfo(scores.dtype).min
            weight = scores.masked_fill(hidden, lowest).softmax(-1).masked_fill(hidden, 0.0)
        else:
            weight = scores.softmax(-1)
        weights.append(F.dropout(weight, dropout, dropout > 0))
    return weights


def weighted_values(weights: list[Tensor], value: Tensor, cu_key: Tensor) -> Tensor:
    """Values weighted by each sequence's attention weights: second step of the reference implementations.

    Args:
        weights: [heads, queries, keys] of each sequence, as `attention_weights` returns them.
        value: [key tokens, heads, head_dim], packed.
        cu_key: int32 [n + 1], offsets of the keys.

    Returns:
        [query tokens, heads, head_dim], in value's dtype.
    """
    outputs = [
        torch.einsum("hqk,khd->qhd", weight, value[k0:k1].to(weight.dtype))
        for weight, (k0, k1) in zip(weights, spans(cu_key), strict=True)
    ]
    return torch.cat(outputs).to(value.dtype) if outputs else torch.empty_like(value)


def flash_attention_reference(
    query: Tensor, key: Tensor, value: Tensor, cu_query: Tensor, cu_key: Tensor, **options: Any
) -> Tensor:
    """Reference implementation of `flash_attention` in plain torch; options of `attention_weights`."""
    return weighted_values(attention_weights(query, key, cu_query, cu_key, **options), value, cu_key)


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
    """CPU version of `flash_attention`: torch's fused attention, or oneDNN's products, for each sequence.

    The order of a sequence's sums thus depends on its own length alone.
    """
    out = torch.empty_like(query)
    for (q0, q1), (k0, k1) in zip(spans(cu_query), spans(cu_key), strict=True):
        if q0 == q1:
            continue
        if not causal and min(q1 - q0, k1 - k0) >= LONG and products_pay(query.dtype):
            attention_by_products(out[q0:q1], query[q0:q1], key[k0:k1], value[k0:k1], scale)
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
    """Causal mask, bool [queries, keys], true where a query sees a key; the last query sees the last key."""
    query = torch.arange(queries, device=device)[:, None] + (keys - queries)
    key = torch.arange(keys, device=device)[None]
    seen = key <= query
    return seen if window is None else seen & (key > query - window)


def flash_attention_triton(
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
    """`flash_attention` by one Triton kernel launch, through `launch_heads`."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    seen = NO_WINDOW if window is None else min(window, NO_WINDOW)
    numbers = causal, seen, scale * LOG2_E
    return launch_heads(flash_attention_kernel, query, cu_query, cu_key, (key, value), *numbers)


_flash_attention = Operation(
    flash_attention_reference, cpu=flash_attention_cpu, triton=flash_attention_triton
)


@kernel(sizes=("head_dim",))
def flash_attention_kernel(
    query_ptr,  # [query tokens, heads, head_dim]
    key_ptr,  # [key tokens, heads, head_dim]
    value_ptr,  # [key tokens, heads, head_dim]
    blocks_ptr,  # int32 [blocks, 4], of `query_blocks`
    out_ptr,  # [query tokens, heads, head_dim]
    heads: tl.int32,
    head_dim: tl.int32,
    causal: tl.int32,  # 0 or 1
    window: tl.int32,  # keys that a causal query sees; without a window, more than there are
    scale: tl.float32,  # times log2(e), for exp2, which the hardware has
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    head, first, query_end, key_begin, keys = read_block(blocks_ptr, heads)
    if first >= query_end:
        return

    m = first + tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    offsets = tile_offsets(BLOCK_M, BLOCK_D, heads, head_dim)
    mask = tile_mask(first, query_end, head_dim, BLOCK_M, BLOCK_D)
    row = first_element(first, head, heads, head_dim)
    begin = first_element(key_begin, head, heads, head_dim)
    query = tl.load(query_ptr + row + offsets, mask=mask, other=0.0)

    # Keys are counted from the sequence's first. When causal, query m has position `diagonal` among them.
    diagonal = m - query_end + keys
    highest_seen = tl.where(causal != 0, diagonal, keys - 1)
    lowest_seen = diagonal - window + 1
    beyond = query_end - first  # queries from this block's first to the sequence's last
    # The start is a multiple of BLOCK_N, by which the compiler saves 12 to 29 registers on sm_90.
    start_at = tl.maximum(keys - beyond - window + 1, 0) // BLOCK_N * BLOCK_N
    stop_at = keys - causal * tl.maximum(beyond - BLOCK_M, 0)
    # Between these two, every query of the block sees every key, and the mask is skipped.
    all_from = stop_at - window
    all_until = keys - causal * (beyond - 1)

    highest, total, mixed = softmax_begin(BLOCK_M, BLOCK_D)
    for start in range(start_at, stop_at, BLOCK_N):
        key = load_keys(key_ptr, begin, start, keys, heads, head_dim, BLOCK_N, BLOCK_D)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        if (start < all_from) | (start + BLOCK_N > all_until):
            position = (start + n)[None, :]
            seen = (position <= highest_seen[:, None]) & (position >= lowest_seen[:, None])
            scores = tl.where(seen, scores, float("-inf"))
        weights, highest, total, mixed = softmax_step(scores, scale, highest, total, mixed, True)
        value = load_keys(value_ptr, begin, start, keys, heads, head_dim, BLOCK_N, BLOCK_D)
        mixed = tl.dot(weights.to(value.dtype), value, mixed, input_precision=PRECISION)
    softmax_store(out_ptr + row + offsets, mask, total, mixed, True)


def _blocks(architecture: str, width: int, dtype: torch.dtype, alignment: str) -> dict[str, int]:
    """Tile sizes, warps and stages of a case.

    Scores, weights and values of 128 queries by 64 keys fill the registers; float32 takes more of them, and
    so do the addresses of rows that are not aligned.
    """
    wide = width > 64
    if dtype == torch.float32:
        rows, keys, warps, stages = (32, 16, 8, 2) if wide else (64, 32, 8, 2)
    elif alignment == "any":
        rows, keys, warps, stages = 64, 32, 8 if wide else 4, 2
    else:
        rows, keys, warps, stages = 128, 64, 8, 2 if wide and architecture == "sm_80" else 3
    stages = 1 if architecture == "gfx942" else stages
    return {"BLOCK_M": rows, "BLOCK_N": keys, "num_warps": warps, "num_stages": stages}


declare_heads(flash_attention_kernel, _blocks)
