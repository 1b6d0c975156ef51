"""fairseq's decoder, in BART, MBart and the Speech2Text models, with its checkpoints' names."""

from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from .causal_lm import CausalLM
from .config import PretrainedConfig
from .layers import DecoderLayer, Layer, embedding_scale, normalize
from .stack import PositionIndexer, StackSizes, TransformerStack, embed_tokens


class Positions(Protocol):
    """Module with a position table, learned or computed."""

    @property
    def table(self) -> Tensor:
        """[rows, d_model]."""
        ...

    @property
    def indexer(self) -> PositionIndexer:
        """Rows that a decoder's tokens read."""
        ...


class FairseqStack(TransformerStack):
    """Token embedding, positions and layers of an encoder or a decoder.

    Args:
        config: sizes, by the names of `BartConfig`.
        positions: a module that is a `Positions`.
        norm_first: layers normalize the input of their parts, and the last one's output is normalized too.
        embedding_norm: embedded tokens are normalized.
    """

    layer_class: ClassVar[type[Layer]]

    def __init__(
        self,
        config: PretrainedConfig,
        positions: nn.Module,
        *,
        norm_first: bool,
        embedding_norm: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.embed_positions: Any = positions
        self.layers = nn.ModuleList(
            self.layer_class(config, index, norm_first=norm_first) for index in range(self.sizes.layers)
        )
        if embedding_norm:
            self.layernorm_embedding = nn.LayerNorm(config.d_model)
        if norm_first:
            self.layer_norm = nn.LayerNorm(config.d_model)
        self.norms_embedding, self.norms_last = embedding_norm, norm_first

    @property
    def sizes(self) -> StackSizes:
        """Sizes of the stack."""
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
        """Rows of the position table that tokens read."""
        positions: Positions = self.embed_positions
        return positions.indexer

    @property
    def final_norm(self) -> nn.LayerNorm | None:
        """Norm of the last layer's output, where layers normalize their input."""
        return self.layer_norm if self.norms_last else None

    def embed(self, inputs: Tensor, position_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Embed tokens, before dropout: [tokens, d_model]; there are no token types."""
        table, scale = self.embed_positions.table, embedding_scale(self.config)
        embedded = embed_tokens(inputs, position_ids, self.embed_tokens, table, scale)
        return normalize(self.layernorm_embedding, embedded) if self.norms_embedding else embedded


class FairseqDecoder(FairseqStack):
    """Causal layers with cross-attention."""

    layer_class = DecoderLayer


class FairseqCausalLM(CausalLM):
    """fairseq's decoder with its map to the vocabulary, by transformers' parameter names.

    Args:
        config: sizes and constants; it becomes a decoder's, as in transformers.
        decoder: with fresh weights.
    """

    decoder_name: ClassVar[str] = "model.decoder"
    shifts_labels: ClassVar[bool] = False
    tied_weights: ClassVar[dict[str, str]] = {"lm_head.weight": "model.decoder.embed_tokens.weight"}
    # A checkpoint of encoder and decoder may hold a shared embedding by its common name alone.
    stand_in_keys: ClassVar[dict[str, str]] = {"model.decoder.embed_tokens.weight": "model.shared.weight"}
    ignored_keys: ClassVar[tuple[str, ...]] = (
        r"^model\.(encoder|shared)\.",
        r"^(model\.)?(final_logits_bias$|classification_head\.|qa_outputs\.)",
        r"^model\.decoder\.(version|embed_positions\._float_tensor)$",
    )

    def __init__(self, config: PretrainedConfig, decoder: FairseqDecoder) -> None:
        config.is_decoder, config.is_encoder_decoder = True, False
        super().__init__(config)
        self.model = _DecoderHalf(decoder)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.initialize()
        self.tie_weights()


class _DecoderHalf(nn.Module):
    """Gives a decoder the name that it has beside an encoder."""

    def __init__(self, decoder: FairseqDecoder) -> None:
        super().__init__()
        self.decoder = decoder
