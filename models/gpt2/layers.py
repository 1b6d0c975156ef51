"""GPT-2's layers on packed tokens: causal, and beside an encoder's output where there is one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ...kernels.runtime.weight_cache import cached
from ..core.attention import DecoderAttention
from ..core.layers import normalize, rows_of
from .config import GPT2Config


class Conv1D(nn.Module):
    """A linear map whose checkpoints hold the weight transposed, [inputs, outputs].

    Args:
        outputs, inputs: widths.
        phase: of `linear`.
    """

    def __init__(self, outputs: int, inputs: int, phase: str) -> None:
        super().__init__()
        self.phase = phase
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(
        self, hidden: Tensor, *, activation: str | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """[tokens, inputs] to [tokens, outputs]; the arguments are those of `linear`."""
        learning = torch.is_grad_enabled() and (hidden.requires_grad or self.weight.requires_grad)
        weight = self.weight.t() if learning else cached(_transposed, self.weight)
        return linear(hidden, weight, self.bias, activation=activation, residual=residual, phase=self.phase)


def _transposed(weight: Tensor) -> Tensor:
    return weight.detach().t().contiguous()


class GPT2Attention(nn.Module):
    """The projections of one attention; who attends to what is the caller's.

    Args:
        config: sizes.
        index: of the layer.
        phase: of `linear`, for what works on queries.
        cross: keys and values come from an encoder's output, so queries have a map of their own.
    """

    def __init__(self, config: GPT2Config, index: int, phase: str, *, cross: bool = False) -> None:
        super().__init__()
        width = config.n_embd
        self.heads = config.n_head
        self.dropout = config.resid_pdrop
        self.scale = (width // self.heads) ** -0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= index + 1
        self.c_attn = Conv1D(2 * width, width, "encode") if cross else Conv1D(3 * width, width, phase)
        if cross:
            self.q_attn = Conv1D(width, width, phase)
        self.c_proj = Conv1D(width, width, phase)

    def split(self, hidden: Tensor) -> list[Tensor]:
        """What `c_attn` makes of [tokens, width]: two or three of [tokens, heads, head_dim].

        Contiguous, since the bits of attention on the CPU may depend on how its rows lie.
        """
        projected = self.c_attn(hidden)
        parts = projected.split(hidden.shape[1], dim=1)
        head_dim = hidden.shape[1] // self.heads  # said outright for a call of no tokens
        return [part.reshape(hidden.shape[0], self.heads, head_dim).contiguous() for part in parts]

    def queries(self, hidden: Tensor) -> Tensor:
        """Cross-attention's, [tokens, width] to [tokens, heads, head_dim]."""
        return self.q_attn(hidden).view(hidden.shape[0], self.heads, -1)

    def key_values(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention's, [source tokens, width] to [source tokens, heads, head_dim] each."""
        keys, values = self.split(encoded)
        return keys, values

    def output(self, mixed: Tensor, residual: Tensor) -> Tensor:
        """[tokens, heads, head_dim] and [tokens, width] to [tokens, width]."""
        return add(residual, self.c_proj, mixed.flatten(1), self.dropout if self.training else 0.0)


class GPT2MLP(nn.Module):
    """The second half of a layer."""

    def __init__(self, config: GPT2Config, phase: str) -> None:
        super().__init__()
        inner = 4 * config.n_embd if config.n_inner is None else config.n_inner
        self.activation = config.activation_function
        self.dropout = config.resid_pdrop
        self.c_fc = Conv1D(inner, config.n_embd, phase)
        self.c_proj = Conv1D(config.n_embd, inner, phase)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """[tokens, width] each to the same."""
        inner = self.c_fc(hidden, activation=self.activation)
        return add(residual, self.c_proj, inner, self.dropout if self.training else 0.0)


class GPT2Block(nn.Module):
    """Self-attention, cross-attention where there is an encoder, feed-forward, each normalized first.

    Args:
        config: sizes.
        index: of the layer.
        phase: of `linear`: "decode" for token by token, "encode" for whole texts at once.
    """

    def __init__(self, config: GPT2Config, index: int, phase: str) -> None:
        super().__init__()
        width, eps = config.n_embd, config.layer_norm_epsilon
        self.index = index
        self.ln_1 = nn.LayerNorm(width, eps)
        self.attn = GPT2Attention(config, index, phase)
        self.ln_2 = nn.LayerNorm(width, eps)
        if config.add_cross_attention:
            self.crossattention = GPT2Attention(config, index, phase, cross=True)
            self.ln_cross_attn = nn.LayerNorm(width, eps)
        self.mlp = GPT2MLP(config, phase)

    def forward(self, hidden: Tensor, attention: DecoderAttention, wanted: Tensor | None = None) -> Tensor:
        """[tokens, width] to the same, or its `wanted` rows, in the given attention layout."""
        query, key, value = self.attn.split(normalize(self.ln_1, hidden))
        mixed = attention.self_attention(self.index, query, key, value, self.attn.scale)
        hidden = self.attn.output(rows_of(mixed, wanted), rows_of(hidden, wanted))
        if attention.crosses:
            cross = self.crossattention
            query = cross.queries(normalize(self.ln_cross_attn, hidden))
            hidden = cross.output(attention.cross_attention(self.index, query, cross.scale), hidden)
        return self.mlp(normalize(self.ln_2, hidden), hidden)

    def cross_key_value(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention's keys and values of encoder tokens: [tokens, heads, head_dim] each."""
        return self.crossattention.key_values(encoded)


def add(residual: Tensor, module: Conv1D, hidden: Tensor, dropout: float) -> Tensor:
    """`residual + dropout(module(hidden))`."""
    return residual + F.dropout(module(hidden), dropout) if dropout else module(hidden, residual=residual)
