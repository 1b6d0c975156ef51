"""GPT-2, a causal text model, and with cross-attention a decoder."""

from typing import ClassVar

from torch import Tensor, nn

from ..core.causal_lm import NEXT_TOKEN_LOGITS, CausalLM
from ..core.config import PretrainedConfig
from ..core.forward import ENCODER_OUTPUT, OUTPUT_FLAGS, declare_forward
from ..core.model import PretrainedModel
from ..core.parameters import ParametersMixin
from ..core.stack import HIDDEN_STATES, PositionIndexer, StackSizes, TransformerStack, embed_tokens
from .config import GPT2Config
from .layers import GPT2MLP, Conv1D, GPT2Attention, GPT2Block

# Arguments of `forward` in the order of GPT-2's and GPT-Neo's models.
GPT_INPUTS = "input_ids past_key_values attention_mask token_type_ids position_ids inputs_embeds"


class GPT2Checkpoint(PretrainedModel):
    """Names of GPT-2's checkpoints, and fresh weights."""

    config_class: ClassVar[type[PretrainedConfig]] = GPT2Config
    base_prefix: ClassVar[str | tuple[str, ...]] = "transformer."
    # Masks in older checkpoints.
    ignored_keys: ClassVar[tuple[str, ...]] = (r"\.(attn|crossattention)\.(bias|masked_bias)$",)
    fresh_keys: ClassVar[tuple[str, ...]] = (r"\.(crossattention|ln_cross_attn)\.",)

    def initialize(self) -> None:
        """Draw fresh weights; smaller ones where outputs are summed over the layers."""
        super().initialize()
        std = self.config.init_std
        for module in self.modules():
            if isinstance(module, Conv1D):
                nn.init.normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, GPT2Attention | GPT2MLP):
                nn.init.normal_(
                    module.get_parameter("c_proj.weight"), std=std / (2 * self.config.n_layer) ** 0.5
                )


class GPTStack(TransformerStack):
    """Names of GPT-2's and GPT-Neo's embeddings, layers and last norm."""

    wte: nn.Embedding
    wpe: nn.Embedding
    h: nn.ModuleList
    ln_f: nn.LayerNorm

    layers_name = "h"
    embedding_name = "wte"

    @property
    def final_norm(self) -> nn.LayerNorm:
        """Norm of the last layer's output."""
        return self.ln_f

    def embed(self, inputs: Tensor, position_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Embed tokens, before dropout: [tokens, width]; token types are tokens too."""
        embedded = embed_tokens(inputs, position_ids, self.wte, self.wpe.weight)
        return embedded if token_types is None else embedded + self.wte(token_types)


class GPT2Model(GPTStack, ParametersMixin, GPT2Checkpoint):
    """GPT-2 without a head.

    Args:
        config: sizes and constants; weights are fresh.
        phase: of `linear`: "encode" for whole texts at once, "decode" for token by token.
    """

    forward = declare_forward(HIDDEN_STATES, f"{GPT_INPUTS} {ENCODER_OUTPUT} use_cache {OUTPUT_FLAGS}")

    def __init__(self, config: GPT2Config, phase: str = "encode") -> None:
        super().__init__(config)
        self.has_cross_attention = config.add_cross_attention
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList(GPT2Block(config, index, phase) for index in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.initialize()

    @property
    def sizes(self) -> StackSizes:
        """Sizes of the stack."""
        config = self.config
        return StackSizes(config.n_layer, config.n_head, config.n_embd, config.embd_pdrop, config.attn_pdrop)

    @property
    def positions(self) -> PositionIndexer:
        """Rows of the position table that tokens read."""
        return PositionIndexer(0, self.config.n_positions)


class GPT2LMHeadModel(CausalLM, GPT2Checkpoint):
    """GPT-2 with its map to the vocabulary: losses, logits, and a decoder for `SpeechEncoderDecoderModel`.

    Args:
        config: sizes and constants; weights are fresh. `add_cross_attention` makes it a decoder beside an
            encoder.
    """

    decoder_name: ClassVar[str] = "transformer"
    tied_weights: ClassVar[dict[str, str]] = {"lm_head.weight": "transformer.wte.weight"}

    forward = declare_forward(
        NEXT_TOKEN_LOGITS, f"{GPT_INPUTS} {ENCODER_OUTPUT} labels use_cache logits_to_keep {OUTPUT_FLAGS}"
    )

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.transformer = GPT2Model(config, "decode")
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.initialize()
        self.tie_weights()
