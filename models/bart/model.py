"""BART (arXiv 1910.13461): learned positions, layers that normalize what they put out."""

from typing import ClassVar

from torch import Tensor, nn

from ..core.config import PretrainedConfig
from ..core.encoder_decoder import TextToTextModel
from ..core.encoder_decoder_classifier import ClassificationHead, TextToTextClassifier
from ..core.fairseq_decoder import FairseqCausalLM, FairseqDecoder
from ..core.layers import EncoderLayer, embedding_scale, normalize
from ..core.stack import DecoderSizes, PositionIndexer, TransformerStack, embed_tokens
from .config import BartConfig, BartLikeConfig


class LearnedPositions(nn.Embedding):
    """A position table whose first two rows nothing reads.

    Args:
        limit: tokens of the longest sequence.
        width: of the hidden states.
    """

    def __init__(self, limit: int, width: int) -> None:
        super().__init__(limit + 2, width)

    @property
    def table(self) -> Tensor:
        """[limit + 2, width]."""
        return self.weight

    @property
    def rows(self) -> PositionIndexer:
        """See `TransformerStack.positions`."""
        return PositionIndexer(first=2, limit=self.num_embeddings - 2)


class BartDecoder(FairseqDecoder):
    """What is embedded is normalized; so is what every part of a layer puts out, and nothing after that."""

    def __init__(self, config: BartLikeConfig, *, norm_first: bool = False) -> None:
        positions = LearnedPositions(config.max_position_embeddings, config.d_model)
        super().__init__(config, positions, norm_first=norm_first, embedding_norm=True)


class BartForCausalLM(FairseqCausalLM):
    """BART's decoder with its map to the vocabulary; its own checkpoints load, and those of all of BART.

    Args:
        config: sizes and constants; weights are fresh.
    """

    config_class: ClassVar[type[PretrainedConfig]] = BartConfig

    def __init__(self, config: BartConfig) -> None:
        super().__init__(config, BartDecoder(config))


class BartEncoder(TransformerStack):
    """As the decoder, but that tokens see all of their text, and nothing else.

    Args:
        config: sizes and constants.
    """

    causal = False
    has_cross_attention = False

    def __init__(self, config: BartConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.embed_positions = LearnedPositions(config.max_position_embeddings, config.d_model)
        self.layers = nn.ModuleList(
            EncoderLayer(config, index, norm_first=False) for index in range(config.encoder_layers)
        )
        self.layernorm_embedding = nn.LayerNorm(config.d_model)

    @property
    def sizes(self) -> DecoderSizes:
        """See `TransformerStack`."""
        config = self.config
        return DecoderSizes(
            config.encoder_layers,
            config.encoder_attention_heads,
            config.d_model,
            config.dropout,
            config.attention_dropout,
            config.encoder_layerdrop,
        )

    @property
    def positions(self) -> PositionIndexer:
        """See `TransformerStack`."""
        return self.embed_positions.rows

    @property
    def layer_stack(self) -> nn.ModuleList:
        """See `TransformerStack`."""
        return self.layers

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.embed_tokens

    def embed(self, given: Tensor, rows: Tensor, token_types: Tensor | None = None) -> Tensor:
        """See `TransformerStack`; there are no token types."""
        scale = embedding_scale(self.config)
        embedded = embed_tokens(given, rows, self.embed_tokens, self.embed_positions.table, scale)
        return normalize(self.layernorm_embedding, embedded)


class BartModel(TextToTextModel):
    """BART without a head. Without `decoder_input_ids` its decoder reads the input a place later.

    Args:
        config: sizes and constants; weights are fresh.
    """

    config_class: ClassVar[type[PretrainedConfig]] = BartConfig
    reads_input: ClassVar[bool] = True
    main_input_name: ClassVar[str] = "input_ids"
    tied_weights: ClassVar[dict[str, str]] = {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    }
    ignored_keys: ClassVar[tuple[str, ...]] = (
        r"^(model\.)?(lm_head\.|final_logits_bias$|classification_head\.|qa_outputs\.)",
        r"(encoder|decoder)\.version$",
    )

    def __init__(self, config: BartConfig) -> None:
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.encoder = BartEncoder(config)
        self.decoder = BartDecoder(config)
        self.decoder.argument_prefix = "decoder_"
        self.tie_weights()
        self.initialize()


class BartForSequenceClassification(TextToTextClassifier):
    """BART with a head that reads the last end token.

    Args:
        config: sizes and constants; weights are fresh.
    """

    config_class: ClassVar[type[PretrainedConfig]] = BartConfig
    base_name: ClassVar[str] = "model"
    tied_weights: ClassVar[dict[str, str]] = {
        f"model.{name}": f"model.{home}" for name, home in BartModel.tied_weights.items()
    }
    ignored_keys: ClassVar[tuple[str, ...]] = (
        r"^(model\.)?(lm_head\.|final_logits_bias$|qa_outputs\.)",
        *BartModel.ignored_keys[1:],
    )

    def __init__(self, config: BartConfig) -> None:
        super().__init__(config)
        self.model = BartModel(config)
        self.classification_head = ClassificationHead(
            config.d_model, config.num_labels, config.classifier_dropout
        )
        self.initialize()
