"""Configuration of Speech2Text2 decoders (arXiv 2104.06678)."""

from ..core.config import PretrainedConfig
from ..core.fields import check_cross_width, divides, field, optional_activation


class Speech2Text2Config(PretrainedConfig):
    """Configuration of a Speech2Text2 decoder; the defaults are those of transformers 4."""

    model_type = "speech_to_text_2"

    vocab_size: int = 10000
    decoder_layers: int = 6
    decoder_ffn_dim: int = 2048  # inner width of the feed-forward network
    decoder_attention_heads: int = field(4, check=divides("d_model"), alias="num_attention_heads")
    decoder_layerdrop: float = 0.0  # chance of skipping a layer in training
    use_cache: bool = True
    activation_function: str = field("relu", check=optional_activation)
    d_model: int = field(256, alias="hidden_size")
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float = 0.02  # standard deviation of randomly initialized weights
    decoder_start_token_id: int = 2
    scale_embedding: bool = True  # multiply embeddings by sqrt(d_model)
    pad_token_id: int = 1
    bos_token_id: int = 0
    eos_token_id: int | list[int] = 2
    max_target_positions: int = 1024
    tie_word_embeddings: bool = True
    num_hidden_layers: int = field(None)  # decoder_layers by default

    def _complete(self) -> None:
        if self.num_hidden_layers is None:
            self.num_hidden_layers = self.decoder_layers
        check_cross_width(self, self.d_model)
