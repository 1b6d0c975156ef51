"""XLNet's configuration."""

from typing import Any, ClassVar

from ...kernels.linear.activation import ACTIVATIONS
from ..core.config import PretrainedConfig

_SUMMARIES = ("last", "first", "mean", "cls_index")


class XLNetConfig(PretrainedConfig):
    """Sizes and constants of an XLNet model; the defaults are xlnet/xlnet-large-cased's.

    Args:
        vocab_size: tokens.
        d_model: width of the hidden states, even, since half of the position features are sines.
        n_layer: transformer layers.
        n_head: heads; they divide d_model.
        d_inner: width between a layer's two linear maps.
        d_head: width of a head, d_model / n_head and nothing else.
        ff_activation: one of `kernels.linear.ACTIVATIONS`.
        attn_type: "bi", each token sees all of its text, or "uni", each sees those up to its own place.
        initializer_range: standard deviation of fresh weights.
        layer_norm_eps: added to the variance by every normalization.
        dropout: in training.
        mem_len: tokens at the end whose hidden states forward returns as `mems`; all for None and 0.
        reuse_len: tokens at the beginning that alone count for `mems`; all for None and 0.
        use_mems_eval, use_mems_train: whether forward returns `mems`, outside training and in it.
        bi_data: of pretraining; `XLNetModel` refuses True.
        clamp_len: distances beyond it count as this one; none for -1.
        same_length: with attn_type "uni", each token sees as many before it as there are `mems`: without any,
            itself alone.
        summary_type: what a classifier reads: "last", "first" or "mean"; "cls_index" is the last too.
        summary_use_proj, summary_activation, summary_last_dropout: what follows before the map to the labels;
            no activation for None or "".
        start_n_top, end_n_top: of transformers' XLNetForQuestionAnswering; kept.
        tie_word_embeddings: of its language model; kept.

    Raises:
        ValueError: heads that do not divide d_model, an odd d_model, or something unknown.
    """

    model_type: ClassVar[str] = "xlnet"
    attribute_map: ClassVar[dict[str, str]] = {
        "n_token": "vocab_size",
        "hidden_size": "d_model",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
        # The name under which fresh weights and new rows of the vocabulary look for it.
        "init_std": "initializer_range",
    }

    def __init__(
        self,
        vocab_size: int = 32000,
        d_model: int = 1024,
        n_layer: int = 24,
        n_head: int = 16,
        d_inner: int = 4096,
        d_head: int | None = None,
        ff_activation: str = "gelu",
        attn_type: str = "bi",
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        dropout: float = 0.1,
        mem_len: int | None = 512,
        reuse_len: int | None = None,
        use_mems_eval: bool = True,
        use_mems_train: bool = False,
        bi_data: bool = False,
        clamp_len: int = -1,
        same_length: bool = False,
        summary_type: str = "last",
        summary_use_proj: bool = True,
        summary_activation: str | None = "tanh",
        summary_last_dropout: float = 0.1,
        start_n_top: int = 5,
        end_n_top: int = 5,
        pad_token_id: int | None = 5,
        bos_token_id: int | None = 1,
        eos_token_id: int | list[int] | None = 2,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.n_layer = n_layer
        self.n_head = n_head
        self.d_inner = d_inner
        self.ff_activation = ff_activation
        self.attn_type = attn_type
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.dropout = dropout
        self.mem_len = mem_len
        self.reuse_len = reuse_len
        self.use_mems_eval = use_mems_eval
        self.use_mems_train = use_mems_train
        self.bi_data = bi_data
        self.clamp_len = clamp_len
        self.same_length = same_length
        self.summary_type = summary_type
        self.summary_use_proj = summary_use_proj
        self.summary_activation = summary_activation
        self.summary_last_dropout = summary_last_dropout
        self.start_n_top = start_n_top
        self.end_n_top = end_n_top
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(**kwargs)  # before d_head, since a width may come by its other name
        self.d_head = d_head or self.d_model // self.n_head
        self._check()

    def _check(self) -> None:
        if self.d_model % self.n_head:
            raise ValueError(f"n_head {self.n_head} must divide d_model {self.d_model}")
        if self.d_head != self.d_model // self.n_head:
            raise ValueError(
                f"d_head is {self.d_head}, and d_model {self.d_model} / n_head {self.n_head} is "
                f"{self.d_model // self.n_head}; leave d_head out"
            )
        if self.d_model % 2:
            raise ValueError(f"d_model must be even, for as many sines as cosines; got {self.d_model}")
        for name in ("ff_activation", "summary_activation"):
            given = getattr(self, name)
            if given not in ACTIVATIONS and (given or name == "ff_activation"):
                known = ", ".join(sorted(ACTIVATIONS))
                raise ValueError(f"{name} {given!r} is not supported; one of {known}")
        if self.attn_type not in ("bi", "uni"):
            raise ValueError(f"attn_type {self.attn_type!r} is not supported; 'bi' or 'uni'")
        if self.summary_type not in _SUMMARIES:
            raise ValueError(
                f"summary_type {self.summary_type!r} is not supported; one of {', '.join(_SUMMARIES)}"
            )
