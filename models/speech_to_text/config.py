"""Configuration of Speech2Text models (arXiv 2010.05171)."""

from ..core.config import PretrainedConfig
from ..core.field_types import Deviation, Layers, Positions, Probability, Size, Small, TokenId, shown
from ..core.fields import activation, divides, field, in_vocabulary


class Speech2TextConfig(PretrainedConfig):
    """Configuration of a Speech2Text model; the defaults are those of facebook/s2t-small-librispeech-asr."""

    model_type = "speech_to_text"

    vocab_size: Size = 10000
    encoder_layers: Layers = field(12, alias="num_hidden_layers")
    encoder_ffn_dim: Size = 2048  # inner width of the feed-forward network
    encoder_attention_heads: Size = field(4, check=divides("d_model"), alias="num_attention_heads")
    decoder_layers: Layers = 6
    decoder_ffn_dim: Size = 2048
    decoder_attention_heads: Size = field(4, check=divides("d_model"))
    encoder_layerdrop: Probability = 0.0  # chance of skipping a layer in training
    decoder_layerdrop: Probability = 0.0
    use_cache: bool = True
    is_encoder_decoder: bool = True
    activation_function: str = field("relu", check=activation)
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
    max_source_positions: Positions = 6000  # encoder positions, after subsampling
    max_target_positions: Positions = 1024
    num_conv_layers: Layers = 2  # each halves the frame rate
    conv_kernel_sizes: list[Small] = field((5, 5))
    conv_channels: Size = 1024  # of every convolution but the last, before its gate halves them
    input_feat_per_channel: Size = 80  # times input_channels: features per frame
    input_channels: Size = 1
    tie_word_embeddings: bool = True

    def _complete(self) -> None:
        if len(self.conv_kernel_sizes) != self.num_conv_layers:
            raise ValueError(
                f"conv_kernel_sizes {shown(self.conv_kernel_sizes)} must have one size for each of the "
                f"{self.num_conv_layers} num_conv_layers"
            )
