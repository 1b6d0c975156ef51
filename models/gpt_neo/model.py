"""GPT-Neo: GPT-2 with local attention windows and unscaled attention scores."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..core.attention import DecoderAttention
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.layers import Attention, add_linear, apply_linear, normalize, select
from ..core.model import PretrainedModel
from ..core.outputs import BaseModelOutputWithPastAndCrossAttentions
from ..core.parameters import ParametersMixin
from ..core.stack import HIDDEN_STATES
from ..gpt2.classification import LastTokenClassifier
from ..gpt2.model import GPT_INPUTS, GPTStack
from .config import GPTNeoConfig


class GPTNeoCheckpoint(PretrainedModel):
    """Base class of GPT-Neo models: configuration class and tensor names of checkpoints."""

    config_class = GPTNeoConfig
    base_prefix = "transformer."
    # Causal masks that older checkpoints hold, and weights of heads for other tasks.
    ignored_keys = (
        r"\.attn\.attention\.(bias|masked_bias)$",
        r"^(lm_head|classifier|qa_outputs)\.",
    )


class GPTNeoAttention(nn.Module):
    """Wrapper that gives self-attention, with unscaled scores, its checkpoint name `attention`."""

    def __init__(self, config: GPTNeoConfig) -> None:
        super().__init__()
        self.attention = Attention(config.hidden_size, config.num_heads, scale=1.0, bias=False)


class GPTNeoMLP(nn.Module):
    """Feed-forward block of a layer."""

    def __init__(self, config: GPTNeoConfig) -> None:
        super().__init__()
        width = config.hidden_size
        inner = 4 * width if config.intermediate_size is None else config.intermediate_size
        self.activation = config.activation_function
        self.dropout = config.resid_dropout
        self.c_fc = nn.Linear(width, inner)
        self.c_proj = nn.Linear(inner, width)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Residual plus feed-forward block of `hidden`; [tokens, width] each."""
        inner = apply_linear(self.c_fc, hidden, self.activation)
        return add_linear(self.c_proj, inner, residual, self.dropout, self.training)


class GPTNeoBlock(nn.Module):
    """Pre-norm transformer layer: causal self-attention, then feed-forward block."""

    def __init__(self, config: GPTNeoConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.dropout = config.resid_dropout
        self.ln_1 = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.attn = GPTNeoAttention(config)
        self.ln_2 = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mlp = GPTNeoMLP(config)

    def forward(self, hidden: Tensor, attention: DecoderAttention, selected: Tensor | None = None) -> Tensor:
        """Run the layer on hidden states [tokens, width]; returns those of `selected` tokens, or of all."""
        own = self.attn.attention
        mixed = select(own.attend(hidden, attention, self.index, self.ln_1), selected)
        hidden = add_linear(own.output, mixed, select(hidden, selected), self.dropout, self.training)
        return self.mlp(normalize(self.ln_2, hidden), hidden)


class GPTNeoModel(GPTStack, ParametersMixin, GPTNeoCheckpoint):
    """GPT-Neo without a head: embeddings, causal global and local layers, final norm."""

    has_cross_attention = False
    dropout_fields = ("embed_dropout", "attention_dropout")

    forward = declare_forward(HIDDEN_STATES, f"{GPT_INPUTS} use_cache {OUTPUT_FLAGS}")

    def __init__(self, config: GPTNeoConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.h = nn.ModuleList(GPTNeoBlock(config, index) for index in range(config.num_layers))
        self.ln_f = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.initialize()

    def forward_named(self, **inputs: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        """Run `forward` with keyword arguments; the output has no `cross_attentions`, as in transformers."""
        return replace(self.run_padded(**inputs), cross_attentions=None)

    @property
    def windows(self) -> Sequence[int | None]:
        size = self.config.window_size
        return [size if kind == "local" else None for kind in self.config.attention_layers]


class GPTNeoForSequenceClassification(LastTokenClassifier, GPTNeoCheckpoint):
    """GPT-Neo sequence classifier: linear classification head on each text's last token."""

    base_class = GPTNeoModel
