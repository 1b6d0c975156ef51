"""Configuration of ALBERT."""

from ..bert.config import check_absolute_positions
from ..core.config import PretrainedConfig
from ..core.field_types import Count, Deviation, Epsilon, Layers, Positions, Probability, Size, Small, TokenId
from ..core.fields import activation, divides, field, in_vocabulary


class AlbertConfig(PretrainedConfig):
    """Configuration of an ALBERT model; the defaults are those of albert-xxlarge-v2."""

    model_type = "albert"

    vocab_size: Size = 30000
    embedding_size: Size = 128  # width of token, position and type embeddings, projected to hidden_size
    hidden_size: Size = 4096
    num_hidden_layers: Layers = 12  # applications of a layer group, over all groups
    # Layer groups with separate weights; each runs num_hidden_layers / num_hidden_groups times.
    num_hidden_groups: Small = 1
    num_attention_heads: Size = field(64, check=divides("hidden_size"))
    intermediate_size: Size = 16384  # width of the feed-forward block
    inner_group_num: Small = 1  # layers in a group
    hidden_act: str = field("gelu_new", check=activation)
    hidden_dropout_prob: Probability = 0.0
    attention_probs_dropout_prob: Probability = 0.0
    max_position_embeddings: Positions = 512
    type_vocab_size: Count = 2
    initializer_range: Deviation = field(0.02, alias="init_std")  # standard deviation of initial weights
    layer_norm_eps: Epsilon = 1e-12
    classifier_dropout_prob: Probability = 0.1
    pad_token_id: TokenId | None = field(0, check=in_vocabulary)
    bos_token_id: TokenId | None = 2
    eos_token_id: TokenId | list[TokenId] | None = 3
    tie_word_embeddings: bool = True  # of heads not implemented here

    def _complete(self) -> None:
        check_absolute_positions(self)
