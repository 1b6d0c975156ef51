"""BART (arXiv 1910.13461): encoder-decoder with learned position embeddings and post-norm layers."""

from typing import ClassVar

from torch import Tensor, nn

from ..core.config import PretrainedConfig
from ..core.encoder_decoder import TextToTextModel
from ..core.encoder_decoder_classifier import TextToTextClassifier
from ..core.fairseq_decoder import FairseqCausalLM, FairseqDecoder, FairseqStack
from ..core.fields import divides
from ..core.layers import EncoderLayer
from ..core.stack import PositionIndexer
from .config import BartConfig


class LearnedPositions(nn.Embedding):
    """Learned position-embedding table whose first two rows are unused.

    Args:
        limit: maximum sequence length in tokens.
        width: width of the hidden states.
    """

    def __init__(self, limit: int, width: int) -> None:
        super().__init__(limit + 2, width)

    @property
    def table(self) -> Tensor:
        """Position-embedding table, [limit + 2, width]."""
        return self.weight

    @property
    def indexer(self) -> PositionIndexer:
        """Function from tokens to row indices of the position-embedding table."""
        return PositionIndexer(first=2, limit=self.num_embeddings - 2)


class BartStack(FairseqStack):
    """Post-norm transformer stack with learned position embeddings and a layer norm after the embeddings."""

    norm_first = False
    embedding_norm = True

    def make_positions(self, config: PretrainedConfig) -> LearnedPositions:
        return LearnedPositions(config.max_position_embeddings, config.d_model)


class BartDecoder(BartStack, FairseqDecoder):
    """BART decoder: causal layers with cross-attention."""


class BartEncoder(BartStack):
    """BART encoder: bidirectional layers without cross-attention."""

    layer_class = EncoderLayer
    causal = False
    has_cross_attention = False


class BartForCausalLM(FairseqCausalLM):
    """BART decoder with a language-modeling head; encoder-decoder checkpoints load too."""

    config_class = BartConfig
    decoder_class = BartDecoder


class BartModel(TextToTextModel):
    """BART without a head: encoder and decoder; `decoder_input_ids` default to the input shifted right."""

    config_class = BartConfig
    reads_input = True
    main_input_name = "input_ids"
    tied_weights: ClassVar[dict[str, str]] = {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    }
    ignored_keys = (
        r"^(model\.)?(lm_head\.|final_logits_bias$|classification_head\.|qa_outputs\.)",
        r"(encoder|decoder)\.version$",
    )

    def __init__(self, config: BartConfig) -> None:
        super().__init__(config)
        divides("d_model")(config, "encoder_attention_heads")
        self.shared = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.encoder = BartEncoder(config)
        self.decoder = BartDecoder(config)
        self.decoder.argument_prefix = "decoder_"
        self.tie_weights()
        self.initialize()


class BartForSequenceClassification(TextToTextClassifier):
    """BART sequence classifier: classification head on the decoder's last EOS token."""

    config_class = BartConfig
    base_class = BartModel
    base_name = "model"
    tied_weights: ClassVar[dict[str, str]] = {
        f"model.{name}": f"model.{home}" for name, home in BartModel.tied_weights.items()
    }
    ignored_keys = (
        r"^(model\.)?(lm_head\.|final_logits_bias$|qa_outputs\.)",
        *BartModel.ignored_keys[1:],
    )
