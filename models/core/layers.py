"""Multi-head attention and fairseq's transformer layers (BART, MBart, Speech2Text), on packed tokens."""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.linear.activation import check_activation
from ...kernels.linear.gemm import linear
from ...kernels.norm.layer_norm import layer_norm
from ...kernels.runtime.weight_cache import cached
from .attention import DecoderAttention
from .config import PretrainedConfig

# Parameter names of fairseq's attention by role, in the order in which it creates them.
FAIRSEQ_NAMES = {"key": "k_proj", "value": "v_proj", "query": "q_proj", "output": "out_proj"}


class Attention(nn.Module):
    """Multi-head attention's projections; the layout to attend in (packed, paged) is an argument of calls.

    Args:
        width: size of the hidden states.
        heads: number of heads.
        names: parameter name of each role in checkpoints. Roles are "query", "key", "value" and "output", or
            fused "key_value" and "query_key_value". Projections are created in this order, which decides the
            random weights that a seed gives.
        phase: `phase` of `linear` for the query and output projections.
        key_phase: the same for keys and values, which cross-attention computes from a whole recording;
            `phase` by default.
        head_dim: size of one head; width / heads by default.
        scale: factor of the attention scores; head_dim ** -0.5 by default.
        bias, output_bias: True for biases in the query, key and value projections, and in the output's.

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
        """Create a randomly initialized linear layer from `inputs` to `outputs` features."""
        return nn.Linear(inputs, outputs, bias)

    def project(self, role: str, hidden: Tensor) -> Tensor:
        """Apply a role's projection to hidden states [tokens, inputs]: [tokens, outputs]."""
        module = self.projection(role)
        return linear(hidden, module.weight, module.bias, phase=self.phases[role])

    def projection(self, role: str) -> Any:
        """Linear module of a role, such as "query"."""
        return getattr(self, self.names[role])

    @property
    def output(self) -> Any:
        """Output projection, applied to the result of attention."""
        return self.projection("output")

    def queries(self, hidden: Tensor) -> Tensor:
        """Queries [tokens, heads, head_dim] of hidden states [tokens, width]."""
        return self._split(self.project("query", hidden))

    def key_values(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of hidden states [tokens, width], each [tokens, heads, head_dim]."""
        if "key_value" in self.names:
            key, value = self._split_fused("key_value", hidden)
            return key, value
        return self._split(self.project("key", hidden)), self._split(self.project("value", hidden))

    def queries_key_values(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of hidden states [tokens, width], each [tokens, heads, head_dim]."""
        if "query_key_value" in self.names:
            query, key, value = self._split_fused("query_key_value", hidden)
            return query, key, value
        return self.queries(hidden), *self.key_values(hidden)

    def attend(self, hidden: Tensor, attention: DecoderAttention, layer: int) -> Tensor:
        """Self-attention before the output projection: [tokens, width] to [tokens, heads * head_dim]."""
        return attention.self_attention(layer, *self.queries_key_values(hidden), self.scale).flatten(1)

    def cross_attend(self, hidden: Tensor, attention: DecoderAttention, layer: int) -> Tensor:
        """Cross-attention to the encoder's output, with shapes as in `attend`."""
        return attention.cross_attention(layer, self.queries(hidden), self.scale).flatten(1)

    def _split(self, projected: Tensor) -> Tensor:
        # All sizes are explicit: with no tokens torch cannot infer a -1.
        return projected.reshape(len(projected), self.heads, self.head_dim)

    def _split_fused(self, role: str, hidden: Tensor) -> list[Tensor]:
        # Contiguous, since the bits of attention on the CPU may depend on strides.
        parts = self.project(role, hidden).split(self.heads * self.head_dim, dim=1)
        return [self._split(part).contiguous() for part in parts]


_KEYS = ("key", "value", "key_value")


class Layer(nn.Module):
    """Base of fairseq's transformer layers: self-attention and feed-forward with residuals and dropout.

    Args:
        config: configuration with sizes and dropouts under the names of `BartConfig`.
        index: number of the layer, from 0.
        norm_first: normalize the inputs of attention and feed-forward (pre-norm); else their outputs plus
            residuals (post-norm).

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
        """Self-attention with its normalization and residual: [tokens, d_model] to the same shape."""
        own, norm = self.self_attn, self.self_attn_layer_norm
        mixed = own.attend(self.before(norm, hidden), attention, self.index)
        return self.after(norm, self.add(hidden, own.output, mixed))

    def feed_forward(self, hidden: Tensor, limit: float | None = None) -> Tensor:
        """Feed-forward with normalization and residual on [tokens, d_model], clamped to `limit` if given."""
        norm, first = self.final_layer_norm, self.fc1
        inner = linear(
            self.before(norm, hidden), first.weight, first.bias, activation=self.activation, phase=self.phase
        )
        inner = F.dropout(inner, self.activation_dropout, self.training)
        return self.after(norm, self.add(hidden, self.fc2, inner, limit))

    def before(self, norm: nn.LayerNorm, hidden: Tensor) -> Tensor:
        """Input of attention or feed-forward, normalized in a pre-norm layer."""
        return normalize(norm, hidden) if self.norm_first else hidden

    def after(self, norm: nn.LayerNorm, hidden: Tensor) -> Tensor:
        """Output of attention or feed-forward plus its residual, normalized in a post-norm layer."""
        return hidden if self.norm_first else normalize(norm, hidden)

    def add(self, residual: Tensor, module: Any, hidden: Tensor, limit: float | None = None) -> Tensor:
        """Residual plus a linear module's output, by `add_linear` with the layer's dropout and phase."""
        options: dict[str, Any] = {"phase": self.phase, "limit": limit}
        return add_linear(module, hidden, residual, self.dropout, self.training, **options)


class EncoderLayer(Layer):
    """Encoder layer: self-attention within each sequence, then feed-forward."""

    part, phase = "encoder", "encode"

    def forward(self, hidden: Tensor, attention: DecoderAttention) -> Tensor:
        """Run the layer on hidden states [tokens, d_model], in the given attention layout."""
        # As in transformers, values are clamped so that none overflows float16.
        limit = torch.finfo(torch.float16).max - 1000 if hidden.dtype == torch.float16 else None
        return self.feed_forward(self.self_attention(hidden, attention), limit)


class DecoderLayer(Layer):
    """Decoder layer: causal self-attention, cross-attention if there is an encoder's output, feed-forward."""

    part, phase = "decoder", "decode"

    def __init__(self, config: PretrainedConfig, index: int, *, norm_first: bool = True) -> None:
        super().__init__(config, index, norm_first=norm_first)
        width, heads = config.d_model, config.decoder_attention_heads
        self.encoder_attn = Attention(width, heads, phase=self.phase, key_phase="encode")
        self.encoder_attn_layer_norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, attention: DecoderAttention) -> Tensor:
        """Run the layer on hidden states [tokens, d_model], in the given attention layout."""
        hidden = self.self_attention(hidden, attention)
        if attention.crosses:
            cross, norm = self.encoder_attn, self.encoder_attn_layer_norm
            mixed = cross.cross_attend(self.before(norm, hidden), attention, self.index)
            hidden = self.after(norm, self.add(hidden, cross.output, mixed))
        return self.feed_forward(hidden)

    def cross_key_value(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention keys and values of encoder tokens, each [tokens, heads, head_dim]."""
        return self.encoder_attn.key_values(encoded)


def normalize(module: nn.LayerNorm, hidden: Tensor) -> Tensor:
    """Layer normalization of hidden states with a module's weight, bias and epsilon."""
    return layer_norm(hidden, module.weight, module.bias, module.eps)


def apply_linear(
    module: nn.Linear, hidden: Tensor, activation: str | None = None, phase: str = "encode"
) -> Tensor:
    """Linear layer on [rows, inputs], `activation(module(hidden))`; `phase` is that of `linear`."""
    return linear(hidden, module.weight, module.bias, activation=activation, phase=phase)


def add_linear(
    module: nn.Linear,
    hidden: Tensor,
    residual: Tensor,
    dropout: float = 0.0,
    training: bool = False,
    *,
    phase: str = "encode",
    limit: float | None = None,
) -> Tensor:
    """Residual plus a linear layer's output, `residual + dropout(module(hidden))`, clamped to `limit`.

    Args:
        module: linear layer from inputs to width.
        hidden: [tokens, inputs].
        residual: [tokens, width].
        dropout, training: as in `F.dropout`.
        phase: as in `linear`.
        limit: largest absolute value of the sum; None for no limit.
    """
    if not (training and dropout):
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
        norm: normalization after the last layer; None for none.
        hidden: embedded tokens [tokens, d_model].
        attention: the layout that the layers attend in.
        layerdrop: chance of skipping a layer (LayerDrop, arXiv 1909.11556); 0 outside training.
        states: list that receives the hidden states before the first layer and after each that ran; the last
            ones normalized where there is a norm, as in transformers.
        selected: int64 indices of the tokens whose output is needed, for layers that accept them; None for
            all. For the others the last layer computes only keys and values, a third of its work.
        skipped: function called for each layer that is skipped.
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


def transposed(weight: Tensor, hidden: Tensor) -> Tensor:
    """Transpose a weight [inputs, ...] to `linear`'s form [outputs, inputs]; cached without gradients.

    Args:
        weight: weight whose dimensions behind the first are flattened.
        hidden: [tokens, inputs], to be multiplied by the weight.
    """
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return weight.flatten(1).t()
    return cached(_transposed, weight)


def _transposed(weight: Tensor) -> Tensor:
    return weight.detach().flatten(1).t().contiguous()


def select(hidden: Tensor, selected: Tensor | None) -> Tensor:
    """Hidden states of the selected tokens, `hidden[selected]`; all tokens for None."""
    return hidden if selected is None else hidden[selected]


def embedding_scale(config: PretrainedConfig) -> float:
    """Scale of token embeddings: sqrt(d_model) with `scale_embedding`, else 1."""
    return math.sqrt(config.d_model) if config.scale_embedding else 1.0
