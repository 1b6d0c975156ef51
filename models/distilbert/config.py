"""DistilBERT's configuration."""

from ..core.config import PretrainedConfig
from ..core.fields import divides, field, optional_activation


class DistilBertConfig(PretrainedConfig):
    """Sizes and constants of a DistilBERT model; the defaults are distilbert-base-uncased's."""

    model_type = "distilbert"

    vocab_size: int = 30522
    max_position_embeddings: int = 512
    sinusoidal_pos_embds: bool = False  # a fresh position table of sines and cosines
    n_layers: int = field(6, alias="num_hidden_layers")
    n_heads: int = field(12, check=divides("dim"), alias="num_attention_heads")
    dim: int = field(768, alias="hidden_size")
    hidden_dim: int = 4 * 768  # width between a layer's two linear maps
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = field("gelu", check=optional_activation)
    initializer_range: float = field(0.02, alias="init_std")  # standard deviation of fresh weights
    qa_dropout: float = 0.1  # of a head that is not here
    seq_classif_dropout: float = 0.2
    pad_token_id: int | None = 0
    eos_token_id: int | list[int] | None = None
    bos_token_id: int | None = None
    tie_word_embeddings: bool = True  # of a head that is not here
