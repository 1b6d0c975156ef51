"""Attention projections and fairseq's transformer layers (BART, MBart, Speech2Text), on packed tokens."""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.linear.activation import check_activation
from ...kernels.linear.gemm import linear
from ...kernels.norm.layer_norm import layer_norm
from .attention import DecoderAttention
from .config import PretrainedConfig

# Parameter names of fairseq's attention by role, in the order in which it creates them.
FAIRSEQ_NAMES = {"key": "k_proj", "value": "v_proj", "query": "q_proj", "output": "out_proj"}


class Attention(nn.Module):
    """Projections of multi-head attention; the layout to attend in (packed, paged) is an argument.

    Args:
        width: of the hidden states.
        heads: number of heads.
        names: parameter name of each role in checkpoints. Roles are "query", "key", "value" and "output", or
            fused "key_value" and "query_key_value". Projections are created in this order, on which the
            weights of a seed depend.
        phase: of `linear`, for queries and output.
        key_phase: for keys and values, which cross-attention makes of a whole recording; `phase` by default.
        head_dim: width / heads by default.
        scale: of the scores; head_dim ** -0.5 by default.
        bias, output_bias: of the projections to queries, keys and values, and of the output's.

    Raises:
        ValueError: heads that do not divide the width, without head_dim.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        names: Mapping[str, str] = FAIRSEQ_NAMES,
        *,
        phase: str = "encode",
        key_phase: str | None = None,
        head_dim: int | None = None,
        scale: float | None = None,
        bias: bool = True,
        output_bias: bool = True,
    ) -> None:
        super().__init__()
        if head_dim is None:
            if heads < 1 or width % heads:
                raise ValueError(
                    f"{heads} attention heads do not divide the width {width}; change one of them"
                )
            head_dim = width // heads
        self.heads, self.head_dim = heads, head_dim
        self.scale = head_dim**-0.5 if scale is None else scale
        self.names = dict(names)
        self.phases = {role: (key_phase or phase) if role in _KEYS else phase for role in names}
        inner = heads * head_dim
        for role, name in names.items():
            outputs = width if role == "output" else inner * len(role.split("_"))
            inputs, biased = (inner, output_bias) if role == "output" else (width, bias)
            self.add_module(name, self.make_projection(inputs, outputs, biased, self.phases[role]))

    def make_projection(self, inputs: int, outputs: int, bias: bool, phase: str) -> nn.Module:
        """Fresh projection between two widths."""
        return nn.Linear(inputs, outputs, bias)

    def project(self, role: str, hidden: Tensor) -> Tensor:
        """[tokens, inputs] to [tokens, outputs] of a role's projection."""
        module = self.projection(role)
        return linear(hidden, module.weight, module.bias, phase=self.phases[role])

    def projection(self, role: str) -> Any:
        """Module of a role."""
        return getattr(self, self.names[role])

    @property
    def output(self) -> Any:
        """Projection behind the attention."""
        return self.projection("output")

    def queries(self, hidden: Tensor) -> Tensor:
        """[tokens, width] to [tokens, heads, head_dim]."""
        return self._split(self.project("query", hidden))

    def key_values(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """[tokens, width] to keys and values, each [tokens, heads, head_dim]."""
        if "key_value" in self.names:
            key, value = self._split_fused("key_value", hidden)
            return key, value
        return self._split(self.project("key", hidden)), self._split(self.project("value", hidden))

    def queries_key_values(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[tokens, width] to queries, keys and values, each [tokens, heads, head_dim]."""
        if "query_key_value" in self.names:
            query, key, value = self._split_fused("query_key_value", hidden)
            return query, key, value
        return self.queries(hidden), *self.key_values(hidden)

    def attend(self, hidden: Tensor, attention: DecoderAttention, layer: int) -> Tensor:
        """Self-attention in a layer: [tokens, width] to [tokens, heads * head_dim], the output's input."""
        return attention.self_attention(layer, *self.queries_key_values(hidden), self.scale).flatten(1)

    def cross_attend(self, hidden: Tensor, attention: DecoderAttention, layer: int) -> Tensor:
        """Attention to the encoder's output in a layer, shaped as in `attend`."""
        return attention.cross_attention(layer, self.queries(hidden), self.scale).flatten(1)

    def _split(self, projected: Tensor) -> Tensor:
        # All sizes by number: with no tokens torch cannot infer one.
        return projected.reshape(len(projected), self.heads, self.head_dim)

    def _split_fused(self, role: str, hidden: Tensor) -> list[Tensor]:
        # Contiguous, since the bits of attention on the CPU may depend on strides.
        parts = self.project(role, hidden).split(self.heads * self.head_dim, dim=1)
        return [self._split(part).contiguous() for part in parts]


_KEYS = ("key", "value", "key_value")


class Layer(nn.Module):
    """Self-attention and feed-forward with residual connections and dropout, as fairseq's layers have them.

    Args:
        config: sizes and dropouts by the names of `BartConfig`.
        index: of the layer, from 0.
        norm_first: normalize each part's input; else its output, together with the residual.

    Raises:
        ValueError: an unknown activation.
    """

    part: ClassVar[str]  # "encoder" or "decoder", as in the configuration's names
    phase: ClassVar[str]  # of `linear`

    def __init__(self, config: PretrainedConfig, index: int, *, norm_first: bool = True) -> None:
        super().__init__()
        check_activation(config.activation_function)
        width, inner = config.d_model, getattr(config, f"{self.part}_ffn_dim")
        self.index = index
        self.norm_first = norm_first
        self.dropout = config.dropout
        self.activation_dropout = config.activation_dropout
        self.activation = config.activation_function
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)
        heads = getattr(config, f"{self.part}_attention_heads")
        self.self_attn = Attention(width, heads, phase=self.phase)
        self.self_attn_layer_norm = nn.LayerNorm(width)

    def self_attention(self, hidden: Tensor, attention: DecoderAttention) -> Tensor:
        """First part of the layer: [tokens, d_model] to the same."""
        own, norm = self.self_attn, self.self_attn_layer_norm
        mixed = own.attend(self.before(norm, hidden), attention, self.index)
        return self.after(norm, self.add(hidden, own.output, mixed))

    def feed_forward(self, hidden: Tensor, limit: float | None = None) -> Tensor:
        """Last part of the layer: [tokens, d_model] to the same, clamped to `limit` if given."""
        norm, first = self.final_layer_norm, self.fc1
        inner = linear(
            self.before(norm, hidden), first.weight, first.bias, activation=self.activation, phase=self.phase
        )
        inner = F.dropout(inner, self.activation_dropout, self.training)
        return self.after(norm, self.add(hidden, self.fc2, inner, limit))

    def before(self, norm: nn.LayerNorm, hidden: Tensor) -> Tensor:
        """Input of a part, normalized where norms come first."""
        return normalize(norm, hidden) if self.norm_first else hidden

    def after(self, norm: nn.LayerNorm, hidden: Tensor) -> Tensor:
        """Output of a part, residual included, normalized where norms come last."""
        return hidden if self.norm_first else normalize(norm, hidden)

    def add(self, residual: Tensor, module: Any, hidden: Tensor, limit: float | None = None) -> Tensor:
        """`add_linear` with the layer's dropout and phase."""
        dropout = self.dropout if self.training else 0.0
        return add_linear(module, hidden, residual, dropout, phase=self.phase, limit=limit)


class EncoderLayer(Layer):
    """Self-attention within each sequence, then feed-forward."""

    part, phase = "encoder", "encode"

    def forward(self, hidden: Tensor, attention: DecoderAttention) -> Tensor:
        """[tokens, d_model] to the same, in the given attention layout."""
        # As in transformers, what overflows a half stays finite.
        limit = torch.finfo(torch.float16).max - 1000 if hidden.dtype == torch.float16 else None
        return self.feed_forward(self.self_attention(hidden, attention), limit)


class DecoderLayer(Layer):
    """Causal self-attention, cross-attention where there is an encoder's output, feed-forward."""

    part, phase = "decoder", "decode"

    def __init__(self, config: PretrainedConfig, index: int, *, norm_first: bool = True) -> None:
        super().__init__(config, index, norm_first=norm_first)
        width, heads = config.d_model, config.decoder_attention_heads
        self.encoder_attn = Attention(width, heads, phase=self.phase, key_phase="encode")
        self.encoder_attn_layer_norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, attention: DecoderAttention) -> Tensor:
        """[tokens, d_model] to the same, in the given attention layout."""
        hidden = self.self_attention(hidden, attention)
        if attention.crosses:
            cross, norm = self.encoder_attn, self.encoder_attn_layer_norm
            mixed = cross.cross_attend(self.before(norm, hidden), attention, self.index)
            hidden = self.after(norm, self.add(hidden, cross.output, mixed))
        return self.feed_forward(hidden)

    def cross_key_value(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention's keys and values of encoder tokens: [tokens, heads, head_dim] each."""
        return self.encoder_attn.key_values(encoded)


def normalize(module: nn.LayerNorm, hidden: Tensor) -> Tensor:
    """Layer normalization with a module's weights."""
    return layer_norm(hidden, module.weight, module.bias, module.eps)


def apply_linear(module: nn.Linear, hidden: Tensor, activation: str | None = None) -> Tensor:
    """`activation(module(hidden))` of rows [rows, inputs]."""
    return linear(hidden, module.weight, module.bias, activation=activation)


def add_linear(
    module: nn.Linear,
    hidden: Tensor,
    residual: Tensor,
    dropout: float = 0.0,
    *,
    phase: str = "encode",
    limit: float | None = None,
) -> Tensor:
    """`residual + dropout(module(hidden))`, clamped to `limit` if given.

    Args:
        module: [inputs] to [width].
        hidden: [tokens, inputs].
        residual: [tokens, width].
        dropout: 0 outside training.
        phase: of `linear`.
        limit: of the sum's absolute value.
    """
    if not dropout:
        return linear(hidden, module.weight, module.bias, residual=residual, limit=limit, phase=phase)
    out = residual + F.dropout(linear(hidden, module.weight, module.bias, phase=phase), dropout)
    return out if limit is None else out.clamp(-limit, limit)


def run_layers(
    layers: nn.ModuleList,
    norm: nn.LayerNorm | None,
    hidden: Tensor,
    attention: DecoderAttention,
    layerdrop: float,
    states: list[Tensor] | None = None,
    selected: Tensor | None = None,
    skipped: Callable[[], None] | None = None,
) -> Tensor:
    """Run a stack of layers and the normalization after it, if any.

    Args:
        layers: encoder or decoder layers.
        norm: of the last hidden states; None where they stay as they are.
        hidden: [tokens, d_model], embedded.
        attention: the layout that the layers attend in.
        layerdrop: chance of skipping a layer (LayerDrop, arXiv 1909.11556); 0 outside training.
        states: gets the hidden states before the first layer and after each that ran; the last ones
            normalized where there is a norm, as transformers gives them.
        selected: int64, indices of the tokens whose output is needed, for layers that take such; None for
            all. The last layer makes only keys and values of the others, which saves two thirds of it.
        skipped: called for each layer that is skipped.
    """
    if states is not None:
        states.append(hidden)
    for index, layer in enumerate(layers):
        # No draw without layer drop, so that a seed gives dropout the same draws as in transformers.
        if layerdrop and torch.rand(()).item() < layerdrop:
            if skipped is not None:
                skipped()
            continue
        if selected is not None and index == len(layers) - 1:
            hidden, selected = layer(hidden, attention, selected), None
        else:
            hidden = layer(hidden, attention)
        if states is not None:
            states.append(hidden)
    hidden = select(hidden, selected)  # no layer, or the last one dropped
    if norm is None:
        return hidden
    hidden = normalize(norm, hidden)
    if states is not None:
        states[-1] = hidden
    return hidden


def select(hidden: Tensor, selected: Tensor | None) -> Tensor:
    """`hidden[selected]`; all tokens for None."""
    return hidden if selected is None else hidden[selected]


def embedding_scale(config: PretrainedConfig) -> float:
    """Factor of token embeddings."""
    return math.sqrt(config.d_model) if config.scale_embedding else 1.0
