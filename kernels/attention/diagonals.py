"""Scores that depend on the distance of query and key, on the CPU: products read along their diagonals."""

import torch
from torch import Tensor

BLOCK = 128  # queries, or keys, whose products with the rows of all their distances are made at a time
_MAX_SCORES = 1 << 20  # at a time, of several heads where sequences are short: 4 MB


def heads_at_a_time(tokens: int) -> int:
    """Heads whose scores [tokens, tokens] are made together."""
    return max(1, _MAX_SCORES // tokens**2)


def heads_first(tensor: Tensor) -> Tensor:
    """[tokens, heads, head_dim] to [heads, tokens, head_dim], contiguous, in float32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).transpose(0, 1).contiguous()


def diagonal_products(content: Tensor, near: Tensor) -> Tensor:
    """Products of each token of a block with the rows of its distances to all other tokens.

    Distances from one token to all others are neighbors, and those of the next token are one further: a
    product with the rows of all distances of the block needs no gathering.

    Args:
        content: [heads, block, head_dim].
        near: [heads, others + block - 1, head_dim], rows by distance; those of the block's last token first.

    Returns:
        [heads, block, others], a view.
    """
    products = torch.bmm(content, near.transpose(1, 2))
    heads, block, width = products.shape
    return products.as_strided(
        (heads, block, width - block + 1), (block * width, width - 1, 1), storage_offset=block - 1
    )
