"""Configuration of BERT, and the base class of BERT's and RoBERTa's configurations."""

from ..core.config import PretrainedConfig
from ..core.field_types import Count, Deviation, Epsilon, Layers, Positions, Probability, Size, TokenId
from ..core.fields import activation, check_cross_width, divides, field, in_vocabulary


class BertLikeConfig(PretrainedConfig):
    """Configuration fields that BERT and RoBERTa share: layer sizes, dropout, special token ids."""

    vocab_size: Size = 30522
    hidden_size: Size = 768
    num_hidden_layers: Layers = 12
    num_attention_heads: Size = field(12, check=divides("hidden_size"))
    intermediate_size: Size = 3072  # width of the feed-forward block
    hidden_act: str = field("gelu", check=activation)
    hidden_dropout_prob: Probability = 0.1
    attention_probs_dropout_prob: Probability = 0.1
    max_position_embeddings: Positions = 512
    type_vocab_size: Count = 2
    initializer_range: Deviation = field(0.02, alias="init_std")  # standard deviation of initial weights
    layer_norm_eps: Epsilon = 1e-12
    pad_token_id: TokenId | None = field(0, check=in_vocabulary)
    use_cache: bool = True
    classifier_dropout: Probability | None = None  # None: hidden_dropout_prob
    is_decoder: bool = False  # causal self-attention
    add_cross_attention: bool = False  # needs is_decoder; layers attend to an encoder's output
    bos_token_id: TokenId | None = None
    eos_token_id: TokenId | list[TokenId] | None = None
    tie_word_embeddings: bool = True

    def _complete(self) -> None:
        check_absolute_positions(self)
        check_cross_width(self, self.hidden_size)


class BertConfig(BertLikeConfig):
    """Configuration of a BERT model; the defaults are those of google-bert/bert-base-uncased."""

    model_type = "bert"


def check_absolute_positions(config: PretrainedConfig) -> None:
    """Check that a configuration has absolute position embeddings.

    Older checkpoints may have relative ones, which are not implemented here.

    Raises:
        ValueError: `position_embedding_type` is neither None nor "absolute".
    """
    kind = getattr(config, "position_embedding_type", "absolute")
    if kind not in (None, "absolute"):
        raise ValueError(
            f"position_embedding_type {kind!r} is not supported; only 'absolute' is, and the weights of "
            "other checkpoints mean something else"
        )
