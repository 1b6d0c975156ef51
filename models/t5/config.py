"""T5's configuration."""

from typing import Any, ClassVar

from ...kernels.attention.distance_buckets import Buckets
from ...kernels.linear.activation import check_activation
from ..core.config import PretrainedConfig


class T5Config(PretrainedConfig):
    """Sizes and constants; the defaults are t5-small's.

    Args:
        vocab_size: tokens.
        d_model: width of the hidden states.
        d_kv: of a head; heads need not fill the width.
        d_ff: width between a layer's two linear maps.
        num_layers, num_decoder_layers: the encoder's and the decoder's; as many in both by default.
        num_heads: of every attention.
        relative_attention_num_buckets, relative_attention_max_distance: see `distance_buckets.Buckets`.
        dropout_rate: everywhere in training.
        classifier_dropout: of a classifier's head.
        layer_norm_epsilon: added to the mean of squares.
        initializer_factor: multiplies the standard deviation of fresh weights.
        feed_forward_proj: an activation, or "gated-" and one; "gated-gelu" means "gelu_new", as in T5 1.1.
        dense_act_fn, is_gated_act: what `feed_forward_proj` stands for, unless they say otherwise.
        is_encoder_decoder, is_decoder, use_cache: as in transformers.
        decoder_start_token_id: what the decoder reads first; usually the padding token.
        tie_word_embeddings: whether a map to the vocabulary would be the token embedding. Encoder and decoder
            have theirs in common either way.

    Raises:
        ValueError: an unknown kind of feed-forward part, buckets that cannot be divided, or sizes below 1.
    """

    model_type: ClassVar[str] = "t5"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
        "init_std": "initializer_factor",
    }

    def __init__(
        self,
        vocab_size: int = 32128,
        d_model: int = 512,
        d_kv: int = 64,
        d_ff: int = 2048,
        num_layers: int = 6,
        num_decoder_layers: int | None = None,
        num_heads: int = 8,
        relative_attention_num_buckets: int = 32,
        relative_attention_max_distance: int = 128,
        dropout_rate: float = 0.1,
        layer_norm_epsilon: float = 1e-6,
        initializer_factor: float = 1.0,
        feed_forward_proj: str = "relu",
        dense_act_fn: str | None = None,
        is_gated_act: bool | None = None,
        is_encoder_decoder: bool = True,
        use_cache: bool = True,
        pad_token_id: int | None = 0,
        eos_token_id: int | list[int] | None = 1,
        decoder_start_token_id: int | None = None,
        classifier_dropout: float = 0.0,
        is_decoder: bool = False,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.d_kv = d_kv
        self.d_ff = d_ff
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.relative_attention_num_buckets = relative_attention_num_buckets
        self.relative_attention_max_distance = relative_attention_max_distance
        self.dropout_rate = dropout_rate
        self.layer_norm_epsilon = layer_norm_epsilon
        self.initializer_factor = initializer_factor
        self.feed_forward_proj = feed_forward_proj
        gate, _, activation = feed_forward_proj.rpartition("-")
        if gate not in ("", "gated"):
            raise ValueError(
                f'feed_forward_proj must be an activation or "gated-" and one, got {feed_forward_proj!r}'
            )
        if feed_forward_proj == "gated-gelu":
            activation = "gelu_new"
        self.dense_act_fn = activation if dense_act_fn is None else dense_act_fn
        self.is_gated_act = gate == "gated" if is_gated_act is None else is_gated_act
        check_activation(self.dense_act_fn)
        self.is_encoder_decoder = is_encoder_decoder
        self.use_cache = use_cache
        self.pad_token_id = pad_token_id
        self.eos_token_id = eos_token_id
        self.decoder_start_token_id = decoder_start_token_id
        self.classifier_dropout = classifier_dropout
        self.is_decoder = is_decoder
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(**kwargs)  # last, so that a field given by its other name is not overwritten
        self.num_decoder_layers = self.num_layers if num_decoder_layers is None else num_decoder_layers
        if min(self.num_heads, self.d_kv, self.d_model) < 1:
            raise ValueError(
                f"num_heads {self.num_heads}, d_kv {self.d_kv} and d_model {self.d_model}: each must be at "
                "least 1"
            )
        for causal in (False, True):
            self.buckets(causal=causal)

    def buckets(self, *, causal: bool) -> Buckets:
        """How distances share biases in the decoder (causal) or the encoder."""
        count, farthest = self.relative_attention_num_buckets, self.relative_attention_max_distance
        return Buckets(count, farthest, both_directions=not causal)
