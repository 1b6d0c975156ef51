"""Configuration of DistilBERT."""

from ..core.config import PretrainedConfig
from ..core.fields import divides, field, optional_activation


class DistilBertConfig(PretrainedConfig):
    """Configuration of a DistilBERT model; the defaults are those of distilbert-base-uncased."""

    model_type = "distilbert"

    vocab_size: int = 30522
    max_position_embeddings: int = 512
    sinusoidal_pos_embds: bool = False  # initialize the position-embedding table with sinusoids
    n_layers: int = field(6, alias="num_hidden_layers")
    n_heads: int = field(12, check=divides("dim"), alias="num_attention_heads")
    dim: int = field(768, alias="hidden_size")
    hidden_dim: int = 4 * 768  # width of the feed-forward block
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = field("gelu", check=optional_activation)
    initializer_range: float = field(0.02, alias="init_std")  # standard deviation of initial weights
    qa_dropout: float = 0.1  # of the question-answering head, not implemented here
    seq_classif_dropout: float = 0.2
    pad_token_id: int | None = 0
    eos_token_id: int | list[int] | None = None
    bos_token_id: int | None = None
    tie_word_embeddings: bool = True  # of the language-modeling head, not implemented here
