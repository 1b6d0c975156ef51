"""Attention scores by the distance of query and key, on the CPU: diagonals of matrix products."""

import torch
from torch import Tensor

BLOCK = 128  # queries, or keys, multiplied at a time with the embeddings of all their distances
_MAX_SCORES = 1 << 20  # computed at a time, for several heads if sequences are short: 4 MB


def heads_at_a_time(tokens: int) -> int:
    """Number of heads whose scores [tokens, tokens] are computed together."""
    return max(1, _MAX_SCORES // tokens**2)


def heads_first(tensor: Tensor) -> Tensor:
    """Transpose [tokens, heads, head_dim] to contiguous [heads, tokens, head_dim], float32 or wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).transpose(0, 1).contiguous()


def diagonal_products(content: Tensor, near: Tensor) -> Tensor:
    """Products of each token of a block with the embeddings of its distances to all other tokens.

    Distances from one token to all others are consecutive, and those of the next token are shifted by one: a
    matrix product with the embeddings of all distances of the block needs no gather.

    Args:
        content: [heads, block, head_dim], queries or keys.
        near: [heads, others + block - 1, head_dim], embeddings by distance, the block's last token's first.

    Returns:
        [heads, block, others], a view.
    """
    products = torch.bmm(content, near.transpose(1, 2))
    heads, block, width = products.shape
    return products.as_strided(
        (heads, block, width - block + 1), (block * width, width - 1, 1), storage_offset=block - 1
    )
