"""Configuration of DistilBERT."""

from ..core.config import PretrainedConfig
from ..core.field_types import Deviation, Layers, Positions, Probability, Size, TokenId
from ..core.fields import divides, field, in_vocabulary, optional_activation


class DistilBertConfig(PretrainedConfig):
    """Configuration of a DistilBERT model; the defaults are those of distilbert-base-uncased."""

    model_type = "distilbert"

    vocab_size: Size = 30522
    max_position_embeddings: Positions = 512
    sinusoidal_pos_embds: bool = False  # initialize the position-embedding table with sinusoids
    n_layers: Layers = field(6, alias="num_hidden_layers")
    n_heads: Size = field(12, check=divides("dim"), alias="num_attention_heads")
    dim: Size = field(768, alias="hidden_size")
    hidden_dim: Size = 4 * 768  # width of the feed-forward block
    dropout: Probability = 0.1
    attention_dropout: Probability = 0.1
    activation: str | None = field("gelu", check=optional_activation)
    initializer_range: Deviation = field(0.02, alias="init_std")  # standard deviation of initial weights
    qa_dropout: Probability = 0.1  # of the question-answering head, not implemented here
    seq_classif_dropout: Probability = 0.2
    pad_token_id: TokenId | None = field(0, check=in_vocabulary)
    eos_token_id: TokenId | list[TokenId] | None = None
    bos_token_id: TokenId | None = None
    tie_word_embeddings: bool = True  # of the language-modeling head, not implemented here
