"""Configuration of T5."""

from ...kernels.attention.distance_buckets import Buckets
from ..core.config import PretrainedConfig
from ..core.field_types import Deviation, Epsilon, Layers, Positions, Probability, Size, TokenId
from ..core.fields import activation, field


class T5Config(PretrainedConfig):
    """Configuration of a T5 model; the defaults are those of t5-small."""

    model_type = "t5"

    vocab_size: Size = 32128
    d_model: Size = field(512, alias="hidden_size")
    d_kv: Size = field(64, alias="head_dim")  # num_heads * d_kv may differ from d_model
    d_ff: Size = 2048  # width of the feed-forward block
    num_layers: Layers = field(6, alias="num_hidden_layers")  # in the encoder
    num_decoder_layers: Layers = field(None)  # num_layers by default
    num_heads: Size = field(8, alias="num_attention_heads")
    relative_attention_num_buckets: Size = 32
    relative_attention_max_distance: Positions = 128
    dropout_rate: Probability = 0.1
    layer_norm_epsilon: Epsilon = 1e-6
    initializer_factor: Deviation = field(1.0, alias="init_std")  # scales the initial standard deviations
    # Activation, with "gated-" before it for a gated block; "gated-gelu" gates with "gelu_new" (T5 1.1).
    feed_forward_proj: str = "relu"
    dense_act_fn: str = field(None)  # from feed_forward_proj by default
    is_gated_act: bool = field(None)  # from feed_forward_proj by default
    is_encoder_decoder: bool = True
    use_cache: bool = True
    pad_token_id: TokenId | None = 0
    eos_token_id: TokenId | list[TokenId] | None = 1
    decoder_start_token_id: TokenId | None = None  # usually pad_token_id
    classifier_dropout: Probability = 0.0
    is_decoder: bool = False
    # For the language-modeling head; encoder and decoder share their token embedding either way.
    tie_word_embeddings: bool = True

    def _complete(self) -> None:
        if self.num_decoder_layers is None:
            self.num_decoder_layers = self.num_layers
        gate, _, name = self.feed_forward_proj.rpartition("-")
        if gate not in ("", "gated"):
            raise ValueError(
                f'feed_forward_proj must be an activation or "gated-" and one, got {self.feed_forward_proj!r}'
            )
        if self.dense_act_fn is None:
            self.dense_act_fn = "gelu_new" if self.feed_forward_proj == "gated-gelu" else name
        if self.is_gated_act is None:
            self.is_gated_act = gate == "gated"
        activation(self, "dense_act_fn")
        for causal in (False, True):
            self.buckets(causal=causal)

    def buckets(self, *, causal: bool) -> Buckets:
        """Distance buckets of the attention biases: the decoder's if `causal`, else the encoder's.

        Raises:
            ValueError: the number of buckets does not fit the maximum distance.
        """
        count, farthest = self.relative_attention_num_buckets, self.relative_attention_max_distance
        try:
            return Buckets(count, farthest, both_directions=not causal)
        except ValueError as error:
            raise ValueError(
                f"relative_attention_num_buckets {count}, relative_attention_max_distance {farthest}: {error}"
            ) from None
