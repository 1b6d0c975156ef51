"""GPT-2's configuration."""

from typing import Any, ClassVar

from ...kernels.linear.gemm import ACTIVATIONS
from ..bert.config import check_cross_width
from ..core.config import PretrainedConfig


class GPT2Config(PretrainedConfig):
    """Sizes and constants of a GPT-2 model; the defaults are openai-community/gpt2's.

    Args:
        vocab_size: tokens.
        n_positions: rows of the position table, so tokens of the longest sequence.
        n_embd: width of the hidden states.
        n_layer: transformer layers.
        n_head: heads; they divide n_embd.
        n_inner: width between a layer's two linear maps; 4 * n_embd where it is None.
        activation_function: one of `kernels.linear.ACTIVATIONS`.
        resid_pdrop, embd_pdrop, attn_pdrop: dropout in training.
        layer_norm_epsilon: added to the variance by every normalization.
        initializer_range: standard deviation of fresh weights.
        summary_type, summary_use_proj, summary_activation, summary_proj_to_labels, summary_first_dropout: of
            transformers' GPT2DoubleHeadsModel; kept.
        scale_attn_weights: attention scores are divided by sqrt(head_dim).
        use_cache: whether forward returns keys and values.
        scale_attn_by_inverse_layer_idx: the scores of layer i, counted from 0, are divided by i + 1.
        reorder_and_upcast_attn: attention in float32, as it always is here.
        add_cross_attention: layers that attend to an encoder's output.
        tie_word_embeddings: the map to the vocabulary is the token embedding.

    Raises:
        ValueError: heads that do not divide n_embd, an unknown activation, or an encoder of another width.
    """

    model_type: ClassVar[str] = "gpt2"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
        # The name under which fresh weights and new rows of the vocabulary look for it.
        "init_std": "initializer_range",
    }

    def __init__(
        self,
        vocab_size: int = 50257,
        n_positions: int = 1024,
        n_embd: int = 768,
        n_layer: int = 12,
        n_head: int = 12,
        n_inner: int | None = None,
        activation_function: str = "gelu_new",
        resid_pdrop: float = 0.1,
        embd_pdrop: float = 0.1,
        attn_pdrop: float = 0.1,
        layer_norm_epsilon: float = 1e-5,
        initializer_range: float = 0.02,
        summary_type: str = "cls_index",
        summary_use_proj: bool = True,
        summary_activation: str | None = None,
        summary_proj_to_labels: bool = True,
        summary_first_dropout: float = 0.1,
        scale_attn_weights: bool = True,
        use_cache: bool = True,
        bos_token_id: int | None = 50256,
        eos_token_id: int | list[int] | None = 50256,
        pad_token_id: int | None = None,
        scale_attn_by_inverse_layer_idx: bool = False,
        reorder_and_upcast_attn: bool = False,
        add_cross_attention: bool = False,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.n_positions = n_positions
        self.n_embd = n_embd
        self.n_layer = n_layer
        self.n_head = n_head
        self.n_inner = n_inner
        self.activation_function = activation_function
        self.resid_pdrop = resid_pdrop
        self.embd_pdrop = embd_pdrop
        self.attn_pdrop = attn_pdrop
        self.layer_norm_epsilon = layer_norm_epsilon
        self.initializer_range = initializer_range
        self.summary_type = summary_type
        self.summary_use_proj = summary_use_proj
        self.summary_activation = summary_activation
        self.summary_proj_to_labels = summary_proj_to_labels
        self.summary_first_dropout = summary_first_dropout
        self.scale_attn_weights = scale_attn_weights
        self.use_cache = use_cache
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.pad_token_id = pad_token_id
        self.scale_attn_by_inverse_layer_idx = scale_attn_by_inverse_layer_idx
        self.reorder_and_upcast_attn = reorder_and_upcast_attn
        self.add_cross_attention = add_cross_attention
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(**kwargs)  # last, so that a field given by its other name is not overwritten
        self._check()

    def _check(self) -> None:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_head {self.n_head} must divide n_embd {self.n_embd}")
        if self.activation_function not in ACTIVATIONS:
            known = ", ".join(sorted(ACTIVATIONS))
            raise ValueError(
                f"activation_function {self.activation_function!r} is not supported; one of {known}"
            )
        check_cross_width(self, self.n_embd)
