"""GPT-2: causal language model, and decoder with cross-attention."""

from typing import ClassVar

from torch import Tensor, nn

from ..core.causal_lm import NEXT_TOKEN_LOGITS, CausalLM
from ..core.forward import ENCODER_OUTPUT, OUTPUT_FLAGS, declare_forward
from ..core.model import PretrainedModel
from ..core.parameters import ParametersMixin
from ..core.stack import HIDDEN_STATES, TransformerStack, embed_tokens
from .config import GPT2Config
from .layers import GPT2MLP, Conv1D, GPT2Attention, GPT2Block

# First arguments of `forward`, in the order of transformers' GPT-2 and GPT-Neo models.
GPT_INPUTS = "input_ids past_key_values attention_mask token_type_ids position_ids inputs_embeds"


class GPT2Checkpoint(PretrainedModel):
    """Base class of GPT-2 models: configuration class, tensor names of checkpoints, initialization."""

    config_class = GPT2Config
    base_prefix = "transformer."
    # Causal masks that older checkpoints hold.
    ignored_keys: ClassVar[tuple[str, ...]] = (r"\.(attn|crossattention)\.(bias|masked_bias)$",)
    fresh_keys = (r"\.(crossattention|ln_cross_attn)\.",)

    def initialize(self) -> None:
        """Initialize weights randomly, those of residual projections scaled by 1 / sqrt(2 * n_layer)."""
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
    """Base class of GPT-2's and GPT-Neo's stacks: embeddings `wte`, `wpe`, layers `h`, final norm `ln_f`."""

    wte: nn.Embedding
    wpe: nn.Embedding
    h: nn.ModuleList
    ln_f: nn.LayerNorm

    layers_name = "h"
    embedding_name = "wte"

    @property
    def final_norm(self) -> nn.LayerNorm:
        return self.ln_f

    def embed(self, inputs: Tensor, position_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Embed tokens, before dropout: [tokens, width]; token types are embedded by the token table too."""
        embedded = embed_tokens(inputs, position_ids, self.wte, self.wpe.weight)
        return embedded if token_types is None else embedded + self.wte(token_types)


class GPT2Model(GPTStack, ParametersMixin, GPT2Checkpoint):
    """GPT-2 without a head: embeddings, causal layers and final norm.

    Args:
        config: model configuration; weights are randomly initialized.
        phase: phase of the `linear` kernel: "encode" for whole texts, "decode" for one token at a time.
    """

    dropout_fields = ("embd_pdrop", "attn_pdrop")

    forward = declare_forward(HIDDEN_STATES, f"{GPT_INPUTS} {ENCODER_OUTPUT} use_cache {OUTPUT_FLAGS}")

    def __init__(self, config: GPT2Config, phase: str = "encode") -> None:
        super().__init__(config)
        self.has_cross_attention = config.add_cross_attention
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList(GPT2Block(config, index, phase) for index in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.initialize()


class GPT2LMHeadModel(CausalLM, GPT2Checkpoint):
    """GPT-2 with a language-modeling head: logits and loss; a decoder for `SpeechEncoderDecoderModel`.

    Args:
        config: model configuration; weights are randomly initialized. `add_cross_attention` makes the model
            a decoder with cross-attention.
    """

    decoder_name = "transformer"
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
