"""GPT-2's layers on packed tokens: causal, and beside an encoder's output where there is one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ...kernels.runtime.weight_cache import cached
from ..core.attention import DecoderAttention
from ..core.layers import Attention, normalize, select
from .config import GPT2Config

_NAMES = {"query_key_value": "c_attn", "output": "c_proj"}  # see `Attention`
_CROSS_NAMES = {"key_value": "c_attn", "query": "q_attn", "output": "c_proj"}


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


class GPT2Attention(Attention):
    """Projections of one attention, keys and values in one map, in self-attention queries too.

    Args:
        config: sizes.
        index: of the layer.
        phase: of `linear`, for queries and output.
        cross: attend to an encoder's output.
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
        """Fresh projection between two widths."""
        return Conv1D(outputs, inputs, phase)

    def project(self, role: str, hidden: Tensor) -> Tensor:
        """[tokens, inputs] to [tokens, outputs] of a role's projection."""
        return self.projection(role)(hidden)

    def add_output(self, mixed: Tensor, residual: Tensor) -> Tensor:
        """[tokens, width] each to the same."""
        return add(residual, self.output, mixed, self.dropout if self.training else 0.0)


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

    def forward(self, hidden: Tensor, attention: DecoderAttention, selected: Tensor | None = None) -> Tensor:
        """[tokens, width] to the same, of `selected` tokens alone if given, in the given attention layout."""
        mixed = self.attn.attend(normalize(self.ln_1, hidden), attention, self.index)
        hidden = self.attn.add_output(select(mixed, selected), select(hidden, selected))
        if attention.crosses:
            cross = self.crossattention
            mixed = cross.cross_attend(normalize(self.ln_cross_attn, hidden), attention, self.index)
            hidden = cross.add_output(mixed, hidden)
        return self.mlp(normalize(self.ln_2, hidden), hidden)

    def cross_key_value(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention's keys and values of encoder tokens: [tokens, heads, head_dim] each."""
        return self.crossattention.key_values(encoded)


def add(residual: Tensor, module: Conv1D, hidden: Tensor, dropout: float) -> Tensor:
    """`residual + dropout(module(hidden))`."""
    return residual + F.dropout(module(hidden), dropout) if dropout else module(hidden, residual=residual)
