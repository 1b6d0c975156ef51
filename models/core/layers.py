"""Multi-head attention and fairseq's transformer layers (BART, MBart, Speech2Text), on packed tokens."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.attention.projection import project_into_pages
from ...kernels.linear.activation import check_activation
from ...kernels.linear.gemm import linear
from ...kernels.linear.joined import joined_linear
from ...kernels.norm.layer_norm import layer_norm
from ...kernels.norm.normalized_linear import normalized_linear
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
        key_bias: False for a key projection without bias beside the others' (Whisper).

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
        key_bias: bool = True,
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
            biased = biased and (key_bias or role != "key")
            self.add_module(name, self.make_projection(inputs, outputs, biased, self.phases[role]))

    def make_projection(self, inputs: int, outputs: int, bias: bool, phase: str) -> nn.Module:
        """Create a randomly initialized linear layer from `inputs` to `outputs` features."""
        return nn.Linear(inputs, outputs, bias)

    def project(self, role: str, hidden: Tensor, norm: nn.LayerNorm | None = None) -> Tensor:
        """Apply a role's projection, after the norm if given, to [tokens, inputs]: [tokens, outputs]."""
        return linear_behind(norm, hidden, *self.weights(role, hidden), phase=self.phases[role])

    def weights(self, role: str, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight [outputs, inputs] and bias of a role's projection, to be applied to `hidden`."""
        module = self.projection(role)
        return module.weight, module.bias

    def projection(self, role: str) -> Any:
        """Linear module of a role, such as "query"."""
        return getattr(self, self.names[role])

    @property
    def output(self) -> Any:
        """Output projection, applied to the result of attention."""
        return self.projection("output")

    def queries(self, hidden: Tensor, norm: nn.LayerNorm | None = None) -> Tensor:
        """Queries [tokens, heads, head_dim] of hidden states [tokens, width], after the norm if given."""
        return self.split(self.project("query", hidden, norm))

    def key_values(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of hidden states [tokens, width], each [tokens, heads, head_dim]."""
        [pair] = all_key_values([self], hidden)
        return pair

    def queries_key_values(
        self, hidden: Tensor, norm: nn.LayerNorm | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of hidden states [tokens, width], each [tokens, heads, head_dim]."""
        normed = hidden if norm is None else normalize(norm, hidden)
        weights, biases = self.layers_of(self._all_roles, normed)
        phase = self.phases[self._all_roles[0]]
        query, key, value = joined_linear(normed, weights, biases, parts=3, phase=phase)
        return self.split(query), self.split(key), self.split(value)

    def attend(
        self, hidden: Tensor, attention: DecoderAttention, layer: int, norm: nn.LayerNorm | None = None
    ) -> Tensor:
        """Self-attention before the output projection: [tokens, width] to [tokens, heads * head_dim].

        Args:
            hidden: hidden states [tokens, width].
            attention: layout to attend in.
            layer: number of the layer.
            norm: layer norm of the hidden states; None for none.
        """
        places = attention.new_rows(layer)
        if places is None:
            mixed = attention.self_attention(layer, *self.queries_key_values(hidden, norm), self.scale)
            return mixed.flatten(1)
        weights, biases = self.layers_of(self._all_roles, hidden)
        norms: dict[str, Any] = {}
        if norm is not None:
            norms = {"norm_weight": norm.weight, "norm_bias": norm.bias, "eps": norm.eps}
        phase = self.phases[self._all_roles[0]]
        query = project_into_pages(hidden, weights, biases, places, phase=phase, **norms)
        return attention.stored_attention(layer, query, self.scale).flatten(1)

    def cross_attend(
        self, hidden: Tensor, attention: DecoderAttention, layer: int, norm: nn.LayerNorm | None = None
    ) -> Tensor:
        """Cross-attention to the encoder's output; arguments and result as in `attend`."""
        return attention.cross_attention(layer, self.queries(hidden, norm), self.scale).flatten(1)

    @property
    def key_roles(self) -> tuple[str, ...]:
        """Roles whose outputs are keys and values, in this order."""
        return ("key_value",) if "key_value" in self.names else ("key", "value")

    @property
    def _all_roles(self) -> tuple[str, ...]:
        """Roles whose outputs are queries, keys and values, in this order."""
        if "query_key_value" in self.names:
            return ("query_key_value",)
        return "query", *self.key_roles

    def layers_of(self, roles: Sequence[str], hidden: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """Weights and biases of several roles, to be applied to `hidden`."""
        found = [self.weights(role, hidden) for role in roles]
        return [weight for weight, _ in found], [bias for _, bias in found]

    def split(self, projected: Tensor) -> Tensor:
        """Heads of projected tokens: [tokens, heads * head_dim] to [tokens, heads, head_dim]."""
        # All sizes are explicit: with no tokens torch cannot infer a -1.
        return projected.reshape(len(projected), self.heads, self.head_dim)


def all_key_values(attentions: Sequence[Attention], hidden: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of hidden states [tokens, width] for several layers, by one product on a GPU.

    Returns:
        For each layer a pair of [tokens, heads, head_dim].
    """
    if not attentions:
        return []
    weights: list[Tensor] = []
    biases: list[Tensor | None] = []
    for one in attentions:
        own_weights, own_biases = one.layers_of(one.key_roles, hidden)
        weights += own_weights
        biases += own_biases
    first = attentions[0]
    phase = first.phases[first.key_roles[0]]
    parts = joined_linear(hidden, weights, biases, parts=2 * len(attentions), phase=phase)
    rows = iter([first.split(part) for part in parts])
    return list(zip(rows, rows, strict=True))


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
    key_bias: ClassVar[bool] = True  # biases in the key projections

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
        self.self_attn = Attention(width, heads, phase=self.phase, key_bias=self.key_bias)
        self.self_attn_layer_norm = nn.LayerNorm(width)

    def self_attention(self, hidden: Tensor, attention: DecoderAttention) -> Tensor:
        """Self-attention with its normalization and residual: [tokens, d_model] to the same shape."""
        own, norm = self.self_attn, self.self_attn_layer_norm
        mixed = own.attend(hidden, attention, self.index, self.before(norm))
        return self.after(norm, self.add(hidden, own.output, mixed))

    def feed_forward(self, hidden: Tensor, limit: float | None = None) -> Tensor:
        """Feed-forward with normalization and residual on [tokens, d_model], clamped to `limit` if given."""
        norm, first = self.final_layer_norm, self.fc1
        inner = apply_linear(first, hidden, self.activation, self.phase, self.before(norm))
        inner = F.dropout(inner, self.activation_dropout, self.training)
        return self.after(norm, self.add(hidden, self.fc2, inner, limit))

    def before(self, norm: nn.LayerNorm) -> nn.LayerNorm | None:
        """Norm of the input of attention or feed-forward: `norm` in a pre-norm layer, else None."""
        return norm if self.norm_first else None

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
        options: dict[str, Any] = {"phase": self.phase, "key_phase": "encode", "key_bias": self.key_bias}
        self.encoder_attn = Attention(width, heads, **options)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, attention: DecoderAttention) -> Tensor:
        """Run the layer on hidden states [tokens, d_model], in the given attention layout."""
        hidden = self.self_attention(hidden, attention)
        if attention.crosses:
            cross, norm = self.encoder_attn, self.encoder_attn_layer_norm
            mixed = cross.cross_attend(hidden, attention, self.index, self.before(norm))
            hidden = self.after(norm, self.add(hidden, cross.output, mixed))
        return self.feed_forward(hidden)

    @property
    def cross(self) -> Attention:
        """Cross-attention's projections."""
        return self.encoder_attn


def normalize(module: nn.LayerNorm, hidden: Tensor) -> Tensor:
    """Layer normalization of hidden states with a module's weight, bias and epsilon."""
    return layer_norm(hidden, module.weight, module.bias, module.eps)


def apply_linear(
    module: nn.Linear,
    hidden: Tensor,
    activation: str | None = None,
    phase: str = "encode",
    norm: nn.LayerNorm | None = None,
) -> Tensor:
    """Linear layer on [rows, inputs], `activation(module(norm(hidden)))`; `phase` is that of `linear`."""
    return linear_behind(norm, hidden, module.weight, module.bias, activation=activation, phase=phase)


def linear_behind(
    norm: nn.LayerNorm | None, hidden: Tensor, weight: Tensor, bias: Tensor | None, **options: Any
) -> Tensor:
    """Linear layer on the normalized hidden states, or on themselves without a norm; options of `linear`."""
    if norm is None:
        return linear(hidden, weight, bias, **options)
    return normalized_linear(hidden, norm.weight, norm.bias, norm.eps, weight, bias, **options)


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
