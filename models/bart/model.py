"""BART (arXiv 1910.13461): learned positions, layers that normalize their output."""

from typing import ClassVar

from torch import Tensor, nn

from ..core.config import PretrainedConfig
from ..core.encoder_decoder import TextToTextModel
from ..core.encoder_decoder_classifier import TextToTextClassifier
from ..core.fairseq_decoder import FairseqCausalLM, FairseqDecoder, FairseqStack
from ..core.layers import EncoderLayer
from ..core.stack import PositionIndexer
from .config import BartConfig, BartLikeConfig


class LearnedPositions(nn.Embedding):
    """Position table with two unused rows first.

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
    def indexer(self) -> PositionIndexer:
        """Rows that tokens read."""
        return PositionIndexer(first=2, limit=self.num_embeddings - 2)


class BartDecoder(FairseqDecoder):
    """BART's decoder: embedded tokens and the output of every part of a layer are normalized."""

    def __init__(self, config: BartLikeConfig, *, norm_first: bool = False) -> None:
        positions = LearnedPositions(config.max_position_embeddings, config.d_model)
        super().__init__(config, positions, norm_first=norm_first, embedding_norm=True)


class BartEncoder(FairseqStack):
    """BART's encoder: every token sees all of its text."""

    layer_class = EncoderLayer
    causal = False
    has_cross_attention = False

    def __init__(self, config: BartConfig) -> None:
        positions = LearnedPositions(config.max_position_embeddings, config.d_model)
        super().__init__(config, positions, norm_first=False, embedding_norm=True)


class BartForCausalLM(FairseqCausalLM):
    """BART's decoder with its map to the vocabulary; checkpoints of the whole model load too.

    Args:
        config: sizes and constants; weights are fresh.
    """

    config_class: ClassVar[type[PretrainedConfig]] = BartConfig

    def __init__(self, config: BartConfig) -> None:
        super().__init__(config, BartDecoder(config))


class BartModel(TextToTextModel):
    """BART without a head. Without `decoder_input_ids` its decoder reads the input shifted right.

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
    """BART with a head on the last end token.

    Args:
        config: sizes and constants; weights are fresh.
    """

    config_class: ClassVar[type[PretrainedConfig]] = BartConfig
    base_class = BartModel
    base_name: ClassVar[str] = "model"
    tied_weights: ClassVar[dict[str, str]] = {
        f"model.{name}": f"model.{home}" for name, home in BartModel.tied_weights.items()
    }
    ignored_keys: ClassVar[tuple[str, ...]] = (
        r"^(model\.)?(lm_head\.|final_logits_bias$|qa_outputs\.)",
        *BartModel.ignored_keys[1:],
    )
