"""The decoder that BART, MBart and the Speech2Text models have from fairseq, with its checkpoints' names."""

from typing import ClassVar, Protocol

from torch import Tensor, nn

from .causal_lm import CausalLM
from .config import PretrainedConfig
from .layers import DecoderLayer, embedding_scale, normalize
from .stack import DecoderSizes, PositionIndexer, TransformerStack, embed_tokens


class Positions(Protocol):
    """A module with a position table, learned or computed."""

    @property
    def table(self) -> Tensor:
        """[rows, d_model]."""
        ...

    @property
    def rows(self) -> PositionIndexer:
        """Which of them a decoder's tokens read."""
        ...


class FairseqDecoder(TransformerStack):
    """Token embedding, positions and layers.

    Args:
        config: sizes, by the names of `BartConfig`.
        positions: a module that is a `Positions`.
        norm_first: whether layers normalize their parts' input, and the last one's output is normalized too.
        embedding_norm: whether what is embedded is normalized.
    """

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
        self.embed_positions = positions
        self.layers = nn.ModuleList(
            DecoderLayer(config, index, norm_first=norm_first) for index in range(config.decoder_layers)
        )
        if embedding_norm:
            self.layernorm_embedding = nn.LayerNorm(config.d_model)
        if norm_first:
            self.layer_norm = nn.LayerNorm(config.d_model)
        self.norms_embedding, self.norms_last = embedding_norm, norm_first

    @property
    def sizes(self) -> DecoderSizes:
        """See `TransformerStack`."""
        config = self.config
        return DecoderSizes(
            config.decoder_layers,
            config.decoder_attention_heads,
            config.d_model,
            config.dropout,
            config.attention_dropout,
            config.decoder_layerdrop,
        )

    @property
    def positions(self) -> PositionIndexer:
        """See `TransformerStack`."""
        return self._position_table.rows

    @property
    def layer_stack(self) -> nn.ModuleList:
        """See `TransformerStack`."""
        return self.layers

    @property
    def final_norm(self) -> nn.LayerNorm | None:
        """See `TransformerStack`."""
        return self.layer_norm if self.norms_last else None

    @property
    def _position_table(self) -> Positions:
        return self.embed_positions  # type: ignore[return-value]

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.embed_tokens

    def embed(self, given: Tensor, rows: Tensor, token_types: Tensor | None = None) -> Tensor:
        """See `TransformerStack`; there are no token types."""
        table, scale = self._position_table.table, embedding_scale(self.config)
        embedded = embed_tokens(given, rows, self.embed_tokens, table, scale)
        return normalize(self.layernorm_embedding, embedded) if self.norms_embedding else embedded


class FairseqCausalLM(CausalLM):
    """Such a decoder with its map to the vocabulary, by the names that it has in transformers.

    Args:
        config: sizes and constants. It becomes a decoder's, as in transformers.
        decoder: with fresh weights.
    """

    shifts_labels: ClassVar[bool] = False
    tied_weights: ClassVar[dict[str, str]] = {"lm_head.weight": "model.decoder.embed_tokens.weight"}
    # Where encoder and decoder share one embedding, a checkpoint may hold it by its common name alone.
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

    def get_decoder(self) -> FairseqDecoder:
        """The decoder, which takes padded tokens as in transformers."""
        return self.model.decoder

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding; `tie_weights` makes the output map follow."""
        self.model.decoder.embed_tokens = value

    def get_output_embeddings(self) -> nn.Linear:
        """The map to the vocabulary."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the map to the vocabulary."""
        self.lm_head = new_embeddings


class _DecoderHalf(nn.Module):
    """Gives a decoder the place in a checkpoint's names that it has beside an encoder."""

    def __init__(self, decoder: FairseqDecoder) -> None:
        super().__init__()
        self.decoder = decoder
