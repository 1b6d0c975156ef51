"""Configuration of Whisper models (arXiv 2212.04356)."""

from ..core.config import PretrainedConfig
from ..core.field_types import Count, Deviation, Layers, Positions, Probability, Size, Small, TokenId
from ..core.fields import activation, divides, field, in_vocabulary


class WhisperConfig(PretrainedConfig):
    """Configuration of a Whisper model; the defaults are those of openai/whisper-tiny."""

    model_type = "whisper"

    vocab_size: Size = 51865
    num_mel_bins: Size = 80  # features per frame
    encoder_layers: Layers = field(4, alias="num_hidden_layers")
    encoder_attention_heads: Size = field(6, check=divides("d_model"), alias="num_attention_heads")
    decoder_layers: Layers = 4
    decoder_attention_heads: Size = field(6, check=divides("d_model"))
    decoder_ffn_dim: Size = 1536  # inner width of the feed-forward network
    encoder_ffn_dim: Size = 1536
    encoder_layerdrop: Probability = 0.0  # chance of skipping a layer in training
    decoder_layerdrop: Probability = 0.0
    decoder_start_token_id: TokenId = 50257
    use_cache: bool = True
    is_encoder_decoder: bool = True  # False for a decoder alone
    activation_function: str = field("gelu", check=activation)  # the convolutions always have GELU
    d_model: Size = field(384, alias="hidden_size")
    dropout: Probability = 0.0
    attention_dropout: Probability = 0.0
    activation_dropout: Probability = 0.0
    init_std: Deviation = 0.02  # standard deviation of randomly initialized weights
    scale_embedding: bool = False  # kept; without effect, as in transformers
    max_source_positions: Positions = 1500  # encoder positions of every input, two frames each
    max_target_positions: Positions = 448
    pad_token_id: TokenId | None = field(50256, check=in_vocabulary)
    bos_token_id: TokenId | None = 50256
    eos_token_id: TokenId | list[TokenId] | None = 50256
    suppress_tokens: list[TokenId] | None = None  # never generated
    begin_suppress_tokens: list[TokenId] | None = field((220, 50256))  # not generated as first token
    use_weighted_layer_sum: bool = False  # the classification head reads a learned sum of all layers
    classifier_proj_size: Size = 256
    apply_spec_augment: bool = False  # SpecAugment (arXiv 1904.08779) of the features, in training
    mask_time_prob: Probability = 0.05  # fraction of frames in masked spans if none overlap
    mask_time_length: Count = 10  # frames per span
    mask_time_min_masks: Count = 2  # minimum number of spans
    mask_feature_prob: Probability = 0.0
    mask_feature_length: Count = 10
    mask_feature_min_masks: Count = 0
    median_filter_width: Small = 7  # of the cross-attention weights that give word times
    tie_word_embeddings: bool = True

    def _complete(self) -> None:
        if self.d_model % 2 or self.d_model < 4:
            raise ValueError(
                f"d_model {self.d_model} must be even and at least 4: half of it are sines of a position, "
                "half are cosines"
            )
