"""ALBERT's configuration."""

from typing import Any, ClassVar

from ..bert.config import check_layers
from ..core.config import PretrainedConfig


class AlbertConfig(PretrainedConfig):
    """Sizes and constants of an ALBERT model; the defaults are albert-xxlarge-v2's.

    Args:
        vocab_size: tokens.
        embedding_size: width of token, position and type tables, which a map widens to hidden_size.
        hidden_size: width of the hidden states.
        num_hidden_layers: how often a group of layers is run, all groups together.
        num_hidden_groups: groups that have weights of their own; each runs as often as the others, in turn.
        num_attention_heads: heads; they divide hidden_size.
        intermediate_size: width between a layer's two linear maps.
        inner_group_num: layers of a group.
        hidden_act: one of `kernels.linear.ACTIVATIONS`.
        hidden_dropout_prob, attention_probs_dropout_prob: in training.
        max_position_embeddings: rows of the position table.
        type_vocab_size: rows of the token type table.
        initializer_range: standard deviation of fresh weights.
        layer_norm_eps: added to the variance by every normalization.
        classifier_dropout_prob: of a classifier's head, in training.
        tie_word_embeddings: for heads that are not here.

    Raises:
        ValueError: heads that do not divide hidden_size, an unknown activation, groups or layers that are
            none, or positions that are not absolute.
    """

    model_type: ClassVar[str] = "albert"
    attribute_map: ClassVar[dict[str, str]] = {"init_std": "initializer_range"}

    def __init__(
        self,
        vocab_size: int = 30000,
        embedding_size: int = 128,
        hidden_size: int = 4096,
        num_hidden_layers: int = 12,
        num_hidden_groups: int = 1,
        num_attention_heads: int = 64,
        intermediate_size: int = 16384,
        inner_group_num: int = 1,
        hidden_act: str = "gelu_new",
        hidden_dropout_prob: float = 0.0,
        attention_probs_dropout_prob: float = 0.0,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        classifier_dropout_prob: float = 0.1,
        pad_token_id: int | None = 0,
        bos_token_id: int | None = 2,
        eos_token_id: int | list[int] | None = 3,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.embedding_size = embedding_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_hidden_groups = num_hidden_groups
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.inner_group_num = inner_group_num
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.classifier_dropout_prob = classifier_dropout_prob
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(**kwargs)
        check_layers(self)
        for name in ("num_hidden_groups", "inner_group_num"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
