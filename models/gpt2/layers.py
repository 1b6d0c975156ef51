"""GPT-2 layers on packed tokens: causal self-attention and optional cross-attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ..core.attention import DecoderAttention
from ..core.layers import Attention, linear_behind, select, transposed
from .config import GPT2Config

_NAMES = {"query_key_value": "c_attn", "output": "c_proj"}  # parameter names, as `Attention` takes them
_CROSS_NAMES = {"key_value": "c_attn", "query": "q_attn", "output": "c_proj"}


class Conv1D(nn.Module):
    """Linear layer whose weight is stored transposed, [inputs, outputs], as in GPT-2 checkpoints.

    Args:
        outputs, inputs: output and input width.
        phase: phase of the `linear` kernel: "encode" (many rows) or "decode" (few).
    """

    def __init__(self, outputs: int, inputs: int, phase: str) -> None:
        super().__init__()
        self.phase = phase
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(
        self,
        hidden: Tensor,
        *,
        activation: str | None = None,
        residual: Tensor | None = None,
        norm: nn.LayerNorm | None = None,
    ) -> Tensor:
        """Project hidden states [tokens, inputs] to [tokens, outputs]; options are those of `linear`.

        A norm of the hidden states excludes a residual.
        """
        weight = transposed(self.weight, hidden)
        if norm is not None:
            return linear_behind(norm, hidden, weight, self.bias, activation=activation, phase=self.phase)
        return linear(hidden, weight, self.bias, activation=activation, residual=residual, phase=self.phase)


class GPT2Attention(Attention):
    """Projections of one attention, fused for keys and values, in self-attention for queries too.

    Args:
        config: model configuration.
        index: layer index, which may scale the scores.
        phase: phase of the `linear` kernel for queries and output.
        cross: True for cross-attention to an encoder's output.
    """

    def __init__(self, config: GPT2Config, index: int, phase: str, *, cross: bool = False) -> None:
        scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            scale /= index + 1
        super().__init__(
            config.n_embd,
            config.n_head,
            _CROSS_NAMES if cross else _NAMES,
            phase=phase,
            key_phase="encode" if cross else phase,
            scale=scale,
        )
        self.dropout = config.resid_pdrop

    def make_projection(self, inputs: int, outputs: int, bias: bool, phase: str) -> Conv1D:
        return Conv1D(outputs, inputs, phase)

    def weights(self, role: str, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        module = self.projection(role)
        return transposed(module.weight, hidden), module.bias

    def add_output(self, mixed: Tensor, residual: Tensor) -> Tensor:
        """Residual plus output projection of `mixed`, with dropout; [tokens, width] each."""
        return add(residual, self.output, mixed, self.dropout if self.training else 0.0)


class GPT2MLP(nn.Module):
    """Feed-forward block of a layer."""

    def __init__(self, config: GPT2Config, phase: str) -> None:
        super().__init__()
        inner = 4 * config.n_embd if config.n_inner is None else config.n_inner
        self.activation = config.activation_function
        self.dropout = config.resid_pdrop
        self.c_fc = Conv1D(inner, config.n_embd, phase)
        self.c_proj = Conv1D(config.n_embd, inner, phase)

    def forward(self, hidden: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Hidden states [tokens, width] plus the feed-forward block of their norm."""
        inner = self.c_fc(hidden, activation=self.activation, norm=norm)
        return add(hidden, self.c_proj, inner, self.dropout if self.training else 0.0)


class GPT2Block(nn.Module):
    """Pre-norm transformer layer: causal self-attention, optional cross-attention, feed-forward block.

    Args:
        config: model configuration.
        index: layer index.
        phase: phase of the `linear` kernel: "decode" for one token at a time, "encode" for whole texts.
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

    def forward(self, hidden: Tensor, attention: DecoderAttention, selected: Tensor | None = None) -> Tensor:
        """Run the layer on hidden states [tokens, width]; returns those of `selected` tokens, or of all."""
        mixed = self.attn.attend(hidden, attention, self.index, self.ln_1)
        hidden = self.attn.add_output(select(mixed, selected), select(hidden, selected))
        if attention.crosses:
            cross = self.crossattention
            mixed = cross.cross_attend(hidden, attention, self.index, self.ln_cross_attn)
            hidden = cross.add_output(mixed, hidden)
        return self.mlp(hidden, self.ln_2)

    @property
    def cross(self) -> Attention:
        """Cross-attention's projections."""
        return self.crossattention


def add(residual: Tensor, module: Conv1D, hidden: Tensor, dropout: float) -> Tensor:
    """Residual plus a module's output: `residual + dropout(module(hidden))`, fused if dropout is 0."""
    return residual + F.dropout(module(hidden), dropout) if dropout else module(hidden, residual=residual)
