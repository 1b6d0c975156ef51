"""Configuration of BERT, and the base class of BERT's and RoBERTa's configurations."""

from ..core.config import PretrainedConfig
from ..core.fields import activation, check_cross_width, divides, field


class BertLikeConfig(PretrainedConfig):
    """Configuration fields that BERT and RoBERTa share: layer sizes, dropout, special token ids."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = field(12, check=divides("hidden_size"))
    intermediate_size: int = 3072  # width of the feed-forward block
    hidden_act: str = field("gelu", check=activation)
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = field(0.02, alias="init_std")  # standard deviation of initial weights
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    use_cache: bool = True
    classifier_dropout: float | None = None  # None: hidden_dropout_prob
    is_decoder: bool = False  # causal self-attention
    add_cross_attention: bool = False  # needs is_decoder; layers attend to an encoder's output
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
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
