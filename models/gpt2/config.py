"""Configuration of GPT-2."""

from ..core.config import PretrainedConfig
from ..core.field_types import Deviation, Epsilon, Layers, Positions, Probability, Size, TokenId
from ..core.fields import activation, check_cross_width, divides, field


class GPT2Config(PretrainedConfig):
    """Configuration of a GPT-2 model; the defaults are those of openai-community/gpt2."""

    model_type = "gpt2"

    vocab_size: Size = 50257
    n_positions: Positions = field(1024, alias="max_position_embeddings")
    n_embd: Size = field(768, alias="hidden_size")
    n_layer: Layers = field(12, alias="num_hidden_layers")
    n_head: Size = field(12, check=divides("n_embd"), alias="num_attention_heads")
    n_inner: Size | None = None  # width of the feed-forward block; None: 4 * n_embd
    activation_function: str = field("gelu_new", check=activation)
    resid_pdrop: Probability = 0.1
    embd_pdrop: Probability = 0.1
    attn_pdrop: Probability = 0.1
    layer_norm_epsilon: Epsilon = 1e-5
    initializer_range: Deviation = field(0.02, alias="init_std")  # standard deviation of initial weights
    # summary_* belong to transformers' GPT2DoubleHeadsModel, not implemented here.
    summary_type: str = "cls_index"
    summary_use_proj: bool = True
    summary_activation: str | None = None
    summary_proj_to_labels: bool = True
    summary_first_dropout: Probability = 0.1
    scale_attn_weights: bool = True  # divide attention scores by sqrt(head_dim)
    use_cache: bool = True
    bos_token_id: TokenId | None = 50256
    eos_token_id: TokenId | list[TokenId] | None = 50256
    pad_token_id: TokenId | None = None
    scale_attn_by_inverse_layer_idx: bool = False  # divide the scores of layer i, from 0, by i + 1
    reorder_and_upcast_attn: bool = False  # attention in float32, as it always is here
    add_cross_attention: bool = False
    tie_word_embeddings: bool = True

    def _complete(self) -> None:
        check_cross_width(self, self.n_embd)
