"""GPT-2, a causal text model, and with cross-attention a decoder."""

from typing import Any, ClassVar

from torch import Tensor, nn

from ..core.causal_lm import CausalLM
from ..core.config import PretrainedConfig
from ..core.model import PretrainedModel
from ..core.outputs import (
    BaseModelOutputWithPastAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
    as_asked,
)
from ..core.parameters import ParametersMixin
from ..core.stack import DecoderSizes, PositionIndexer, TransformerStack, embed_tokens
from .config import GPT2Config
from .layers import GPT2MLP, Conv1D, GPT2Attention, GPT2Block


class GPT2Checkpoint(PretrainedModel):
    """How checkpoints of GPT-2 name what they hold, and how fresh weights are drawn."""

    config_class: ClassVar[type[PretrainedConfig]] = GPT2Config
    base_prefix: ClassVar[str | tuple[str, ...]] = "transformer."
    # Masks that older checkpoints keep.
    ignored_keys: ClassVar[tuple[str, ...]] = (r"\.(attn|crossattention)\.(bias|masked_bias)$",)
    fresh_keys: ClassVar[tuple[str, ...]] = (r"\.(crossattention|ln_cross_attn)\.",)

    def initialize(self) -> None:
        """Fresh weights; those whose outputs are summed up over the layers are the smaller for it."""
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
    """The names that GPT-2 and GPT-Neo give their tables, layers and last norm."""

    wte: nn.Embedding
    wpe: nn.Embedding
    h: nn.ModuleList
    ln_f: nn.LayerNorm

    @property
    def layer_stack(self) -> nn.ModuleList:
        """See `TransformerStack`."""
        return self.h

    @property
    def final_norm(self) -> nn.LayerNorm:
        """See `TransformerStack`."""
        return self.ln_f

    def embed(self, given: Tensor, rows: Tensor, token_types: Tensor | None = None) -> Tensor:
        """See `TransformerStack`."""
        embedded = embed_tokens(given, rows, self.wte, self.wpe.weight)
        return embedded if token_types is None else embedded + self.wte(token_types)

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.wte

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding."""
        self.wte = value


class GPT2Model(GPTStack, ParametersMixin, GPT2Checkpoint):
    """GPT-2 without a head.

    Args:
        config: sizes and constants; weights are fresh.
        phase: of `linear`: "encode" for whole texts at once, "decode" for token by token.
    """

    def __init__(self, config: GPT2Config, phase: str = "encode") -> None:
        super().__init__(config)
        self.has_cross_attention = config.add_cross_attention
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList(GPT2Block(config, index, phase) for index in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.initialize()

    def forward(  # type: ignore[override]  # its order of arguments is another one
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPastAndCrossAttentions | tuple[Any, ...]:
        """Hidden states of every given token; each row's are what they would be alone.

        Args:
            token_type_ids: int64 [batch, target], tokens whose vectors are added to those of the input.
            position_ids: int64 [batch or 1, target], rows of the position table instead of counted ones.

        The other arguments are `TransformerStack.forward`'s.

        Raises:
            ValueError: inputs that are missing or do not fit, or more tokens than there are positions.
        """
        output = self.run_padded(
            input_ids,
            inputs_embeds,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        return as_asked(output, return_dict, self.config)

    @property
    def sizes(self) -> DecoderSizes:
        """See `TransformerStack`."""
        config = self.config
        return DecoderSizes(
            config.n_layer, config.n_head, config.n_embd, config.embd_pdrop, config.attn_pdrop
        )

    @property
    def positions(self) -> PositionIndexer:
        """See `TransformerStack`."""
        return PositionIndexer(0, self.config.n_positions)


class GPT2LMHeadModel(CausalLM, GPT2Checkpoint):
    """GPT-2 with its map to the vocabulary: losses, logits, and a decoder for `SpeechEncoderDecoderModel`.

    Args:
        config: sizes and constants; weights are fresh. `add_cross_attention` makes it a decoder beside an
            encoder.
    """

    tied_weights: ClassVar[dict[str, str]] = {"lm_head.weight": "transformer.wte.weight"}

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.transformer = GPT2Model(config, "decode")
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.initialize()
        self.tie_weights()

    def forward(  # type: ignore[override]  # its order of arguments is another one
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithCrossAttentions | tuple[Any, ...]:
        """Logits after every given token, and with labels the loss; see `GPT2Model.forward`.

        Args:
            labels: int64 [batch, target], the tokens themselves, -100 where nothing is to be predicted: each
                is compared with the logits one place before it.
            logits_to_keep: return those of so many last places alone; all for 0.

        Raises:
            ValueError: inputs that are missing or do not fit, or more tokens than there are positions.
        """
        output = self.transformer.run_padded(
            input_ids,
            inputs_embeds,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        return self.finish(output, labels, logits_to_keep, return_dict)

    def get_decoder(self) -> GPT2Model:
        """The model without its head, which takes padded tokens as in transformers."""
        return self.transformer

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding; `tie_weights` makes the output map follow."""
        self.transformer.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        """The map to the vocabulary."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the map to the vocabulary."""
        self.lm_head = new_embeddings
