"""BART's configuration, and what MBart's shares with it."""

from typing import Any, ClassVar

from ...kernels.linear.activation import check_activation
from ..core.config import PretrainedConfig


class BartLikeConfig(PretrainedConfig):
    """Sizes and constants of a model like BART; the defaults are facebook/bart-large's.

    Args:
        vocab_size: tokens.
        max_position_embeddings: tokens of the longest sequence.
        encoder_layers, decoder_layers: transformer layers.
        encoder_ffn_dim, decoder_ffn_dim: width between a layer's two linear maps.
        encoder_attention_heads, decoder_attention_heads: heads; they divide d_model.
        encoder_layerdrop, decoder_layerdrop: chance of skipping a layer in training.
        activation_function: one of `kernels.activation.ACTIVATIONS`.
        d_model: width of the hidden states.
        dropout, attention_dropout, activation_dropout, classifier_dropout: in training.
        init_std: standard deviation of fresh weights.
        scale_embedding: whether embeddings are multiplied by sqrt(d_model).
        use_cache: whether forward returns keys and values.
        is_encoder_decoder: False in a decoder of its own, whose `is_decoder` is True.
        decoder_start_token_id: first token of every output.
        forced_eos_token_id: the last token of an output that reaches its longest length.
        tie_word_embeddings: whether the map to the vocabulary is the token embedding.

    Raises:
        ValueError: decoder heads that do not divide d_model, an unknown activation, or an encoder of another
            width to attend to.
    """

    attribute_map: ClassVar[dict[str, str]] = {
        "num_attention_heads": "encoder_attention_heads",
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
    }

    def __init__(
        self,
        vocab_size: int = 50265,
        max_position_embeddings: int = 1024,
        encoder_layers: int = 12,
        encoder_ffn_dim: int = 4096,
        encoder_attention_heads: int = 16,
        decoder_layers: int = 12,
        decoder_ffn_dim: int = 4096,
        decoder_attention_heads: int = 16,
        encoder_layerdrop: float = 0.0,
        decoder_layerdrop: float = 0.0,
        activation_function: str = "gelu",
        d_model: int = 1024,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        init_std: float = 0.02,
        classifier_dropout: float = 0.0,
        scale_embedding: bool = False,
        use_cache: bool = True,
        pad_token_id: int | None = 1,
        bos_token_id: int | None = 0,
        eos_token_id: int | list[int] | None = 2,
        is_encoder_decoder: bool = True,
        decoder_start_token_id: int | None = None,
        forced_eos_token_id: int | list[int] | None = 2,
        is_decoder: bool = False,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.max_position_embeddings = max_position_embeddings
        self.encoder_layers = encoder_layers
        self.encoder_ffn_dim = encoder_ffn_dim
        self.encoder_attention_heads = encoder_attention_heads
        self.decoder_layers = decoder_layers
        self.decoder_ffn_dim = decoder_ffn_dim
        self.decoder_attention_heads = decoder_attention_heads
        self.encoder_layerdrop = encoder_layerdrop
        self.decoder_layerdrop = decoder_layerdrop
        self.activation_function = activation_function
        self.d_model = d_model
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.activation_dropout = activation_dropout
        self.init_std = init_std
        self.classifier_dropout = classifier_dropout
        self.scale_embedding = scale_embedding
        self.use_cache = use_cache
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.is_encoder_decoder = is_encoder_decoder
        self.decoder_start_token_id = decoder_start_token_id
        self.forced_eos_token_id = forced_eos_token_id
        self.is_decoder = is_decoder
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(**kwargs)  # last, so that a field given by its other name is not overwritten
        # Heads of the encoder are checked where there is one: a decoder alone often has the defaults of them.
        check_decoder(self)


class BartConfig(BartLikeConfig):
    """BART's; see `BartLikeConfig`."""

    model_type: ClassVar[str] = "bart"
    default_num_labels: ClassVar[int] = 3  # contradiction, neutral, entailment

    def __init__(self, *, decoder_start_token_id: int | None = 2, **kwargs: Any) -> None:
        super().__init__(decoder_start_token_id=decoder_start_token_id, **kwargs)


def check_decoder(config: PretrainedConfig) -> None:
    """Refuse what makes no decoder of the kind that fairseq has.

    Raises:
        ValueError: heads that do not divide d_model, an unknown activation, or an encoder of another width.
    """
    heads, width = config.decoder_attention_heads, config.d_model
    if heads < 1 or width % heads:
        raise ValueError(f"decoder_attention_heads {heads} must divide d_model {width}")
    check_activation(config.activation_function)
    read = getattr(config, "cross_attention_hidden_size", None)
    if read not in (None, width):
        raise ValueError(
            f"cross_attention_hidden_size is {read}, and this decoder reads d_model, {width}; leave it out, "
            "and a SpeechEncoderDecoderModel projects its encoder's output"
        )
