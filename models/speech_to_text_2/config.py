"""Configuration of Speech2Text2 decoders (arXiv 2104.06678)."""

from ..core.config import PretrainedConfig
from ..core.field_types import Deviation, Layers, Positions, Probability, Size, TokenId
from ..core.fields import check_cross_width, divides, field, in_vocabulary, optional_activation


class Speech2Text2Config(PretrainedConfig):
    """Configuration of a Speech2Text2 decoder; the defaults are those of transformers 4."""

    model_type = "speech_to_text_2"

    vocab_size: Size = 10000
    decoder_layers: Layers = 6
    decoder_ffn_dim: Size = 2048  # inner width of the feed-forward network
    decoder_attention_heads: Size = field(4, check=divides("d_model"), alias="num_attention_heads")
    decoder_layerdrop: Probability = 0.0  # chance of skipping a layer in training
    use_cache: bool = True
    activation_function: str | None = field("relu", check=optional_activation)
    d_model: Size = field(256, alias="hidden_size")
    dropout: Probability = 0.1
    attention_dropout: Probability = 0.0
    activation_dropout: Probability = 0.0
    init_std: Deviation = 0.02  # standard deviation of randomly initialized weights
    decoder_start_token_id: TokenId = 2
    scale_embedding: bool = True  # multiply embeddings by sqrt(d_model)
    pad_token_id: TokenId = field(1, check=in_vocabulary)
    bos_token_id: TokenId = 0
    eos_token_id: TokenId | list[TokenId] = 2
    max_target_positions: Positions = 1024
    tie_word_embeddings: bool = True
    num_hidden_layers: Layers = field(None)  # decoder_layers by default

    def _complete(self) -> None:
        if self.num_hidden_layers is None:
            self.num_hidden_layers = self.decoder_layers
        check_cross_width(self, self.d_model)
