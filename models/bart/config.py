"""Configuration of BART, and the base class of BART's and MBart's configurations."""

from typing import ClassVar

from ..core.config import PretrainedConfig
from ..core.field_types import Deviation, Layers, Positions, Probability, Size, TokenId
from ..core.fields import check_cross_width, divides, field, in_vocabulary, optional_activation


class BartLikeConfig(PretrainedConfig):
    """Configuration fields that BART and MBart share; the defaults are those of facebook/bart-large."""

    vocab_size: Size = 50265
    max_position_embeddings: Positions = 1024
    encoder_layers: Layers = field(12, alias="num_hidden_layers")
    encoder_ffn_dim: Size = 4096  # width of the feed-forward block
    # Not checked against d_model: a decoder-only configuration often has the default here.
    encoder_attention_heads: Size = field(16, alias="num_attention_heads")
    decoder_layers: Layers = 12
    decoder_ffn_dim: Size = 4096
    decoder_attention_heads: Size = field(16, check=divides("d_model"))
    encoder_layerdrop: Probability = 0.0  # probability of skipping a layer in training
    decoder_layerdrop: Probability = 0.0
    activation_function: str | None = field("gelu", check=optional_activation)
    d_model: Size = field(1024, alias="hidden_size")
    dropout: Probability = 0.1
    attention_dropout: Probability = 0.0
    activation_dropout: Probability = 0.0
    init_std: Deviation = 0.02  # standard deviation of initial weights
    classifier_dropout: Probability = 0.0
    scale_embedding: bool = False  # multiply embeddings by sqrt(d_model)
    use_cache: bool = True
    pad_token_id: TokenId | None = field(1, check=in_vocabulary)
    bos_token_id: TokenId | None = 0
    eos_token_id: TokenId | list[TokenId] | None = 2
    is_encoder_decoder: bool = True  # False for a decoder alone, whose is_decoder is True
    decoder_start_token_id: TokenId | None = None
    # Forced as the last token of an output of max_length.
    forced_eos_token_id: TokenId | list[TokenId] | None = 2
    is_decoder: bool = False
    tie_word_embeddings: bool = True

    def _complete(self) -> None:
        check_cross_width(self, self.d_model)


class BartConfig(BartLikeConfig):
    """Configuration of a BART model; the defaults are those of facebook/bart-large."""

    model_type = "bart"
    default_num_labels: ClassVar[int] = 3  # contradiction, neutral, entailment

    decoder_start_token_id = 2
