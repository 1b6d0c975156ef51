"""Configuration of XLNet."""

from ..core.config import PretrainedConfig
from ..core.field_types import Count, Deviation, Epsilon, Layers, Probability, Signed, Size, TokenId
from ..core.fields import ABSENT, activation, divides, field, one_of


class XLNetConfig(PretrainedConfig):
    """Configuration of an XLNet model; the defaults are those of xlnet/xlnet-large-cased."""

    model_type = "xlnet"

    vocab_size: Size = field(32000, alias="n_token")
    d_model: Size = field(1024, alias="hidden_size")
    n_layer: Layers = field(24, alias="num_hidden_layers")
    n_head: Size = field(16, check=divides("d_model"), alias="num_attention_heads")
    d_inner: Size = 4096  # width of the feed-forward block
    d_head: Count = 0  # width of a head: d_model / n_head, the only value supported
    ff_activation: str = field("gelu", check=activation)
    attn_type: str = field("bi", check=one_of("bi", "uni"))  # "uni" is causal
    initializer_range: Deviation = field(0.02, alias="init_std")  # standard deviation of initial weights
    layer_norm_eps: Epsilon = 1e-12
    dropout: Probability = 0.1
    mem_len: Count | None = 512  # last tokens whose hidden states forward returns as `mems`; None, 0: all
    reuse_len: Count | None = None  # only so many first tokens enter `mems`; None, 0: all
    use_mems_eval: bool = True  # forward returns `mems` outside training
    use_mems_train: bool = False
    bi_data: bool = False  # a pretraining option; `XLNetModel` rejects True
    clamp_len: Signed = -1  # greater distances are clamped to it; -1: no clamping
    # With attn_type "uni", each token attends to as many before it as there are `mems`: here to itself only.
    same_length: bool = False
    # A classifier's pooling: "last", "first" or "mean"; "cls_index" is the last token too.
    summary_type: str = field("last", check=one_of("last", "first", "mean", "cls_index"))
    summary_use_proj: bool = True
    summary_activation: str | None = "tanh"  # None or "": no activation
    summary_last_dropout: Probability = 0.1
    start_n_top: Count = 5  # of transformers' XLNetForQuestionAnswering, like end_n_top
    end_n_top: Count = 5
    pad_token_id: TokenId | None = 5
    bos_token_id: TokenId | None = 1
    eos_token_id: TokenId | list[TokenId] | None = 2
    tie_word_embeddings: bool = True  # of the language-modeling head, not implemented here
    summary_first_dropout: Probability = ABSENT

    def _complete(self) -> None:
        width = self.d_model // self.n_head
        self.d_head = self.d_head or width
        if self.d_head != width:
            raise ValueError(
                f"d_head is {self.d_head}, and d_model {self.d_model} / n_head {self.n_head} is {width}; "
                "leave d_head out"
            )
        if self.d_model % 2:
            raise ValueError(f"d_model must be even, for as many sines as cosines; got {self.d_model}")
        if self.summary_activation:
            activation(self, "summary_activation")
