"""Attention over packed sequences: teacher-forced decoders, encoders and encoder-only models."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..runtime.dispatch import choose
from ..runtime.launch import ARCHITECTURES, DTYPES, Kernel, kernel, precision, ready
from ..runtime.packing import aligned, check_cu_seqlens, spans
from .flash_cpu import LONG, attention_by_products, products_pay


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

    A query that sees no key (there are none, or with `causal` fewer keys than queries) gets zeros.

    Args:
        query: [query tokens, heads, head_dim], packed. On a GPU head_dim is at most 128.
        key, value: [key tokens, heads, head_dim], packed.
        cu_query, cu_key: int32 [n + 1] each; the same n sequences. Not to be changed in place: what is
            derived from them for a launch is kept as long as they live, for the layers that follow.
        causal: a query sees the keys up to its own place, both ends aligned.
        scale: multiplies the scores, positive; head_dim ** -0.5 by default (GPT-Neo and T5 use 1).
        window: with `causal`, a query sees only its last `window` keys (GPT-Neo's local layers).
        relative: not here; the families that have relative terms have kernels of their own, see the error.
        dropout: of the attention weights, for training.

    Returns:
        [query tokens, heads, head_dim].

    Raises:
        ValueError: shapes or offsets that do not fit, a scale that is not positive, a window without
            `causal` or smaller than 1.
        NotImplementedError: relative terms; the message names the kernels that have them.
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
        raise NotImplementedError(
            "relative terms have kernels of their own: use biased_attention (T5), relative_attention (XLNet) "
            "or disentangled_attention (SEW-D), each in the file of its name"
        )
    if window is not None and (not causal or window < 1):
        raise ValueError(
            f"window is the number of keys, at least 1, that a causal query sees; got {window} with "
            f"causal={causal}; give causal=True with it, or no window to see all keys"
        )
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}; to turn the scores' sign, negate query")
    if dropout:
        run = flash_attention_reference
        return run(
            query, key, value, cu_query, cu_key, causal=causal, scale=scale, window=window, dropout=dropout
        )
    run = choose(
        query,
        key,
        value,
        cu_query,
        cu_key,
        reference=flash_attention_reference,
        cpu=flash_attention_cpu,
        triton=flash_attention_triton,
    )
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
            hidden = ~_visible(q1 - q0, k1 - k0, window, scores.device)
            # A finite number for a query that sees no key: its weights are 0, and its gradient too.
            lowest = torch.finfo(scores.dtype).min
            weight = scores.masked_fill(hidden, lowest).softmax(-1).masked_fill(hidden, 0.0)
        else:
            weight = scores.softmax(-1)
        weights.append(F.dropout(weight, dropout, dropout > 0))
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
        torch.einsum("hqk,khd->qhd", weight, value[k0:k1].to(weight.dtype))
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
    """One sequence after the other: the order of its sums then depends on its own length alone."""
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
    """Which keys a causal query sees: bool [queries, keys], the last query seeing up to the last key."""
    places = torch.arange(queries, device=device)[:, None] + (keys - queries)
    others = torch.arange(keys, device=device)[None]
    seen = others <= places
    return seen if window is None else seen & (others > places - window)


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
    """One program for a block of queries and a head: FlashAttention-2's order (Dao, arXiv:2307.08691)."""
    tokens, heads, head_dim = query.shape
    if head_dim > _WIDEST:
        raise ValueError(f"attention on a GPU takes heads of at most {_WIDEST}, got {head_dim}")
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    if not out.numel():
        return out
    case = flash_attention_kernel.case(
        query.device,
        max(16, triton.next_power_of_2(head_dim)),
        query.dtype,
        "aligned" if head_dim % 16 == 0 else "any",
    )
    blocks = query_blocks(cu_query, cu_key, tokens, case.constant("BLOCK_M"))
    scale = head_dim**-0.5 if scale is None else scale
    case.launch(
        (blocks.shape[0] * heads,),
        ready(query),
        ready(key),
        ready(value),
        blocks,
        out,
        heads,
        head_dim,
        int(causal),
        _EVERYTHING if window is None else min(window, _EVERYTHING),
        scale * math.log2(math.e),
    )
    return out


# By cu_query, then by cu_key, then by block size. All layers of a model, and both attentions of a decoder's
# layer, ask for the same few, and making one takes about 15 small launches.
_made: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def query_blocks(cu_query: Tensor, cu_key: Tensor, tokens: int, block: int) -> Tensor:
    """Which queries each block of a launch takes, made on the device without waiting for it.

    A table, because a program that looked for its sequence itself would begin with ten loads that wait for
    one another among 1,024 sequences: as long as its work on 300 keys. Blocks of the most keys come first
    and of each sequence the last, which sees the most when causal, so that a launch ends on its shortest.

    Args:
        cu_query, cu_key: int32 [n + 1], n at least 1.
        tokens: the number of queries.
        block: queries of a block.

    Returns:
        int32 [bound, 4]: first query, end of the sequence's queries, first and end of its keys. The bound
        is what `tokens` queries of n sequences need at most; blocks that are not needed are all 0.
    """
    of_query = _made.setdefault(cu_query, WeakTensorKeyDictionary())
    by_block = of_query.setdefault(cu_key, {})
    if block not in by_block:
        by_block[block] = _query_blocks(cu_query, cu_key, tokens, block)
    return by_block[block]


def _query_blocks(cu_query: Tensor, cu_key: Tensor, tokens: int, block: int) -> Tensor:
    sequences = cu_query.numel() - 1
    bound = (tokens + sequences * (block - 1)) // block
    order = cu_key.diff().argsort(descending=True, stable=True)
    counts = (cu_query.diff()[order] + block - 1) // block
    ends = counts.cumsum(0)
    number = torch.arange(bound, device=ends.device)
    place = torch.searchsorted(ends, number, right=True)
    needed = (place < sequences)[:, None]
    place = place.clamp(max=sequences - 1)
    sequence = order[place]
    columns = [
        cu_query[sequence] + (ends[place] - 1 - number) * block,
        cu_query[sequence + 1],
        cu_key[sequence],
        cu_key[sequence + 1],
    ]
    return torch.where(needed, torch.stack(columns, 1), 0).int()


@kernel(sizes=("head_dim",))
def flash_attention_kernel(
    query_ptr,  # [query tokens, heads, head_dim]
    key_ptr,  # [key tokens, heads, head_dim]
    value_ptr,  # [key tokens, heads, head_dim]
    blocks_ptr,  # int32 [blocks, 4], see `query_blocks`
    out_ptr,  # [query tokens, heads, head_dim]
    heads: tl.int32,
    head_dim: tl.int32,
    causal: tl.int32,  # 0 or 1
    window: tl.int32,  # where there is none, more than there are keys
    scale: tl.float32,  # times log2(e): powers of 2 are what the hardware has
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    block = blocks_ptr + tl.program_id(0) // heads * 4
    head = tl.program_id(0) % heads
    first, query_end = tl.load(block), tl.load(block + 1)
    key_begin, keys = tl.load(block + 2), tl.load(block + 3) - tl.load(block + 2)
    if first >= query_end:
        return

    m = first + tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    stride = heads * head_dim
    far = stride.to(tl.int64)
    places = (m - first)[:, None] * stride + d[None, :]
    there = (m < query_end)[:, None] & (d < head_dim)[None, :]
    query_rows = (first.to(tl.int64) * heads + head) * head_dim
    key_rows = (key_begin.to(tl.int64) * heads + head) * head_dim
    query = tl.load(query_ptr + query_rows + places, mask=there, other=0.0)

    # Keys are counted from the sequence's first. When causal, query m stands at `diagonal`; both ends meet.
    diagonal = m - query_end + keys
    highest_seen = tl.where(causal != 0, diagonal, keys - 1)
    lowest_seen = diagonal - window + 1
    beyond = query_end - first  # queries from this block's first on
    # From a multiple of the block, which the compiler makes use of: 12 to 29 registers on sm_90.
    start_at = tl.maximum(keys - beyond - window + 1, 0) // BLOCK_N * BLOCK_N
    stop_at = keys - causal * tl.maximum(beyond - BLOCK_M, 0)
    # Between these, all of the block's queries see all keys, and the mask is skipped.
    all_from = stop_at - window
    all_until = keys - causal * (beyond - 1)

    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    mixed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for start in range(start_at, stop_at, BLOCK_N):
        rows = key_rows + start * far
        inside = (start + n < keys)[:, None] & (d < head_dim)[None, :]
        key = tl.load(key_ptr + rows + (n[:, None] * stride + d[None, :]), mask=inside, other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        if (start < all_from) | (start + BLOCK_N > all_until):
            place = (start + n)[None, :]
            seen = (place <= highest_seen[:, None]) & (place >= lowest_seen[:, None])
            scores = tl.where(seen, scores, float("-inf"))
        raised = tl.maximum(highest, tl.max(scores, 1) * scale)
        # Where nothing has been seen yet, -inf - -inf would be no number.
        shift = tl.where(raised == float("-inf"), 0.0, raised)
        weights = tl.exp2(scores * scale - shift[:, None])
        decay = tl.exp2(highest - shift)
        total = total * decay + tl.sum(weights, 1)
        mixed = mixed * decay[:, None]
        value = tl.load(value_ptr + rows + (n[:, None] * stride + d[None, :]), mask=inside, other=0.0)
        mixed = tl.dot(weights.to(value.dtype), value, mixed, input_precision=PRECISION)
        highest = raised

    mixed = mixed / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(out_ptr + query_rows + places, mixed.to(out_ptr.dtype.element_ty), mask=there)


_WIDEST = 128  # of heads: the accumulators of wider ones leave no room for blocks this large
_EVERYTHING = 2**30  # a window that hides nothing


def declare_heads(
    attention: Kernel,
    values: tuple[str, ...],
    others: dict[str, torch.dtype],
    blocks: Callable[[str, int, torch.dtype, str], dict[str, int]],
) -> None:
    """The cases of an attention kernel: by the width of heads alone, for what it leaves out are numbers, read
    once a block.

    Args:
        attention: with the constants PRECISION and BLOCK_D.
        values: pointers of the inputs' dtype.
        others: the other pointers.
        blocks: the other constants, of an architecture, a width, a dtype and an alignment.
    """
    for architecture in ARCHITECTURES:
        for dtype in DTYPES:
            for width in (16, 32, 64, _WIDEST):
                for alignment in ("aligned", "any"):
                    attention.declare(
                        width,
                        dtype,
                        alignment,
                        architecture=architecture,
                        pointers=dict.fromkeys(values, dtype) | others,
                        aligned=alignment == "aligned",
                        PRECISION=precision(dtype),
                        BLOCK_D=width,
                        **blocks(architecture, width, dtype, alignment),
                    )


def _blocks(architecture: str, width: int, dtype: torch.dtype, alignment: str) -> dict[str, int]:
    """Queries and keys of a step, warps and stages. 128 queries by 64 keys is what scores, weights and mixed
    values leave registers for; float32 takes more of them, and so do the addresses of rows not aligned."""
    wide = width > 64
    if dtype == torch.float32:
        rows, keys, warps, stages = (32, 16, 8, 2) if wide else (64, 32, 8, 2)
    elif alignment == "any":
        rows, keys, warps, stages = 64, 32, 8 if wide else 4, 2
    else:
        rows, keys, warps, stages = 128, 64, 8, 2 if wide and architecture == "sm_80" else 3
    stages = 1 if architecture == "gfx942" else stages
    return {"BLOCK_M": rows, "BLOCK_N": keys, "num_warps": warps, "num_stages": stages}


declare_heads(
    flash_attention_kernel,
    ("query_ptr", "key_ptr", "value_ptr", "out_ptr"),
    {"blocks_ptr": torch.int32},
    _blocks,
)
