"""XLNet layers (arXiv 1906.08237) on packed tokens: relative attention and feed-forward block."""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.attention.flash import weighted_values
from ...kernels.attention.relative import relative_attention, relative_weights
from ...kernels.linear.gemm import linear
from ...kernels.runtime.weight_cache import cached
from ..core.layers import add_linear, apply_linear, normalize, transposed
from .config import XLNetConfig

_MAX_CACHED_DISTANCE = 1024  # greater distances: position keys are recomputed in each call


@dataclass(frozen=True)
class Layout:
    """Packed sequences and attention options of one forward pass, shared by all layers.

    Args:
        cu_tokens: cu_seqlens of the n packed sequences, int32 [n + 1].
        limit: largest distance between tokens; -limit to limit have a row of position features.
        segments: token type ids, int32 [tokens]; None without token types.
        positions: sinusoidal features of the distances, [2 * limit + 1, d_model], for gradients or dropout;
            None if layers use their cached position keys.
        causal: a token attends to those up to its own position only.
        window: number of tokens that a causal token attends to, itself included; None for all.
        weights: list to which each layer appends its attention weights after dropout, one
            [heads, queries, keys] for each sequence; None to record none.
    """

    cu_tokens: Tensor
    limit: int
    segments: Tensor | None
    positions: Tensor | None
    causal: bool
    window: int | None
    weights: list[list[Tensor]] | None


class XLNetRelativeAttention(nn.Module):
    """Self-attention with relative-position and segment terms in its scores, then residual and layer norm.

    Checkpoints hold its projection weights as [d_model, n_head, d_head].
    """

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__()
        self.scale = config.d_head**-0.5
        self.dropout = config.dropout
        self.std = config.initializer_range
        size = config.n_head, config.d_head
        self.q, self.k, self.v, self.o, self.r = (
            nn.Parameter(torch.empty(config.d_model, *size)) for _ in range(5)
        )
        self.r_r_bias, self.r_s_bias, self.r_w_bias = (nn.Parameter(torch.empty(size)) for _ in range(3))
        self.seg_embed = nn.Parameter(torch.empty(2, *size))
        self.layer_norm = nn.LayerNorm(config.d_model, config.layer_norm_eps)

    def initialize(self) -> None:
        """Initialize all weights but the layer norm's randomly."""
        for parameter in self.parameters(recurse=False):
            nn.init.normal_(parameter, std=self.std)

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """Attend over packed hidden states [tokens, d_model]; the result has the same shape."""
        query, key, value = (_heads(hidden, weight) for weight in (self.q, self.k, self.v))
        segmented = layout.segments is not None
        terms = (
            self._position_key(layout),
            self.r_w_bias,
            self.r_r_bias,
            layout.segments,
            self.r_s_bias if segmented else None,
            self.seg_embed if segmented else None,
        )
        cu_tokens, dropout = layout.cu_tokens, self.dropout if self.training else 0.0
        options = {"scale": self.scale, "causal": layout.causal, "window": layout.window, "dropout": dropout}
        mixed = None
        if layout.weights is not None:
            weights = relative_weights(query, key, cu_tokens, *terms, **options)
            layout.weights.append(weights)
            # As in `StackAttention`: recorded weights are those used, and without dropout recording does not
            # change the output's bits.
            mixed = weighted_values(weights, value, cu_tokens) if dropout else None
        if mixed is None:
            mixed = relative_attention(query, key, value, cu_tokens, *terms, **options)  # type: ignore[arg-type]
        wide, weight = mixed.flatten(1), self.o.flatten(1)
        if not dropout:
            return normalize(self.layer_norm, linear(wide, weight, residual=hidden))
        return normalize(self.layer_norm, hidden + F.dropout(linear(wide, weight), dropout))

    def _position_key(self, layout: Layout) -> Tensor:
        """Position keys of the distances -limit to limit, [2 * limit + 1, heads, head_dim]."""
        if layout.positions is not None:
            return _heads(layout.positions, self.r)
        limit = layout.limit
        if limit > _MAX_CACHED_DISTANCE:
            return _position_keys(self.r, limit=limit)
        far = max(16, 1 << (limit - 1).bit_length())
        return cached(_position_keys, self.r, limit=far)[far - limit : far + limit + 1]


def _heads(hidden: Tensor, weight: Tensor) -> Tensor:
    """Project hidden states [tokens, d_model] by a weight [d_model, heads, head_dim] to heads."""
    return linear(hidden, transposed(weight, hidden)).view(len(hidden), *weight.shape[1:])


def _position_keys(weight: Tensor, *, limit: int) -> Tensor:
    return _heads(position_features(limit, weight), weight)


_ROWS = 64  # distances per block of features


def position_features(limit: int, like: Tensor) -> Tensor:
    """Sinusoidal features of the distances -limit to limit, [2 * limit + 1, width].

    A distance's features have the same bits for every limit: torch rounds the elements after the last full
    SIMD vector differently, so blocks of one size begin at the same distances.

    Args:
        limit: largest distance.
        like: tensor [width, ...] of the dtype and device to return.
    """
    inverse = 1 / torch.pow(10000, torch.arange(0, like.shape[0], 2).float() / like.shape[0])
    blocks = [
        torch.arange(first, first + _ROWS).float()[:, None] * inverse for first in range(0, limit + 1, _ROWS)
    ]
    sines = torch.cat([block.sin() for block in blocks])[: limit + 1]
    cosines = torch.cat([block.cos() for block in blocks])[: limit + 1]
    ahead = torch.cat([-sines, cosines], 1)[1:].flip(0)
    return torch.cat([ahead, torch.cat([sines, cosines], 1)]).to(like)


class XLNetFeedForward(nn.Module):
    """Feed-forward block with residual connection and layer norm after it."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__()
        self.activation = config.ff_activation
        self.dropout = config.dropout
        self.layer_norm = nn.LayerNorm(config.d_model, config.layer_norm_eps)
        self.layer_1 = nn.Linear(config.d_model, config.d_inner)
        self.layer_2 = nn.Linear(config.d_inner, config.d_model)

    def forward(self, hidden: Tensor) -> Tensor:
        """Apply the block to hidden states [tokens, d_model]; the result has the same shape."""
        inner = F.dropout(apply_linear(self.layer_1, hidden, self.activation), self.dropout, self.training)
        return normalize(
            self.layer_norm, add_linear(self.layer_2, inner, hidden, self.dropout, self.training)
        )


class XLNetLayer(nn.Module):
    """Post-norm transformer layer: relative self-attention, then feed-forward block."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__()
        self.rel_attn = XLNetRelativeAttention(config)
        self.ff = XLNetFeedForward(config)

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """Run the layer on packed hidden states [tokens, d_model]; the result has the same shape."""
        return cast(Tensor, self.ff(self.rel_attn(hidden, layout)))
