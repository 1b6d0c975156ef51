"""BERT's configuration, and what it shares with its kin."""

from typing import Any, ClassVar

from ...kernels.linear.gemm import ACTIVATIONS
from ..core.config import PretrainedConfig


class BertLikeConfig(PretrainedConfig):
    """Sizes and constants of a model made of BERT's layers.

    Args:
        vocab_size: tokens.
        hidden_size: width of the hidden states.
        num_hidden_layers: transformer layers.
        num_attention_heads: heads; they divide hidden_size.
        intermediate_size: width between a layer's two linear maps.
        hidden_act: one of `kernels.linear.ACTIVATIONS`.
        hidden_dropout_prob, attention_probs_dropout_prob: in training.
        max_position_embeddings: rows of the position table.
        type_vocab_size: rows of the token type table.
        initializer_range: standard deviation of fresh weights.
        layer_norm_eps: added to the variance by every normalization.
        use_cache: whether a decoder's forward returns keys and values.
        classifier_dropout: of a classifier's head; hidden_dropout_prob where it is None.
        is_decoder: each token sees those before it alone. Otherwise each sees all.
        add_cross_attention: layers of a decoder that attend to an encoder's output.
        tie_word_embeddings: the map to the vocabulary is the token embedding.

    Raises:
        ValueError: heads that do not divide hidden_size, an unknown activation, positions that are not
            absolute, or an encoder of another width.
    """

    # The name under which fresh weights and new rows of the vocabulary look for it.
    attribute_map: ClassVar[dict[str, str]] = {"init_std": "initializer_range"}

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        pad_token_id: int | None = 0,
        use_cache: bool = True,
        classifier_dropout: float | None = None,
        is_decoder: bool = False,
        add_cross_attention: bool = False,
        bos_token_id: int | None = None,
        eos_token_id: int | list[int] | None = None,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.pad_token_id = pad_token_id
        self.use_cache = use_cache
        self.classifier_dropout = classifier_dropout
        self.is_decoder = is_decoder
        self.add_cross_attention = add_cross_attention
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(**kwargs)
        self._check()

    def _check(self) -> None:
        check_layers(self)
        check_cross_width(self, self.hidden_size)


class BertConfig(BertLikeConfig):
    """Sizes and constants of a BERT model; the defaults are google-bert/bert-base-uncased's.

    Its fields are `BertLikeConfig`'s.
    """

    model_type: ClassVar[str] = "bert"


def check_layers(config: PretrainedConfig) -> None:
    """Refuse what BERT's layers cannot be.

    Raises:
        ValueError: heads that do not divide hidden_size, an unknown activation, or positions that are not
            absolute.
    """
    if config.num_attention_heads < 1 or config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"num_attention_heads {config.num_attention_heads} must divide hidden_size {config.hidden_size}"
        )
    if config.hidden_act not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise ValueError(f"hidden_act {config.hidden_act!r} is not supported; one of {known}")
    kind = getattr(config, "position_embedding_type", "absolute")
    if kind not in (None, "absolute"):
        raise ValueError(
            f"position_embedding_type {kind!r} is not supported; only 'absolute' is, and the weights of "
            "other checkpoints mean something else"
        )


def check_cross_width(config: PretrainedConfig, width: int) -> None:
    """Refuse an encoder of another width: these decoders' cross-attention has none in transformers either.

    Raises:
        ValueError: `cross_attention_hidden_size` that is neither None nor the decoder's own width.
    """
    given = getattr(config, "cross_attention_hidden_size", None)
    if given not in (None, width):
        raise ValueError(
            f"cross_attention_hidden_size is {given}, and a {config.model_type} decoder of width {width} "
            "reads encoder outputs of that width; leave it out, and SpeechEncoderDecoderModel projects them"
        )
