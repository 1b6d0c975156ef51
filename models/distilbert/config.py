"""DistilBERT's configuration."""

from typing import Any, ClassVar

from ...kernels.linear.activation import check_activation
from ..core.config import PretrainedConfig


class DistilBertConfig(PretrainedConfig):
    """Sizes and constants of a DistilBERT model; the defaults are distilbert-base-uncased's.

    Args:
        vocab_size: tokens.
        max_position_embeddings: rows of the position table.
        sinusoidal_pos_embds: whether a fresh position table is sines and cosines.
        n_layers: transformer layers.
        n_heads: heads; they divide dim.
        dim: width of the hidden states.
        hidden_dim: width between a layer's two linear maps.
        dropout, attention_dropout: in training.
        activation: one of `kernels.linear.ACTIVATIONS`.
        initializer_range: standard deviation of fresh weights.
        qa_dropout: for a head that is not here.
        seq_classif_dropout: of a classifier's head, in training.
        tie_word_embeddings: for a head that is not here.

    Raises:
        ValueError: heads that do not divide dim, or an unknown activation.
    """

    model_type: ClassVar[str] = "distilbert"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
        "init_std": "initializer_range",
    }

    def __init__(
        self,
        vocab_size: int = 30522,
        max_position_embeddings: int = 512,
        sinusoidal_pos_embds: bool = False,
        n_layers: int = 6,
        n_heads: int = 12,
        dim: int = 768,
        hidden_dim: int = 4 * 768,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        activation: str = "gelu",
        initializer_range: float = 0.02,
        qa_dropout: float = 0.1,
        seq_classif_dropout: float = 0.2,
        pad_token_id: int | None = 0,
        eos_token_id: int | list[int] | None = None,
        bos_token_id: int | None = None,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.max_position_embeddings = max_position_embeddings
        self.sinusoidal_pos_embds = sinusoidal_pos_embds
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.dim = dim
        self.hidden_dim = hidden_dim
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.activation = activation
        self.initializer_range = initializer_range
        self.qa_dropout = qa_dropout
        self.seq_classif_dropout = seq_classif_dropout
        self.pad_token_id = pad_token_id
        self.eos_token_id = eos_token_id
        self.bos_token_id = bos_token_id
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(**kwargs)
        if self.n_heads < 1 or self.dim % self.n_heads:
            raise ValueError(f"n_heads {self.n_heads} must divide dim {self.dim}")
        check_activation(self.activation)
