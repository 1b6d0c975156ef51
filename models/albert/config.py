"""Configuration of ALBERT."""

from ..bert.config import check_absolute_positions
from ..core.config import PretrainedConfig
from ..core.fields import activation, at_least, divides, field


class AlbertConfig(PretrainedConfig):
    """Configuration of an ALBERT model; the defaults are those of albert-xxlarge-v2."""

    model_type = "albert"

    vocab_size: int = 30000
    embedding_size: int = 128  # width of token, position and type embeddings, projected to hidden_size
    hidden_size: int = 4096
    num_hidden_layers: int = 12  # applications of a layer group, over all groups
    # Layer groups with separate weights; each runs num_hidden_layers / num_hidden_groups times.
    num_hidden_groups: int = field(1, check=at_least(1))
    num_attention_heads: int = field(64, check=divides("hidden_size"))
    intermediate_size: int = 16384  # width of the feed-forward block
    inner_group_num: int = field(1, check=at_least(1))  # layers in a group
    hidden_act: str = field("gelu_new", check=activation)
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = field(0.02, alias="init_std")  # standard deviation of initial weights
    layer_norm_eps: float = 1e-12
    classifier_dropout_prob: float = 0.1
    pad_token_id: int | None = 0
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3
    tie_word_embeddings: bool = True  # of heads not implemented here

    def _complete(self) -> None:
        check_absolute_positions(self)
