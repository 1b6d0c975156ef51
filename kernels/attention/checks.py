"""Checks of arguments that attention operations share; each raises ValueError with the remedy."""

from torch import Tensor

from ..runtime.packing import check_cu_seqlens


def check_packed(query: Tensor, key: Tensor, value: Tensor, cu_query: Tensor, cu_key: Tensor) -> None:
    """Validate packed queries, keys and values [tokens, heads, head_dim] and their cu_seqlens."""
    queries, keys = query.shape, key.shape  # made anew at each access
    check_cu_seqlens(cu_query, queries[0], "cu_query")
    if cu_key is not cu_query or keys[0] != queries[0]:
        check_cu_seqlens(cu_key, keys[0], "cu_key")
    if cu_key is not cu_query and cu_query.numel() != cu_key.numel():
        raise ValueError(
            f"queries of {cu_query.numel() - 1} sequences, but keys of {cu_key.numel() - 1}; give one of each"
        )
    if len(queries) != 3 or keys != value.shape or (keys != queries and keys[1:] != queries[1:]):
        raise ValueError(
            f"heads do not fit: query {list(query.shape)}, key {list(key.shape)}, value {list(value.shape)}"
        )


def check_self_attention(query: Tensor, key: Tensor, value: Tensor, cu_tokens: Tensor) -> None:
    """Validate queries, keys and values [tokens, heads, head_dim] of the same packed tokens."""
    check_cu_seqlens(cu_tokens, query.shape[0], "cu_tokens")
    if query.dim() != 3 or key.shape != query.shape or value.shape != query.shape:
        raise ValueError(
            "query, key and value must all be [tokens, heads, head_dim], "
            f"got {list(query.shape)}, {list(key.shape)} and {list(value.shape)}"
        )


def check_scale_and_window(scale: float, window: int | None, causal: bool) -> None:
    """Validate a positive scale, and a window of at least 1 that comes with `causal`."""
    if window is not None and (not causal or window < 1):
        raise ValueError(
            f"window is the number of keys, at least 1, that a causal query sees; got {window} with "
            f"causal={causal}; give causal=True with it, or no window to see all keys"
        )
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}; to turn the scores' sign, negate query")
