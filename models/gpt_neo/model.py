"""GPT-Neo: GPT-2 with layers that see a window of the text, and scores that are not scaled."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ..core.attention import DecoderAttention
from ..core.config import PretrainedConfig
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.layers import Attention, add_linear, normalize, select
from ..core.model import PretrainedModel
from ..core.outputs import BaseModelOutputWithPastAndCrossAttentions
from ..core.parameters import ParametersMixin
from ..core.stack import HIDDEN_STATES, PositionIndexer, StackSizes
from ..gpt2.classification import LastTokenClassifier
from ..gpt2.model import GPT_INPUTS, GPTStack
from .config import GPTNeoConfig


class GPTNeoCheckpoint(PretrainedModel):
    """Names of GPT-Neo's checkpoints."""

    config_class: ClassVar[type[PretrainedConfig]] = GPTNeoConfig
    base_prefix: ClassVar[str | tuple[str, ...]] = "transformer."
    # Masks in older checkpoints, and the heads of other tasks.
    ignored_keys: ClassVar[tuple[str, ...]] = (
        r"\.attn\.attention\.(bias|masked_bias)$",
        r"^(lm_head|classifier|qa_outputs)\.",
    )


class GPTNeoAttention(nn.Module):
    """The attention by its name in checkpoints; its scores are not scaled."""

    def __init__(self, config: GPTNeoConfig) -> None:
        super().__init__()
        self.attention = Attention(config.hidden_size, config.num_heads, scale=1.0, bias=False)


class GPTNeoMLP(nn.Module):
    """The second half of a layer."""

    def __init__(self, config: GPTNeoConfig) -> None:
        super().__init__()
        width = config.hidden_size
        inner = 4 * width if config.intermediate_size is None else config.intermediate_size
        self.activation = config.activation_function
        self.dropout = config.resid_dropout
        self.c_fc = nn.Linear(width, inner)
        self.c_proj = nn.Linear(inner, width)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """[tokens, width] each to the same."""
        inner = linear(hidden, self.c_fc.weight, self.c_fc.bias, activation=self.activation)
        return add_linear(self.c_proj, inner, residual, self.dropout if self.training else 0.0)


class GPTNeoBlock(nn.Module):
    """Self-attention, then feed-forward, each normalized first.

    Args:
        config: sizes.
        index: of the layer.
    """

    def __init__(self, config: GPTNeoConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.dropout = config.resid_dropout
        self.ln_1 = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.attn = GPTNeoAttention(config)
        self.ln_2 = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mlp = GPTNeoMLP(config)

    def forward(self, hidden: Tensor, attention: DecoderAttention, selected: Tensor | None = None) -> Tensor:
        """[tokens, width] to the same, of `selected` tokens alone if given, in the given attention layout."""
        own = self.attn.attention
        mixed = select(own.attend(normalize(self.ln_1, hidden), attention, self.index), selected)
        dropout = self.dropout if self.training else 0.0
        hidden = add_linear(own.output, mixed, select(hidden, selected), dropout)
        return self.mlp(normalize(self.ln_2, hidden), hidden)


class GPTNeoModel(GPTStack, ParametersMixin, GPTNeoCheckpoint):
    """GPT-Neo without a head.

    Args:
        config: sizes and constants; weights are fresh.
    """

    has_cross_attention = False

    forward = declare_forward(HIDDEN_STATES, f"{GPT_INPUTS} use_cache {OUTPUT_FLAGS}")

    def __init__(self, config: GPTNeoConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.h = nn.ModuleList(GPTNeoBlock(config, index) for index in range(config.num_layers))
        self.ln_f = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.initialize()

    def forward_named(self, **inputs: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        """`forward` with its arguments by name, without `cross_attentions`, as in transformers."""
        return replace(self.run_padded(**inputs), cross_attentions=None)

    @property
    def sizes(self) -> StackSizes:
        """Sizes of the stack."""
        config = self.config
        return StackSizes(
            config.num_layers,
            config.num_heads,
            config.hidden_size,
            config.embed_dropout,
            config.attention_dropout,
        )

    @property
    def positions(self) -> PositionIndexer:
        """Rows of the position table that tokens read."""
        return PositionIndexer(0, self.config.max_position_embeddings)

    @property
    def windows(self) -> Sequence[int | None]:
        """Keys that each layer's self-attention sees, None for all."""
        size = self.config.window_size
        return [size if kind == "local" else None for kind in self.config.attention_layers]


class GPTNeoForSequenceClassification(LastTokenClassifier, GPTNeoCheckpoint):
    """GPT-Neo with a map of each text's last token to labels."""

    base_class = GPTNeoModel
