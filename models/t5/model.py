"""T5 (arXiv 1910.10683) and T5 1.1: text encoder-decoder and sequence classifier."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.attention import DecoderAttention, StackAttention
from ..core.classification import ClassificationHead
from ..core.encoder_decoder import TextToTextModel
from ..core.encoder_decoder_classifier import TextToTextClassifier
from ..core.layers import run_layers, select
from ..core.model import PretrainedModel
from ..core.stack import PositionIndexer, StackSizes, TransformerStack, embed_tokens
from .config import T5Config
from .layers import BiasedAttention, T5Attention, T5Block, T5FeedForward, T5LayerNorm

_NO_LIMIT = 2**31 - 1  # on the length of a text: every distance has a bias


class T5Stack(TransformerStack):
    """Transformer stack of T5: its encoder or its decoder.

    Args:
        config: model configuration.
        decoder: True for causal layers with cross-attention.
    """

    layers_name = "block"

    def __init__(self, config: T5Config, *, decoder: bool) -> None:
        super().__init__()
        self.config = config
        self.causal = self.has_cross_attention = decoder
        self.argument_prefix = "decoder_" if decoder else ""
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        layers = config.num_decoder_layers if decoder else config.num_layers
        self.block = nn.ModuleList(T5Block(config, index, decoder=decoder) for index in range(layers))
        self.final_layer_norm = T5LayerNorm(config)

    @property
    def sizes(self) -> StackSizes:
        config, dropout = self.config, self.config.dropout_rate
        return StackSizes(len(self.block), config.num_heads, config.d_model, dropout, dropout)

    @property
    def positions(self) -> PositionIndexer:
        """Position indexer without a length limit, since T5 has no position-embedding table."""
        return PositionIndexer(0, _NO_LIMIT)

    def embed(self, inputs: Tensor, position_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Embed tokens, before dropout: [tokens, d_model]; positions and token types are ignored."""
        zero = self.embed_tokens.weight.new_zeros(1, self.config.d_model)
        return embed_tokens(inputs, torch.zeros_like(position_ids), self.embed_tokens, zero)

    def packed_attention(self, cu_query: Tensor, cu_key: Tensor, **options: Any) -> StackAttention:
        """Self-attention layout with the bias table of the first layer, which all layers share."""
        if not len(self.block):
            return super().packed_attention(cu_query, cu_key, **options)
        first: Any = self.block[0]
        table = first.layer[0].SelfAttention.relative_attention_bias.weight
        buckets = self.config.buckets(causal=self.causal)
        return BiasedAttention(cu_query, cu_key, table, buckets, causal=self.causal, **options)

    def run_packed(
        self,
        embedded: Tensor,
        attention: DecoderAttention,
        states: list[Tensor] | None = None,
        selected: Tensor | None = None,
    ) -> Tensor:
        """Run the layers on embedded tokens [tokens, d_model]; dropout also follows the final norm."""
        dropout = self.config.dropout_rate
        hidden = F.dropout(embedded, dropout, self.training)
        hidden = select(run_layers(self.block, None, hidden, attention, 0.0, states), selected)
        hidden = F.dropout(self.final_layer_norm(hidden), dropout, self.training)
        if states is not None:
            states[-1] = hidden
        return hidden


class T5Checkpoint(PretrainedModel):
    """Base class of T5 models: configuration class, tensor names of checkpoints, initialization."""

    config_class = T5Config
    float32_modules = ("wo",)
    main_input_name = "input_ids"
    ignored_keys = (
        r"^(transformer\.)?(lm_head|qa_outputs|classifier|classification_head)\.",
        # Cross-attention has no position bias; the first checkpoints hold an unused table.
        r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$",
    )

    def initialize(self) -> None:
        """Initialize weights randomly, as transformers does.

        Narrower inputs get larger weights, since neither attention scores nor embeddings are scaled.
        """
        config = self.config
        factor, width = config.initializer_factor, config.d_model**-0.5
        for name, module in self.named_modules():
            if isinstance(module, T5LayerNorm):
                nn.init.constant_(module.weight, factor)
            elif isinstance(module, T5Attention):
                nn.init.normal_(module.projection("query").weight, std=factor * width * config.d_kv**-0.5)
                nn.init.normal_(module.projection("key").weight, std=factor * width)
                nn.init.normal_(module.projection("value").weight, std=factor * width)
                nn.init.normal_(module.output.weight, std=factor * (config.num_heads * config.d_kv) ** -0.5)
            elif isinstance(module, T5FeedForward):
                for which, weight in module.named_parameters():
                    spread = config.d_ff**-0.5 if which.startswith("wo") else width
                    nn.init.normal_(weight, std=factor * spread)
            elif isinstance(module, ClassificationHead):
                for linear in (module.dense, module.out_proj):
                    nn.init.normal_(linear.weight, std=factor * width)
                    nn.init.zeros_(linear.bias)
            elif isinstance(module, nn.Embedding):
                biases = name.endswith("relative_attention_bias")
                nn.init.normal_(module.weight, std=factor * width if biases else factor)


class T5Model(T5Checkpoint, TextToTextModel):
    """T5 without a head: encoder and decoder with a shared token embedding."""

    base_prefix = "transformer."
    tied_weights: ClassVar[dict[str, str]] = {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    }

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Stack(config, decoder=False)
        self.decoder = T5Stack(config, decoder=True)
        self.tie_weights()
        self.initialize()

    @property
    def ties_embeddings(self) -> bool:
        """True always, since `tie_word_embeddings` concerns the language-modeling head only."""
        return True


class T5ForSequenceClassification(T5Checkpoint, TextToTextClassifier):
    """T5 sequence classifier: classification head on the decoder's last EOS token."""

    base_class = T5Model
    base_name = "transformer"
    base_prefix = "transformer."
    ignored_keys = (
        r"^(transformer\.)?(lm_head|qa_outputs|classifier)\.",
        *T5Checkpoint.ignored_keys[1:],
    )
    tied_weights: ClassVar[dict[str, str]] = {
        f"transformer.{name}": f"transformer.{home}" for name, home in T5Model.tied_weights.items()
    }
