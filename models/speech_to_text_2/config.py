"""Speech2Text2's configuration."""

from typing import Any, ClassVar

from ..bart.config import check_decoder
from ..core.config import PretrainedConfig


class Speech2Text2Config(PretrainedConfig):
    """Sizes and constants of a Speech2Text2 decoder, with transformers 4's defaults.

    Args:
        vocab_size: tokens.
        decoder_layers: transformer layers.
        decoder_ffn_dim: width between a layer's two linear maps.
        decoder_attention_heads: heads; they divide d_model.
        decoder_layerdrop: chance of skipping a layer in training.
        use_cache: whether forward returns keys and values.
        activation_function: one of `kernels.activation.ACTIVATIONS`.
        d_model: width of the hidden states.
        dropout, attention_dropout, activation_dropout: in training.
        init_std: standard deviation of fresh weights.
        decoder_start_token_id: first token of every output.
        scale_embedding: whether embeddings are multiplied by sqrt(d_model).
        max_target_positions: tokens of the longest output.
        tie_word_embeddings: whether the map to the vocabulary is the token embedding.

    Raises:
        ValueError: heads that do not divide d_model, an unknown activation, or an encoder of another width to
            attend to.
    """

    model_type: ClassVar[str] = "speech_to_text_2"
    attribute_map: ClassVar[dict[str, str]] = {
        "num_attention_heads": "decoder_attention_heads",
        "hidden_size": "d_model",
    }

    def __init__(
        self,
        vocab_size: int = 10000,
        decoder_layers: int = 6,
        decoder_ffn_dim: int = 2048,
        decoder_attention_heads: int = 4,
        decoder_layerdrop: float = 0.0,
        use_cache: bool = True,
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
        max_target_positions: int = 1024,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.decoder_layers = decoder_layers
        self.decoder_ffn_dim = decoder_ffn_dim
        self.decoder_attention_heads = decoder_attention_heads
        self.decoder_layerdrop = decoder_layerdrop
        self.use_cache = use_cache
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
        self.max_target_positions = max_target_positions
        self.tie_word_embeddings = tie_word_embeddings
        self.num_hidden_layers = decoder_layers
        super().__init__(**kwargs)  # last, so that a field given by its other name is not overwritten
        check_decoder(self)
