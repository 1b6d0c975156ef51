"""Speech2Text's configuration."""

from typing import Any, ClassVar

from ..core.config import PretrainedConfig


class Speech2TextConfig(PretrainedConfig):
    """Sizes and constants of a Speech2Text model; the defaults are facebook/s2t-small-librispeech-asr's.

    Args:
        vocab_size: tokens.
        encoder_layers, decoder_layers: transformer layers.
        encoder_ffn_dim, decoder_ffn_dim: width between a layer's two linear maps.
        encoder_attention_heads, decoder_attention_heads: heads; they divide d_model.
        encoder_layerdrop, decoder_layerdrop: chance of skipping a layer in training.
        use_cache: whether forward returns keys and values.
        activation_function: "relu", "gelu" and others of `kernels.linear.ACTIVATIONS`.
        d_model: width of the hidden states.
        dropout, attention_dropout, activation_dropout: in training.
        init_std: standard deviation of fresh weights.
        decoder_start_token_id: first token of every transcript.
        scale_embedding: whether embeddings are multiplied by sqrt(d_model).
        max_source_positions: encoder positions, counted after subsampling.
        max_target_positions: tokens of the longest transcript.
        num_conv_layers: convolutions, each halving the frame rate.
        conv_kernel_sizes: one kernel size a convolution.
        conv_channels: outputs of every convolution but the last, before its gate halves them.
        input_feat_per_channel, input_channels: features of a frame are their product.

    Raises:
        ValueError: kernel sizes that are not one a layer, or heads that do not divide d_model.
    """

    model_type: ClassVar[str] = "speech_to_text"
    attribute_map: ClassVar[dict[str, str]] = {
        "num_attention_heads": "encoder_attention_heads",
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
    }

    def __init__(
        self,
        vocab_size: int = 10000,
        encoder_layers: int = 12,
        encoder_ffn_dim: int = 2048,
        encoder_attention_heads: int = 4,
        decoder_layers: int = 6,
        decoder_ffn_dim: int = 2048,
        decoder_attention_heads: int = 4,
        encoder_layerdrop: float = 0.0,
        decoder_layerdrop: float = 0.0,
        use_cache: bool = True,
        is_encoder_decoder: bool = True,
        activation_function: str = "relu",
        d_model: int = 256,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        init_std: float = 0.02,
        decoder_start_token_id: int = 2,
        scale_embedding: bool = True,
        pad_token_id: int = 1,
        bos_token_id: int = 0,
        eos_token_id: int | list[int] = 2,
        max_source_positions: int = 6000,
        max_target_positions: int = 1024,
        num_conv_layers: int = 2,
        conv_kernel_sizes: tuple[int, ...] | list[int] = (5, 5),
        conv_channels: int = 1024,
        input_feat_per_channel: int = 80,
        input_channels: int = 1,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.encoder_layers = encoder_layers
        self.encoder_ffn_dim = encoder_ffn_dim
        self.encoder_attention_heads = encoder_attention_heads
        self.decoder_layers = decoder_layers
        self.decoder_ffn_dim = decoder_ffn_dim
        self.decoder_attention_heads = decoder_attention_heads
        self.encoder_layerdrop = encoder_layerdrop
        self.decoder_layerdrop = decoder_layerdrop
        self.use_cache = use_cache
        self.is_encoder_decoder = is_encoder_decoder
        self.activation_function = activation_function
        self.d_model = d_model
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.activation_dropout = activation_dropout
        self.init_std = init_std
        self.decoder_start_token_id = decoder_start_token_id
        self.scale_embedding = scale_embedding
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.max_source_positions = max_source_positions
        self.max_target_positions = max_target_positions
        self.num_conv_layers = num_conv_layers
        self.conv_kernel_sizes = list(conv_kernel_sizes)
        self.conv_channels = conv_channels
        self.input_feat_per_channel = input_feat_per_channel
        self.input_channels = input_channels
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(**kwargs)  # last, so that a field given by its other name is not overwritten
        self._check()

    def _check(self) -> None:
        if len(self.conv_kernel_sizes) != self.num_conv_layers:
            raise ValueError(
                f"conv_kernel_sizes {self.conv_kernel_sizes} must have one size for each of the "
                f"{self.num_conv_layers} num_conv_layers"
            )
        for side in ("encoder_attention_heads", "decoder_attention_heads"):
            if self.d_model % getattr(self, side):
                raise ValueError(f"{side} {getattr(self, side)} must divide d_model {self.d_model}")
