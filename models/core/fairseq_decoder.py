"""Decoder of fairseq, used by BART, MBart and Speech2Text, with transformers' parameter names."""

from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from .causal_lm import CausalLM
from .config import PretrainedConfig
from .layers import DecoderLayer, Layer, embedding_scale, normalize
from .stack import PositionIndexer, StackSizes, TransformerStack, embed_tokens


class Positions(Protocol):
    """Module with a position-embedding table, learned or sinusoidal."""

    @property
    def table(self) -> Tensor:
        """Position-embedding table [rows, d_model]."""
        ...

    @property
    def indexer(self) -> PositionIndexer:
        """Map from tokens to row indices of the position-embedding table."""
        ...


class FairseqStack(TransformerStack):
    """Encoder or decoder of fairseq: token embedding, position embedding and layers.

    Args:
        config: configuration with sizes by the field names of `BartConfig`.
    """

    layer_class: ClassVar[type[Layer]]
    # Pre-norm: layers normalize the input of attention and MLP, and a last norm follows the layers.
    norm_first: ClassVar[bool]
    embedding_norm: ClassVar[bool] = False  # normalize embedded tokens

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config
        positions = self.make_positions(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.embed_positions: Any = positions
        self.layers = nn.ModuleList(
            self.layer_class(config, index, norm_first=self.norm_first) for index in range(self.sizes.layers)
        )
        if self.embedding_norm:
            self.layernorm_embedding = nn.LayerNorm(config.d_model)
        if self.norm_first:
            self.layer_norm = nn.LayerNorm(config.d_model)

    def make_positions(self, config: PretrainedConfig) -> nn.Module:
        """Make the position-embedding module, a `Positions`."""
        raise NotImplementedError

    @property
    def sizes(self) -> StackSizes:
        config, part = self.config, self.layer_class.part
        return StackSizes(
            getattr(config, f"{part}_layers"),
            getattr(config, f"{part}_attention_heads"),
            config.d_model,
            config.dropout,
            config.attention_dropout,
            getattr(config, f"{part}_layerdrop"),
        )

    @property
    def positions(self) -> PositionIndexer:
        positions: Positions = self.embed_positions
        return positions.indexer

    @property
    def final_norm(self) -> nn.LayerNorm | None:
        return self.layer_norm if self.norm_first else None

    def embed(self, inputs: Tensor, position_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Embed tokens and positions, before dropout: [tokens, d_model]; token types are ignored."""
        table, scale = self.embed_positions.table, embedding_scale(self.config)
        embedded = embed_tokens(inputs, position_ids, self.embed_tokens, table, scale)
        return normalize(self.layernorm_embedding, embedded) if self.embedding_norm else embedded


class FairseqDecoder(FairseqStack):
    """Decoder of fairseq: causal layers with cross-attention."""

    layer_class = DecoderLayer


class FairseqCausalLM(CausalLM):
    """fairseq's decoder with a language-modeling head, with transformers' parameter names.

    Args:
        config: sizes and constants; its `is_decoder` and `is_encoder_decoder` are set to True and False.
    """

    decoder_class: ClassVar[type[FairseqDecoder]]
    decoder_name: ClassVar[str] = "model.decoder"
    shifts_labels: ClassVar[bool] = False
    tied_weights: ClassVar[dict[str, str]] = {"lm_head.weight": "model.decoder.embed_tokens.weight"}
    # An encoder-decoder checkpoint may hold the shared token embedding by the name `model.shared` alone.
    stand_in_keys: ClassVar[dict[str, str]] = {"model.decoder.embed_tokens.weight": "model.shared.weight"}
    ignored_keys: ClassVar[tuple[str, ...]] = (
        r"^model\.(encoder|shared)\.",
        r"^(model\.)?(final_logits_bias$|classification_head\.|qa_outputs\.)",
        r"^model\.decoder\.(version|embed_positions\._float_tensor)$",
    )

    def __init__(self, config: PretrainedConfig) -> None:
        config.is_decoder, config.is_encoder_decoder = True, False
        super().__init__(config)
        self.model = _DecoderHalf(self.decoder_class(config))
        setattr(self, self.head_name, nn.Linear(config.d_model, config.vocab_size, bias=False))
        self.initialize()
        self.tie_weights()


class _DecoderHalf(nn.Module):
    """Wrapper of a decoder, so that its parameters are named as in an encoder-decoder model."""

    def __init__(self, decoder: FairseqDecoder) -> None:
        super().__init__()
        self.decoder = decoder
